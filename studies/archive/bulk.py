"""Long binary values of an instance, by the path that its metadata names them by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from pydicom.uid import ExplicitVRBigEndian, MPEGTransferSyntaxes

from studies.archive import objects
from studies.archive.codecs import DECODABLE
from studies.archive.documents import OCTETS, media_type_of
from studies.archive.frames import PIXEL_KEYWORDS, Frames
from studies.models import Instance

PIXELS = "7FE00010"
DOCUMENT = "00420011"
VIDEO = "video/mp4"


@dataclass(frozen=True)
class BulkValue:
    """A value's media type and length in bytes; ``read(offset, length)`` gives a part of it in chunks."""

    media_type: str
    length: int
    read: Callable[[int, int], Iterable[bytes]]


def bulk_value(instance: Instance, path: str) -> BulkValue:
    """Give the value of the element at a path such as ``"00420011"`` or ``"00081140.1.00091010"``.

    Native pixels are read from storage in ranges, compressed ones decoded (PS3.18 §8.7.3.3.1) but for videos. Raises
    LookupError when there's no such binary element, NotTranscodable, ObjectMissing.
    """
    frames = Frames(instance)
    if path == PIXELS and instance.number_of_frames:
        if frames.is_compressed and frames.syntax in DECODABLE:
            return _decoded(frames)
        if frames.syntax in MPEGTransferSyntaxes and not instance.frames_are_fragmented:
            start, length = instance.frame_span(1)
            return BulkValue(VIDEO, length, partial(_range_from, instance, start))
        if objects.has_places(instance) and frames.syntax != ExplicitVRBigEndian:
            return BulkValue(
                OCTETS, frames.native_length, partial(_range_from, instance, instance.pixel_data_offset or 0)
            )
    value = _element(instance, path)
    media_type = media_type_of(frames.header) if path == DOCUMENT else OCTETS

    def read(offset: int, size: int) -> Iterator[bytes]:
        yield value[offset : offset + size]

    return BulkValue(media_type, len(value), read)


def _range_from(instance: Instance, start: int, offset: int, size: int) -> Iterator[bytes]:
    return objects.stream_range(instance, start + offset, size)


def _decoded(frames: Frames) -> BulkValue:
    """Give compressed pixels as one uncompressed value, of which only the frames that are read are decoded."""
    size = len(frames.little_endian(1))

    def read(offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        for number in range(offset // size + 1, -(-end // size) + 1):
            start = (number - 1) * size
            yield frames.little_endian(number)[max(offset - start, 0) : end - start]

    return BulkValue(OCTETS, size * len(frames), read)


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
