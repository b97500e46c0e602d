"""Long binary values of an instance, by the path that its metadata names them by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRBigEndian, MPEGTransferSyntaxes

from studies.archive import objects
from studies.archive.ahead import made_ahead
from studies.archive.codecs import DECODABLE
from studies.archive.documents import OCTETS, media_type_of
from studies.archive.errors import NotTranscodable
from studies.archive.frames import PIXEL_KEYWORDS, Frames
from studies.archive.icons import uncompress_icon
from studies.archive.writing import turn_words
from studies.models import Instance

# Pixel Data, Float Pixel Data and Double Float Pixel Data.
PIXELS = {f"{tag_for_keyword(keyword):08X}" for keyword in PIXEL_KEYWORDS}
DOCUMENT = "00420011"
# Media types of videos by transfer syntax, fragmentable ones included (PS3.18 Table 8.7.3-5); the others are MPEG-4's.
_OTHER_VIDEOS = {"100": "video/mpeg2", "101": "video/mpeg2", "107": "video/H265", "108": "video/H265"}
VIDEO_MEDIA_TYPES = {str(uid): _OTHER_VIDEOS.get(uid.split(".")[7], "video/mp4") for uid in MPEGTransferSyntaxes}


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
    if path in PIXELS and instance.number_of_frames:
        if path != frames.pixel_path:
            raise LookupError(path)
        if frames.is_compressed and frames.syntax in DECODABLE:
            return _decoded(frames)
        if frames.syntax in VIDEO_MEDIA_TYPES:
            return _video(instance)
        if objects.has_places(instance) and frames.syntax != ExplicitVRBigEndian:
            return BulkValue(
                OCTETS, frames.native_length, partial(_range_from, instance, instance.pixel_data_offset or 0)
            )
    value = _element(instance, path)
    media_type = media_type_of(frames.header) if path == DOCUMENT else OCTETS

    def read(offset: int, size: int) -> Iterator[bytes]:
        yield value[offset : offset + size]

    return BulkValue(media_type, len(value), read)


def _video(instance: Instance) -> BulkValue:
    """Give a video's stream, the headers of its fragments left out (PS3.5 §A.4)."""
    spans = _fragments(instance) if instance.frames_are_fragmented else [instance.frame_span(1)]

    def read(offset: int, size: int) -> Iterator[bytes]:
        for start, length in spans:
            first, last = min(offset, length), min(offset + size, length)
            yield from objects.stream_range(instance, start + first, last - first)
            offset, size = offset - first, size - (last - first)

    media_type = VIDEO_MEDIA_TYPES[instance.transfer_syntax_uid]
    return BulkValue(media_type, sum(length for _, length in spans), read)


def _fragments(instance: Instance) -> list[tuple[int, int]]:
    position, length = instance.frame_span(1)
    end, spans = position + length, []
    while position + objects.ITEM_HEADER <= end:
        head = objects.read_range(instance, position, objects.ITEM_HEADER)
        spans.append((position + objects.ITEM_HEADER, int.from_bytes(head[4:], "little")))
        position = sum(spans[-1])
    return spans


def _range_from(instance: Instance, start: int, offset: int, size: int) -> Iterator[bytes]:
    return objects.stream_range(instance, start + offset, size)


def _decoded(frames: Frames) -> BulkValue:
    """Give compressed pixels as one uncompressed value, of which only the frames that are read are decoded.

    All of these before the first is given: a value that its length has been told of mustn't break off. Reading raises
    NotTranscodable.
    """
    size = len(frames.little_endian(1))

    def read(offset: int, length: int) -> Iterator[bytes]:
        return made_ahead(partial(pieces, offset, offset + length))

    def pieces(first: int, end: int) -> Iterator[bytes]:
        for number in range(first // size + 1, -(-end // size) + 1):
            start = (number - 1) * size
            frame = frames.little_endian(number)
            if len(frame) != size:
                raise NotTranscodable("The frames aren't of one size.")
            yield frame[max(first - start, 0) : end - start]

    return BulkValue(OCTETS, size * len(frames), read)


def _element(instance: Instance, path: str) -> bytes:
    dataset = objects.read_dataset(instance, with_pixels=path in PIXELS)
    try:
        turn_words(dataset, instance.transfer_syntax_uid)
        *parents, last = path.split(".")
        for tag, number in zip(parents[::2], parents[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(number) - 1]
        if parents and last in PIXELS:
            uncompress_icon(dataset, instance.transfer_syntax_uid)
        element = dataset[int(last, 16)]
        value = element.value
    except Exception as error:  # pydicom raises what it will on hostile values, and where there's no such path
        raise LookupError(path) from error
    if not isinstance(value, bytes) or (parents and last in PIXELS and element.is_undefined_length):
        raise LookupError(path)
    return value
