"""Storage backends: what Django's and django-storages' lack for an archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

from django.core.files.storage import FileSystemStorage
from storages.backends.s3 import S3Storage


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (a rename is only in memory until then)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DurableFileSystemStorage(FileSystemStorage):
    """Files that are on disk, under their final name, before :meth:`place` returns."""

    def place(self, key: str, staged: Path) -> None:
        """Make the staged file durable under ``key``. An object that is already there is replaced by equal bytes."""
        target = Path(self.path(key))
        if not target.parent.is_dir():
            self._make_folders(target.parent)
        descriptor = os.open(staged, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.replace(staged, target)
        except OSError:
            # Staging lies on another file system: copy beside the target, then rename.
            beside = target.with_name(f".{target.name}.{os.getpid()}")
            with staged.open("rb") as source, beside.open("wb") as copy:
                while chunk := source.read(1 << 20):
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(beside, target)
            staged.unlink()
        fsync_folder(target.parent)

    def _make_folders(self, folder: Path) -> None:
        missing = [folder]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            fsync_folder(path.parent)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Give ``length`` bytes from ``offset``. Raises FileNotFoundError, or EOFError when the object is shorter."""
        descriptor = os.open(self.path(key), os.O_RDONLY)
        try:
            data = os.pread(descriptor, length, offset)
            while len(data) < length:
                more = os.pread(descriptor, length - len(data), offset + len(data))
                if not more:
                    raise EOFError(f"object is shorter than its index says: {key}")
                data += more
            return data
        finally:
            os.close(descriptor)

    def open_object(self, key: str) -> IO[bytes]:
        """Open the object for streaming. Raises FileNotFoundError."""
        return open(self.path(key), "rb")


class RangedS3Storage(S3Storage):
    """An S3 bucket with range reads; success of :meth:`place` means a completed PUT."""

    def place(self, key: str, staged: Path) -> None:
        """Upload the staged file as ``key`` and remove it."""
        with staged.open("rb") as file:
            self.bucket.upload_fileobj(file, self._normalize_name(key), ExtraArgs={"ContentType": "application/dicom"})
        staged.unlink()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Give ``length`` bytes from ``offset`` by one ranged GET. Raises EOFError when the object is shorter."""
        if length == 0:
            return b""
        answer = self._get(key, Range=f"bytes={offset}-{offset + length - 1}")
        data: bytes = answer["Body"].read()
        if len(data) != length:
            raise EOFError(f"object is shorter than its index says: {key}")
        return data

    def open_object(self, key: str) -> IO[bytes]:
        """Open the object for streaming."""
        body: IO[bytes] = self._get(key)["Body"]
        return body

    def _get(self, key: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.bucket.Object(self._normalize_name(key)).get(**options)
        return answer
