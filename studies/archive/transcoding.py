"""One instance, or one frame, in another transfer syntax: for WADO, C-GET and C-MOVE.

Losslessly unless loss is allowed. Frames pass one by one, so that memory holds one frame, whatever their number;
deflated data sets and fragments that no table tells apart are the exceptions.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from studies.archive import objects
from studies.archive.ahead import made_ahead
from studies.archive.codecs import (
    DECODABLE,
    DECODING_ERRORS,
    ENCODERS,
    UNCOMPRESSED,
    PixelForm,
    encode,
    encoded_form,
    native,
)
from studies.archive.errors import NotTranscodable
from studies.archive.frames import Frames
from studies.archive.icons import uncompress_icons
from studies.archive.writing import dataset_bytes, file_head, turn_words
from studies.models import Instance

# Of files in another transfer syntax than theirs. To be raised with whatever changes their bytes.
FORM = 3
NATIVE_TARGETS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
LOSSY_TARGETS = (JPEGBaseline8Bit,)
# ISO 10918-1, the defined term of Lossy Image Compression Method for JPEG (PS3.3 C.7.6.1.1.5).
LOSSY_METHOD = "ISO_10918_1"
LONGEST_ELEMENT = 0xFFFFFFFE
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def can_transcode(source: str, target: str, *, allow_lossy: bool = False) -> bool:
    """Say whether objects of one transfer syntax can be given in another, as far as the syntaxes tell.

    A particular instance may still refuse: broken frames, 32-bit or floating-point pixels, samples out of range.
    """
    if source == target:
        return True
    if source not in DECODABLE:
        return False
    return target in NATIVE_TARGETS or target in ENCODERS or (allow_lossy and target in LOSSY_TARGETS)


def targets(source: str, *, allow_lossy: bool = False) -> list[str]:
    """Give every transfer syntax in which objects of ``source`` can be given, their own first."""
    known = (*NATIVE_TARGETS, *ENCODERS, *LOSSY_TARGETS)
    return [source, *(t for t in known if t != source and can_transcode(source, t, allow_lossy=allow_lossy))]


def transcoded_file(
    instance: Instance, transfer_syntax_uid: str, *, allow_lossy: bool = False, original: bool = False
) -> Iterator[bytes]:
    """Give the Part 10 file in the transfer syntax, in chunks; as stored when it's the instance's own.

    The study's corrections are laid over it unless ``original``; select ``series__study`` with the instance.
    What can't be given raises here, before the first chunk, as far as the first frame tells; a broken later frame
    raises while iterating. Raises NotTranscodable, ObjectMissing.
    """
    if transfer_syntax_uid == instance.transfer_syntax_uid:
        return objects.stream_instance(instance, original=original)
    target = UID(transfer_syntax_uid)
    _check(instance, target, allow_lossy=allow_lossy)
    if not instance.number_of_frames:
        return _without_frames(instance, target, original=original)
    frames = Frames(instance, original=original)
    if target in NATIVE_TARGETS:
        return _uncompressed_file(frames, target)
    return _compressed_file(frames, target)


def whole_file(instance: Instance, transfer_syntax_uid: str) -> Iterator[bytes]:
    """Give the file as :func:`transcoded_file` does, but raise here whichever frame can't be given.

    So several frames that pass a codec are all made before the first chunk is given. Raises NotTranscodable,
    ObjectMissing.
    """
    is_stored = transfer_syntax_uid == instance.transfer_syntax_uid
    is_native = instance.transfer_syntax_uid in UNCOMPRESSED and transfer_syntax_uid in NATIVE_TARGETS
    make = partial(transcoded_file, instance, transfer_syntax_uid)
    try:
        return make() if is_stored or is_native or instance.number_of_frames < 2 else made_ahead(make)
    except (*DECODING_ERRORS, zlib.error) as error:
        raise NotTranscodable("The data set can't be read.") from error


def uncompressed_pixels(frames: Frames) -> Iterator[bytes]:
    """Give the uncompressed little-endian samples of all frames, which are decoded before the first is given.

    Native ones are read from storage as they're given. Raises NotTranscodable, ObjectMissing.
    """
    if frames.is_compressed:
        return made_ahead(partial(_decoded, frames)) if len(frames) > 1 else iter([frames.little_endian(1)])
    chunks = frames.native_pixels()
    return chain([next(chunks, b"")], chunks)


def _decoded(frames: Frames) -> Iterator[bytes]:
    first = frames.little_endian(1)
    yield first
    for number in range(2, len(frames) + 1):
        yield _as_long(frames.little_endian(number), first)


def _as_long(frame: bytes, first: bytes) -> bytes:
    if len(frame) != len(first):
        raise NotTranscodable("The frames aren't of one size.")
    return frame


def file_of_frames(frames: Frames, target: UID) -> Iterator[bytes]:
    """Give a Part 10 file made anew of frames, their streams as stored where the transfer syntax is their own.

    Raises NotTranscodable, ObjectMissing.
    """
    if target in NATIVE_TARGETS:
        return _uncompressed_file(frames, target)
    if target != frames.syntax or not frames.is_compressed:
        raise NotTranscodable(f"Frames can't be given as {target.name}.")
    # The first one shows whether they can be told apart.
    return _encapsulated_file(frames, frames.form, target, chain([frames.stored(1)], _stored_from(frames, 2)))


def _stored_from(frames: Frames, first: int) -> Iterator[bytes]:
    return (frames.stored(number) for number in range(first, len(frames) + 1))


def transcoded_frame(frames: Frames, number: int, transfer_syntax_uid: str, *, allow_lossy: bool = False) -> bytes:
    """Give one frame (counted from 1): little-endian samples, or one bit stream of a compressed transfer syntax.

    Raises IndexError where there's no such frame, NotTranscodable, ObjectMissing.
    """
    target = UID(transfer_syntax_uid)
    if target in NATIVE_TARGETS and not frames.is_compressed:
        return frames.little_endian(number)
    if target == frames.syntax:
        return frames.stored(number)
    _check(frames.instance, target, allow_lossy=allow_lossy)
    if target in NATIVE_TARGETS:
        return frames.little_endian(number)
    samples, form = frames.samples(number)
    return encode(samples, encoded_form(form, target), target)


def _check(instance: Instance, target: UID, *, allow_lossy: bool) -> None:
    if not can_transcode(instance.transfer_syntax_uid, target, allow_lossy=allow_lossy):
        raise NotTranscodable(f"{UID(instance.transfer_syntax_uid).name} can't be given as {target.name}.")


def _without_frames(instance: Instance, target: UID, *, original: bool) -> Iterator[bytes]:
    if target not in NATIVE_TARGETS:
        raise NotTranscodable("The instance has no frames to compress.")
    dataset = objects.read_dataset(instance, with_pixels=True, original=original)
    dataset.file_meta.TransferSyntaxUID = target
    return chain([file_head(dataset.file_meta)], rewritten(dataset, instance.transfer_syntax_uid, target))


def rewritten(dataset: Dataset, transfer_syntax_uid: str, target: UID) -> Iterator[bytes]:
    """Give the bytes of a data set that has no compressed pixels but icons, read in one transfer syntax, in another.

    Raises NotTranscodable.
    """
    if transfer_syntax_uid != target:
        turn_words(dataset, transfer_syntax_uid)
        uncompress_icons(dataset, transfer_syntax_uid)
    return _deflated_if(target, [dataset_bytes(dataset, target)])


def _uncompressed_file(frames: Frames, target: UID) -> Iterator[bytes]:
    # The first frame, decoded ahead of the rest, says in which form all come.
    if frames.is_compressed:
        samples, form = frames.samples(1)
        first = native(samples, form)
        bits = form.rows * form.columns * form.samples_per_pixel * form.bits_allocated
        length = (bits * len(frames) + 7) // 8
        rest = (_as_long(frames.little_endian(number), first) for number in range(2, len(frames) + 1))
        pixels: Iterator[bytes] = chain([first], rest)
        form = replace(form, vr="OB" if form.bits_allocated <= 8 else "OW")
    else:
        form, length = frames.form, frames.native_length
        pixels = frames.native_pixels()
    padded = length + length % 2
    if padded > LONGEST_ELEMENT:
        raise NotTranscodable("Uncompressed, the pixels are longer than an element can be.")
    header = _header(frames, form, target)
    chunks = chain(
        [header, _element_head(form.keyword, form.vr, padded, target)],
        pixels,
        [b"\0" * (padded - length), dataset_bytes(frames.trailer, target)],
    )
    return chain([file_head(frames.header.file_meta)], _deflated_if(target, chunks))


def _compressed_file(frames: Frames, target: UID) -> Iterator[bytes]:
    samples, form = frames.samples(1)
    form = encoded_form(form, target)
    first = encode(samples, form, target)
    if target in LOSSY_TARGETS:
        _mark_lossy(frames, samples.nbytes / len(first))
    rest = (encode(frames.samples(number)[0], form, target) for number in range(2, len(frames) + 1))
    return _encapsulated_file(frames, form, target, chain([first], rest))


def _encapsulated_file(frames: Frames, form: PixelForm, target: UID, streams: Iterable[bytes]) -> Iterator[bytes]:
    header = _header(frames, form, target)

    def chunks() -> Iterator[bytes]:
        yield file_head(frames.header.file_meta)
        yield header
        yield _element_head(form.keyword, "OB", 0xFFFFFFFF, target)
        # The offset table is empty: it would have to come before frames that don't exist yet (PS3.5 §A.4).
        yield ITEM + struct.pack("<I", 0)
        for stream in streams:
            yield ITEM + struct.pack("<I", len(stream) + len(stream) % 2)
            yield stream + b"\0" * (len(stream) % 2)
        yield SEQUENCE_END
        yield dataset_bytes(frames.trailer, target)

    return chunks()


def _header(frames: Frames, form: PixelForm, target: UID) -> bytes:
    header = frames.header
    turn_words(header, frames.syntax)
    if target != frames.syntax:
        for part in (header, frames.trailer):
            uncompress_icons(part, frames.syntax)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in header:
            del header[keyword]
    header.PhotometricInterpretation = form.photometric_interpretation
    header.BitsAllocated = form.bits_allocated
    if form.samples_per_pixel > 1:
        header.PlanarConfiguration = form.planar_configuration
    header.file_meta.TransferSyntaxUID = target
    return dataset_bytes(header, target)


def _mark_lossy(frames: Frames, ratio: float) -> None:
    header = frames.header
    header.LossyImageCompression = "01"
    header.LossyImageCompressionRatio = [*_values(header.get("LossyImageCompressionRatio")), f"{ratio:.4g}"]
    header.LossyImageCompressionMethod = [*_values(header.get("LossyImageCompressionMethod")), LOSSY_METHOD]


def _values(value: object) -> list[object]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _element_head(keyword: str, vr: str, length: int, target: UID) -> bytes:
    tag = Tag(tag_for_keyword(keyword) or 0)
    if target == ImplicitVRLittleEndian:
        return struct.pack("<HHI", tag.group, tag.element, length)
    return struct.pack("<HH2sHI", tag.group, tag.element, vr.encode(), 0, length)


def _deflated_if(target: UID, chunks: Iterable[bytes]) -> Iterator[bytes]:
    if target != DeflatedExplicitVRLittleEndian:
        yield from chunks
        return
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    length = 0
    for chunk in chunks:
        deflated = deflater.compress(chunk)
        length += len(deflated)
        yield deflated
    deflated = deflater.flush()
    yield deflated + b"\0" * ((length + len(deflated)) % 2)
