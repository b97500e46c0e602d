"""Storage, opened here and nowhere else.

Where a cold tier is configured an object may lie in either, and while its study moves in both. A read looks in the hot
one first and then in the other, so that it never fails because of a move (:mod:`studies.archive.tiers`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import pydicom
from django.conf import settings
from django.core.files.storage import storages
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from portal.storage import DurableFileSystemStorage, RangedS3Storage
from studies.archive.errors import ObjectMissing
from studies.archive.overlay import apply_corrections
from studies.archive.packs import is_pack
from studies.archive.writing import dataset_bytes, file_head
from studies.models import Instance, Study

CHUNK = 1 << 18
ITEM_HEADER = 8
HASHED = 1 << 22
# Of the hot tier's disk: it's for what arrives, not for what is brought back.
LEAST_FREE = 0.05
ALIASES = {Study.Tier.HOT: "objects", Study.Tier.COLD: "cold"}


@dataclass(slots=True)
class StoredFile:
    """Where an instance's file lies: what the index says that is needed to read all of it."""

    pk: int
    sop_instance_uid: str
    transfer_syntax_uid: str
    object_key: str
    object_offset: int
    object_length: int


def key_of(
    site_slug: str, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, sha256: bytes
) -> str:
    """Give the key of an instance that lies in an object of its own; other bytes have another key."""
    place = f"{site_slug}/{study_instance_uid}/{series_instance_uid}"
    return f"{place}/{sop_instance_uid}-{sha256.hex()[:16]}.dcm"


def has_cold_tier() -> bool:
    """Say whether a cold tier is configured (``ATRIUM_COLD_STORAGE_URL``)."""
    return ALIASES[Study.Tier.COLD] in settings.STORAGES


class TierUnavailable(OSError):
    """The cold tier can't be reached."""


def require_cold_tier() -> None:
    """Ask whether the cold tier answers. Raises TierUnavailable.

    A folder must be there already: where a file system isn't mounted, one that was made would take its place.
    """
    storage = _storage(ALIASES[Study.Tier.COLD])
    try:
        answers = Path(storage.location).is_dir() if isinstance(storage, DurableFileSystemStorage) else True
        storage.exists("readiness")
    except Exception as error:  # each storage has errors of its own
        raise TierUnavailable from error
    if not answers:
        raise TierUnavailable


def require_room(tier: Study.Tier, length: int) -> None:
    """Ask whether so many bytes leave a tier in a folder room for what arrives. Raises OSError (ENOSPC)."""
    storage = _storage(ALIASES[tier])
    if isinstance(storage, DurableFileSystemStorage) and Path(storage.location).is_dir():
        disk = shutil.disk_usage(storage.location)
        if disk.free - length < disk.total * LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _storage(alias: str = "objects") -> DurableFileSystemStorage | RangedS3Storage:
    storage = storages[alias]
    assert isinstance(storage, DurableFileSystemStorage | RangedS3Storage)
    return storage


def _read(key: str, offset: int, length: int, tier: Study.Tier | None = None) -> bytes:
    """Give a part of an object from where it lies, or from the one tier. Raises FileNotFoundError, EOFError."""
    if tier is not None:
        return _storage(ALIASES[tier]).read_range(key, offset, length)
    try:
        return _storage().read_range(key, offset, length)
    except FileNotFoundError:
        if not has_cold_tier():
            raise
    try:
        return _storage(ALIASES[Study.Tier.COLD]).read_range(key, offset, length)
    except FileNotFoundError:
        # Brought back between the two looks.
        return _storage().read_range(key, offset, length)


def new_staging_path() -> Path:
    """Give an unused path in the staging folder, on the same file system as embedded storage."""
    folder: Path = settings.STAGING_ROOT
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
    return folder / uuid.uuid4().hex


def place(key: str, staged: Path) -> None:
    """Move a staged file into storage; on return it's durable. Raises OSError or the S3 client's error."""
    _storage().place(key, staged)


def begin_writing(path: Path) -> None:
    """Begin to write a staged file to where it will be durable, so that placing it takes less. Raises OSError."""
    _storage().begin_writing(path)


def place_all(staged: Sequence[tuple[str, Path]], tier: Study.Tier = Study.Tier.HOT) -> None:
    """Move many staged files into storage at once; on return all are durable. Raises as :func:`place`."""
    _storage(ALIASES[tier]).place_all(staged)


def sync_all(keys: Sequence[str], tier: Study.Tier) -> None:
    """Make objects durable that a process may have placed and died before they were. Raises OSError."""
    _storage(ALIASES[tier]).sync_all(keys)


def digest(key: str, offset: int, length: int, tier: Study.Tier | None = None) -> bytes:
    """Give the SHA-256 of a part of an object, in whichever tier or in the one. Raises ObjectMissing."""
    hashed = hashlib.sha256()
    for chunk in stream_object(key, length, offset=offset, tier=tier):
        hashed.update(chunk)
    return hashed.digest()


def length_of(key: str, tier: Study.Tier) -> int:
    """Give the length of an object in one tier. Raises ObjectMissing."""
    try:
        length: int = _storage(ALIASES[tier]).size(key)
    except FileNotFoundError as error:
        raise ObjectMissing(key) from error
    return length


def reaches(key: str, length: int, tier: Study.Tier | None = None) -> bool:
    """Say whether storage, or one tier of it, holds an object of at least so many bytes."""
    try:
        return len(_read(key, length - 1, 1, tier)) == 1
    except (OSError, EOFError):
        return False


def is_whole(instance: Instance, *, with_digest: bool = False) -> bool:
    """Say whether storage holds the instance to its last byte, and, if asked, every byte as it came."""
    try:
        # This finds it, too, where its pack was taken apart since it was found in the index.
        read_range(instance, instance.object_length - 1, 1)
        if not with_digest:
            return True
        return digest(instance.object_key, instance.object_offset, instance.object_length) == bytes(instance.sha256)
    except ObjectMissing:
        return False


def quarantine(key: str, staged: Path) -> None:
    """Move a refused file into quarantine; on return it's durable."""
    _storage("quarantine").place(key, staged)


def remove(key: str) -> None:
    """Remove an object for good, from every tier; one that isn't there is removed already. Raises TierUnavailable."""
    if has_cold_tier():
        # Of a folder that isn't mounted everything would seem to be removed.
        require_cold_tier()
        remove_from(Study.Tier.COLD, key)
    _storage().delete(key)


def remove_partial(oldest: float) -> None:
    """Remove what was begun to be copied into a folder of storage and isn't written to since then. Raises OSError."""
    for alias in ("objects", "quarantine", "cold"):
        if alias in settings.STORAGES:
            storage = _storage(alias)
            if isinstance(storage, DurableFileSystemStorage):
                storage.remove_partial(oldest)


def remove_from(tier: Study.Tier, key: str) -> None:
    """Remove an object from one tier; it must lie in the other."""
    _storage(ALIASES[tier]).delete(key)


def read_range(instance: Instance | StoredFile, offset: int, length: int) -> bytes:
    """Give ``length`` bytes from ``offset`` of the instance's file. Raises ObjectMissing."""
    try:
        return _read(instance.object_key, instance.object_offset + offset, length)
    except (OSError, EOFError) as error:
        if not _has_left_its_pack(instance):
            raise ObjectMissing(instance.sop_instance_uid) from error
    return read_range(instance, offset, length)


def may_read_at_once() -> bool:
    """Say whether :func:`read_at_once` ever reads anything: storage is a folder of a local file system."""
    storage = _storage()
    return isinstance(storage, DurableFileSystemStorage) and storage.may_read_at_once


def read_at_once(instance: Instance, offset: int, into: memoryview) -> bool:
    """Fill ``into`` from ``offset`` of the instance's file, and say whether this machine's memory held all of it."""
    storage = _storage()
    if not isinstance(storage, DurableFileSystemStorage):
        return False
    try:
        return storage.read_at_once(instance.object_key, instance.object_offset + offset, into)
    except OSError:
        return False


def _has_left_its_pack(instance: Instance | StoredFile) -> bool:
    """Look anew where an instance lies that was found in the index before its pack was taken apart."""
    if not is_pack(instance.object_key):
        return False
    place = Instance.objects.filter(pk=instance.pk).values_list("object_key", "object_offset").first()
    if place is None or place[0] == instance.object_key:
        return False
    instance.object_key, instance.object_offset = place
    return True


def stream_object(key: str, length: int, *, offset: int = 0, tier: Study.Tier | None = None) -> Iterator[bytes]:
    """Give a part of an object in chunks, so that memory stays flat. Raises ObjectMissing."""
    end = offset + length
    while offset < end:
        size = min(HASHED, end - offset)
        try:
            yield _read(key, offset, size, tier)
        except (OSError, EOFError) as error:
            raise ObjectMissing(key) from error
        offset += size


def read_instance(instance: Instance) -> bytes:
    """Give the whole Part 10 file as received. Raises ObjectMissing."""
    return read_range(instance, 0, instance.object_length)


def stream_range(instance: Instance | StoredFile, offset: int, length: int) -> Iterator[bytes]:
    """Give a range of the instance's file in chunks. Raises ObjectMissing."""
    end = offset + length
    while offset < end:
        size = min(CHUNK * 4, end - offset)
        yield read_range(instance, offset, size)
        offset += size


class FileReader:
    """Reads files one after another to where they're sent from; what it read last stays open, as most lie in packs."""

    def __init__(self) -> None:
        self._key, self._descriptor = "", -1
        # What storage gave that isn't a folder of this machine, of which file and from where.
        self._ahead, self._ahead_of = b"", (0, 0)

    def read_into(self, file: StoredFile, offset: int, view: memoryview) -> int:
        """Fill the view, or a part of it from its beginning, from ``offset`` of the file; give how many bytes.

        Raises ObjectMissing.
        """
        if self._is_open(file.object_key):
            with suppress(OSError):
                count = os.preadv(self._descriptor, [view], file.object_offset + offset)
                if count:
                    return count
        if self._ahead_of[0] != file.pk or not 0 <= offset - self._ahead_of[1] < len(self._ahead):
            self._ahead = read_range(file, offset, min(CHUNK * 4, file.object_length - offset))
            self._ahead_of = file.pk, offset
        begin = offset - self._ahead_of[1]
        count = min(len(view), len(self._ahead) - begin)
        view[:count] = memoryview(self._ahead)[begin : begin + count]
        return count

    def _is_open(self, key: str) -> bool:
        if key != self._key:
            self.close()
            self._key = key
            storage = _storage()
            if isinstance(storage, DurableFileSystemStorage):
                with suppress(OSError):
                    self._descriptor = os.open(storage.path(key), os.O_RDONLY)
        return self._descriptor >= 0

    def close(self) -> None:
        """Close what is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._key, self._descriptor = "", -1


def stream_instance(instance: Instance, *, original: bool = False) -> Iterator[bytes]:
    """Give the Part 10 file in chunks, so that memory stays flat: corrected as its study is, or as it was received.

    Of a corrected instance the header is written anew and the pixels follow from storage, so that its length isn't
    ``object_length``. Select ``series__study`` with the instance. Raises ObjectMissing.
    """
    if original or not instance.series.study.corrections:
        return stream_range(instance, 0, instance.object_length)
    return _corrected(instance)


def _corrected(instance: Instance) -> Iterator[bytes]:
    syntax = instance.transfer_syntax_uid
    has_rest = instance.pixel_data_offset is not None
    dataset = read_dataset(instance, with_pixels=not has_rest)
    body = dataset_bytes(dataset, syntax)
    if syntax == DeflatedExplicitVRLittleEndian:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = deflater.compress(body) + deflater.flush()
        body += b"\0" * (len(body) % 2)
    yield file_head(dataset.file_meta)
    yield body
    if has_rest:
        start = (instance.pixel_data_offset or 0) - pixel_element_head_size(instance)
        yield from stream_range(instance, start, instance.object_length - start)


def has_places(instance: Instance) -> bool:
    """Say whether the frames are native and lie on byte borders at known offsets."""
    return instance.pixel_data_offset is not None and instance.frame_length is not None


def pixel_element_head_size(instance: Instance) -> int:
    """Give the length in bytes of the pixel data element's tag, VR and length (PS3.5 §7.1)."""
    return 8 if instance.transfer_syntax_uid == ImplicitVRLittleEndian else 12


def read_frame(instance: Instance, frame: int) -> bytes:
    """Give one frame (counted from 1) as stored: native samples or one compressed bit stream.

    Raises IndexError where there's no such frame, LookupError where frames have no place of their own (deflated or
    bit-packed), ObjectMissing.
    """
    offset, length = instance.frame_span(frame)
    data = read_range(instance, offset, length)
    return _without_item_headers(data) if instance.frames_are_fragmented else data


def _without_item_headers(span: bytes) -> bytes:
    """Join the fragments of a frame (PS3.5 §A.4). The span begins in the first fragment's header."""
    parts = []
    position = 0
    while position + ITEM_HEADER <= len(span):
        length = int.from_bytes(span[position + 4 : position + 8], "little")
        parts.append(span[position + ITEM_HEADER : position + ITEM_HEADER + length])
        position += ITEM_HEADER + length
    return b"".join(parts)


def read_dataset(instance: Instance, *, with_pixels: bool = False, original: bool = False) -> Dataset:
    """Give the parsed instance, corrected as its study is unless ``original``. Raises ObjectMissing."""
    if with_pixels or instance.pixel_data_offset is None:
        dataset = pydicom.dcmread(BytesIO(read_instance(instance)), stop_before_pixels=not with_pixels)
    else:
        header = read_range(instance, 0, instance.pixel_data_offset - pixel_element_head_size(instance))
        dataset = pydicom.dcmread(BytesIO(header))
    return dataset if original else apply_corrections(dataset, instance.series.study.corrections)


def open_quarantined(key: str) -> IO[bytes]:
    """Open a refused file's bytes. Raises ObjectMissing."""
    try:
        return _storage("quarantine").open_object(key)
    except OSError as error:
        raise ObjectMissing(key) from error
