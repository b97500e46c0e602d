"""Long binary values of an instance, by the path that its metadata names them by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pydicom.uid import ExplicitVRBigEndian

from studies.archive import objects
from studies.archive.frames import PIXEL_KEYWORDS, Frames
from studies.models import Instance

PIXELS = "7FE00010"
OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class BulkValue:
    """A value's media type and length in bytes; ``read(offset, length)`` gives a part of it in chunks."""

    media_type: str
    length: int
    read: Callable[[int, int], Iterable[bytes]]


def bulk_value(instance: Instance, path: str) -> BulkValue:
    """Give the value of the element at a path such as ``"00420011"`` or ``"00081140.1.00091010"``.

    Native pixels are read from storage in ranges. Raises LookupError when there's no such binary element,
    ObjectMissing.
    """
    frames = Frames(instance)
    if path == PIXELS and instance.number_of_frames and objects.has_places(instance) and not frames.is_compressed:
        start, length = instance.pixel_data_offset or 0, frames.native_length
        if frames.syntax != ExplicitVRBigEndian:
            return BulkValue(OCTETS, length, lambda offset, size: objects.stream_range(instance, start + offset, size))
    value = _element(instance, path)
    media_type = OCTETS
    if path == "00420011":
        media_type = str(frames.header.get("MIMETypeOfEncapsulatedDocument") or OCTETS)

    def read(offset: int, size: int) -> Iterator[bytes]:
        yield value[offset : offset + size]

    return BulkValue(media_type, len(value), read)


def _element(instance: Instance, path: str) -> bytes:
    dataset = objects.read_dataset(instance, with_pixels=path == PIXELS)
    try:
        if path == PIXELS:
            return bytes(dataset[next(k for k in PIXEL_KEYWORDS if k in dataset)].value)
        *parents, last = path.split(".")
        for tag, number in zip(parents[::2], parents[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(number) - 1]
        value = dataset[int(last, 16)].value
    except (KeyError, ValueError, IndexError, AttributeError, TypeError, OverflowError, StopIteration) as error:
        raise LookupError(path) from error
    if not isinstance(value, bytes):
        raise LookupError(path)
    return value
