"""Storage, opened here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

import pydicom
from django.core.files.storage import storages
from pydicom import Dataset

from portal.storage import DurableFileSystemStorage, RangedS3Storage
from studies.archive.errors import ObjectMissing
from studies.models import Instance

CHUNK = 1 << 18
ITEM_HEADER = 8


def _storage(alias: str = "objects") -> DurableFileSystemStorage | RangedS3Storage:
    storage = storages[alias]
    assert isinstance(storage, DurableFileSystemStorage | RangedS3Storage)
    return storage


def place(key: str, staged: Path) -> None:
    """Move a staged file into storage; on return it's durable. Raises OSError or the S3 client's error."""
    _storage().place(key, staged)


def quarantine(key: str, staged: Path) -> None:
    """Move a refused file into quarantine; on return it's durable."""
    _storage("quarantine").place(key, staged)


def read_range(instance: Instance, offset: int, length: int) -> bytes:
    """Give ``length`` bytes from ``offset`` of the instance's file. Raises ObjectMissing."""
    try:
        return _storage().read_range(instance.object_key, instance.object_offset + offset, length)
    except (OSError, EOFError) as error:
        raise ObjectMissing(instance.sop_instance_uid) from error


def read_instance(instance: Instance) -> bytes:
    """Give the whole Part 10 file as received. Raises ObjectMissing."""
    return read_range(instance, 0, instance.object_length)


def stream_instance(instance: Instance) -> Iterator[bytes]:
    """Give the Part 10 file in chunks, so that memory stays flat. Raises ObjectMissing."""
    position = 0
    while position < instance.object_length:
        length = min(CHUNK * 4, instance.object_length - position)
        yield read_range(instance, position, length)
        position += length


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


def read_dataset(instance: Instance, *, with_pixels: bool = False) -> Dataset:
    """Give the parsed instance. Raises ObjectMissing."""
    if with_pixels or instance.pixel_data_offset is None:
        return pydicom.dcmread(BytesIO(read_instance(instance)), stop_before_pixels=not with_pixels)
    # Pixel data begins at most 12 bytes after its element's tag; what follows the pixels is padding at most.
    header = read_range(instance, 0, instance.pixel_data_offset)
    return pydicom.dcmread(BytesIO(header), stop_before_pixels=True)


def open_quarantined(key: str) -> IO[bytes]:
    """Open a refused file's bytes. Raises ObjectMissing."""
    try:
        return _storage("quarantine").open_object(key)
    except OSError as error:
        raise ObjectMissing(key) from error
