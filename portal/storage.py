"""Storage backends: what Django's and django-storages' lack for an archive."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import uuid
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from botocore.config import Config
from botocore.exceptions import ClientError
from django.core.files.storage import FileSystemStorage
from django.utils._os import safe_join
from storages.backends.s3 import S3Storage

# Disks and object stores take several writes at a time.
_syncing = ThreadPoolExecutor(8, thread_name_prefix="durable")
PARTIAL = ".partial"
# Linux's, which Python's os lacks: of a file, or all of it from 0 for 0 bytes, what is to be written is begun to be.
_sync_file_range = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
_SYNC_FILE_RANGE_WRITE = 2
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
# To an object store, for each process: its threads that answer and those that send bodies. Opened when needed.
MOST_CONNECTIONS = 192


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (a rename is only in memory until then)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(files: Collection[Path], folders: Collection[Path]) -> None:
    """Make files' bytes and folders' names durable side by side: the disk's flushes become fewer."""
    others = [_syncing.submit(fsync_folder, folder) for folder in folders]
    if len(files) > 1:
        others += [_syncing.submit(_sync_bytes, file) for file in files]
    else:
        for file in files:
            _sync_bytes(file)
    for other in others:
        other.result()


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder with all above it; give those that have a new name in them."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return [path.parent for path in missing]


def _sync_bytes(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _rename(staged: Path, target: Path, root: Path) -> None:
    try:
        os.replace(staged, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Staging lies on another file system: copy to the target's, then rename.
        partial = _partial_folder(root, target) / f".{uuid.uuid4().hex}"
        try:
            with staged.open("rb") as source, partial.open("xb") as copy:
                while chunk := source.read(1 << 20):
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(partial, target)
        except BaseException:
            # A full disk isn't made fuller by what couldn't be finished.
            partial.unlink(missing_ok=True)
            raise
        staged.unlink()


def _partial_folder(root: Path, target: Path) -> Path:
    """Give where a copy is begun that becomes the target: where a sweep finds it, or else beside the target."""
    folder = root / PARTIAL
    folder.mkdir(exist_ok=True)
    return folder if folder.stat().st_dev == target.parent.stat().st_dev else target.parent


# Frames of an object and files of a pack are read one after the other, and joining a path takes as long as opening it.
_path_below = lru_cache(4096)(safe_join)


class DurableFileSystemStorage(FileSystemStorage):
    """Files that are on disk, under their final name, before :meth:`place` returns."""

    # Until the file system has said that it can't tell what is in memory.
    may_read_at_once = True

    def path(self, name: str | os.PathLike[str]) -> str:
        """Give the object's path. Raises SuspiciousFileOperation where it would lie outside."""
        return _path_below(str(self.location), os.fspath(name))

    def place(self, key: str, staged: Path) -> None:
        """Make the staged file durable under ``key``. An object that is already there is replaced by equal bytes."""
        self.place_all([(key, staged)])

    def begin_writing(self, path: Path) -> None:
        """Have the kernel begin to write a staged file, so that less is left to wait for.

        Promises nothing, but raises the OSError of a disk that's full or broken, which isn't told twice.
        """
        if _sync_file_range is None:
            return
        with path.open("rb", buffering=0) as file:
            if _sync_file_range(file.fileno(), 0, 0, _SYNC_FILE_RANGE_WRITE) == 0:
                return
        error = ctypes.get_errno()
        if error not in {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}:
            raise OSError(error, os.strerror(error))

    def place_all(self, staged: Sequence[tuple[str, Path]]) -> None:
        """Give many staged files their names and make bytes and names durable, each folder's at once.

        Names come first: a file system with a journal makes them durable together with the bytes, by one flush of the
        disk instead of two.
        """
        targets: list[Path] = []
        folders: set[Path] = set()
        for key, path in staged:
            target = Path(self.path(key))
            folders |= {target.parent, *_make_folders(target.parent)}
            _rename(path, target, Path(self.location))
            targets.append(target)
        _sync(targets, folders)

    def remove_partial(self, oldest: float) -> None:
        """Remove copies of files of another file system that whoever made them didn't end. Raises OSError.

        ``oldest`` is the time, in seconds of the epoch, since when nothing has been added to them.
        """
        for path in (Path(self.location) / PARTIAL).glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def sync_all(self, keys: Sequence[str]) -> None:
        """Make objects durable that someone else may have placed, and died before they were."""
        paths = [Path(self.path(key)) for key in keys]
        _sync(paths, {path.parent for path in paths})

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

    def read_at_once(self, key: str, offset: int, into: memoryview) -> bool:
        """Fill ``into`` from ``offset`` where the kernel holds the bytes in memory; say False where it's a disk's turn.

        A file system that can't tell (NFS) isn't asked again. Raises FileNotFoundError.
        """
        if not self.may_read_at_once:
            return False
        descriptor = os.open(self.path(key), os.O_RDONLY)
        try:
            return os.preadv(descriptor, [into], offset, os.RWF_NOWAIT) == len(into)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self.may_read_at_once = False
            return False
        finally:
            os.close(descriptor)

    def open_object(self, key: str) -> IO[bytes]:
        """Open the object for streaming. Raises FileNotFoundError."""
        return open(self.path(key), "rb")


class RangedS3Storage(S3Storage):
    """An S3 bucket with range reads; success of :meth:`place` means a completed PUT.

    A process has one client, and all its threads share the client's pool of connections. django-storages would make a
    client for each thread, and with it a TLS handshake for each thread's first read.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        pooled = Config(max_pool_connections=MOST_CONNECTIONS, tcp_keepalive=True)
        self.client_config: Any = self.client_config.merge(pooled)
        self._making = threading.Lock()
        self._shared: Any = None

    @property
    def connection(self) -> Any:
        """Give the process's one resource; its client may be used by any thread, the resource's objects by one."""
        with self._making:
            if self._shared is None:
                self._shared = self._create_session().resource(
                    "s3",
                    region_name=self.region_name,
                    use_ssl=self.use_ssl,
                    endpoint_url=self.endpoint_url,
                    config=self.client_config,
                    verify=self.verify,
                )
            return self._shared

    @property
    def client(self) -> Any:
        """Give the process's one client."""
        return self.connection.meta.client

    def place(self, key: str, staged: Path) -> None:
        """Upload the staged file as ``key`` and remove it."""
        with staged.open("rb") as file:
            self.client.upload_fileobj(
                file,
                self.bucket_name,
                self._normalize_name(key),
                ExtraArgs={"ContentType": "application/x-tar" if key.endswith(".tar") else "application/dicom"},
                Config=self.transfer_config,
            )
        staged.unlink()

    def begin_writing(self, path: Path) -> None:
        """Do nothing: a staged file is read once and gone."""

    def place_all(self, staged: Sequence[tuple[str, Path]]) -> None:
        """Upload many staged files, some at a time."""
        list(_syncing.map(lambda pair: self.place(*pair), staged))

    def sync_all(self, keys: Sequence[str]) -> None:
        """Do nothing: what is in the bucket is durable."""

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Give ``length`` bytes from ``offset`` by one ranged GET.

        Raises FileNotFoundError, or EOFError when the object is shorter.
        """
        if length == 0:
            return b""
        with closing(self._get(key, Range=f"bytes={offset}-{offset + length - 1}")) as body:
            data: bytes = body.read()
        if len(data) != length:
            raise EOFError(f"object is shorter than its index says: {key}")
        return data

    def open_object(self, key: str) -> IO[bytes]:
        """Open the object for streaming. Raises FileNotFoundError."""
        return self._get(key)

    def _get(self, key: str, **options: Any) -> IO[bytes]:
        try:
            answer = self.client.get_object(Bucket=self.bucket_name, Key=self._normalize_name(key), **options)
        except ClientError as error:
            code = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if code == HTTPStatus.NOT_FOUND:
                raise FileNotFoundError(key) from error
            if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise EOFError(f"object is shorter than its index says: {key}") from error
            raise
        body: IO[bytes] = answer["Body"]
        return body
