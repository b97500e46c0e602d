"""An instance's frames, one at a time: the header and one range of bytes, whatever the object's size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cached_property
from io import BytesIO
from typing import Literal

import numpy as np
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from studies.archive import objects
from studies.archive.codecs import DECODING_ERRORS, UNCOMPRESSED, PixelForm, decode, native
from studies.archive.errors import NotTranscodable
from studies.models import Instance

SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
ITEM = b"\xfe\xff\x00\xe0"
LEAST_ELEMENT = 8
OFFSET_TABLE_HEAD = 8
PIXEL_DATA = tag_for_keyword("PixelData")
# Float Pixel Data have 32, Double Float Pixel Data 64 (PS3.3 §C.7.6.24, §C.7.6.25).
FEWEST_FLOAT_BITS = 32
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


class Frames:
    """The frames of one instance. ``header`` is its data set without pixels, corrected unless ``original``."""

    def __init__(self, instance: Instance, *, original: bool = False) -> None:
        self.instance = instance
        self.original = original
        self.syntax = UID(instance.transfer_syntax_uid)

    @cached_property
    def header(self) -> Dataset:
        """Raises ObjectMissing."""
        return objects.read_dataset(self.instance, original=self.original)

    @cached_property
    def form(self) -> PixelForm:
        """Raises NotTranscodable, ObjectMissing."""
        keyword, vr = self._pixel_element
        return PixelForm.of(self.header, keyword=keyword, vr=vr)

    @property
    def pixel_path(self) -> str:
        """The pixel element's tag; storage is asked for it only where the samples may be no whole numbers."""
        bits = self.instance.bits_allocated
        if self.is_compressed or (bits is not None and bits < FEWEST_FLOAT_BITS):
            return f"{PIXEL_DATA:08X}"
        return f"{tag_for_keyword(self._pixel_element[0]):08X}"

    @property
    def pixel_vr(self) -> str:
        """The pixel element's VR as stored, the implied one where the syntax has none. Raises ObjectMissing."""
        return self._pixel_element[1]

    @property
    def is_compressed(self) -> bool:
        """Whether the pixels are encapsulated, in a syntax known here or not."""
        return self.syntax not in UNCOMPRESSED

    def __len__(self) -> int:
        return self.instance.number_of_frames

    @property
    def _has_no_places(self) -> bool:
        """Say whether frames can only be told apart by reading the whole object."""
        i = self.instance
        return i.pixel_data_offset is None or (self.is_compressed and i.frame_offsets is None)

    @cached_property
    def _whole(self) -> Dataset:
        """The parsed object: for deflated data sets and for fragments that no table tells apart."""
        return objects.read_dataset(self.instance, with_pixels=True, original=self.original)

    @cached_property
    def _pixel_element(self) -> tuple[str, str]:
        if self._has_no_places:
            keyword = next((k for k in PIXEL_KEYWORDS if k in self._whole), "PixelData")
            return keyword, self._whole[keyword].VR if keyword in self._whole else "OW"
        is_implicit = self.syntax == ImplicitVRLittleEndian
        order = self._order
        start = self._pixel_element_head
        tag = int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:4], order)
        keyword = keyword_for_tag(tag)
        implied = {"FloatPixelData": "OF", "DoubleFloatPixelData": "OD"}.get(keyword, "OW")
        return keyword, implied if is_implicit else start[4:6].decode("ascii", "replace")

    @property
    def _order(self) -> Literal["big", "little"]:
        return "big" if self.syntax == ExplicitVRBigEndian else "little"

    @cached_property
    def _pixel_element_head(self) -> bytes:
        size = objects.pixel_element_head_size(self.instance)
        return objects.read_range(self.instance, (self.instance.pixel_data_offset or 0) - size, size)

    @cached_property
    def native_length(self) -> int:
        """Length of the native pixels in bytes, padding left out."""
        bits: int = self._frame_bits * len(self)
        return (bits + 7) // 8

    def native_pixels(self) -> Iterator[bytes]:
        """Give the native pixels of all frames as little-endian samples, in chunks."""
        if self._has_no_places:
            data: bytes = self._whole[self._pixel_element[0]].value
            yield data[: self.native_length]
        elif self.syntax == ExplicitVRBigEndian:
            left, word = self.native_length, self._word
            length = -(-left // word) * word
            for chunk in objects.stream_range(self.instance, self.instance.pixel_data_offset or 0, length):
                yield _turned(chunk, word)[:left]
                left -= len(chunk)
        else:
            start = self.instance.pixel_data_offset or 0
            yield from objects.stream_range(self.instance, start, self.native_length)

    @cached_property
    def trailer(self) -> Dataset:
        """What follows the pixels, padding left out: digital signatures, mostly."""
        if self._has_no_places:
            return Dataset()
        if self.is_compressed:
            offset, length = self.instance.frame_span(len(self))
            end = offset + length + len(SEQUENCE_END)
        else:
            length = int.from_bytes(self._pixel_element_head[-4:], self._order)
            end = (self.instance.pixel_data_offset or 0) + length
        left = self.instance.object_length - end
        if left < LEAST_ELEMENT:
            return Dataset()
        rest = BytesIO(objects.read_range(self.instance, end, left))
        trailer = read_dataset(rest, self.syntax == ImplicitVRLittleEndian, self.syntax != ExplicitVRBigEndian)
        trailer.pop("DataSetTrailingPadding", None)
        return trailer

    def stored(self, number: int) -> bytes:
        """Give a frame (counted from 1) as stored: native samples in the stored byte order, or one bit stream.

        Frames of one bit that don't begin on a byte are shifted to one. Raises IndexError, ObjectMissing,
        NotTranscodable.
        """
        if not 1 <= number <= len(self):
            raise IndexError(number)
        if self._has_no_places:
            return self._from_whole(number)
        try:
            return objects.read_frame(self.instance, number)
        except LookupError:
            return self._packed(number)

    def stream(self) -> Iterator[bytes]:
        """Give all encapsulated pixel data as one stream, item headers left out: a video. Raises ObjectMissing."""
        position = (self.instance.pixel_data_offset or 0) + OFFSET_TABLE_HEAD
        head = objects.read_range(self.instance, position - OFFSET_TABLE_HEAD, OFFSET_TABLE_HEAD)
        position += int.from_bytes(head[4:], "little")
        while position + OFFSET_TABLE_HEAD <= self.instance.object_length:
            head = objects.read_range(self.instance, position, OFFSET_TABLE_HEAD)
            if head[:4] != ITEM:
                return
            length = int.from_bytes(head[4:], "little")
            yield from objects.stream_range(self.instance, position + OFFSET_TABLE_HEAD, length)
            position += OFFSET_TABLE_HEAD + length

    def _from_whole(self, number: int) -> bytes:
        try:
            data: bytes = self._whole[self._pixel_element[0]].value
            if self.is_compressed:
                for place, frame in enumerate(generate_frames(data, number_of_frames=len(self)), start=1):
                    if place == number:
                        found: bytes = frame
                        return found
                raise NotTranscodable("The frames can't be told apart.")
        except (*DECODING_ERRORS, zlib.error) as error:
            raise NotTranscodable("The frames can't be told apart.") from error
        if self.form.bits_allocated == 1:
            return _shifted(data, (number - 1) * self._frame_bits, self._frame_bits)
        length = self._frame_bits // 8
        return data[(number - 1) * length : number * length]

    @property
    def _frame_bits(self) -> int:
        form = self.form
        bits = form.rows * form.columns * form.samples_per_pixel * form.bits_allocated
        return bits * 2 // 3 if form.photometric_interpretation == "YBR_FULL_422" else bits

    def _packed(self, number: int) -> bytes:
        first = (number - 1) * self._frame_bits
        start, end = first // 8, (first + self._frame_bits + 7) // 8
        data = objects.read_range(self.instance, (self.instance.pixel_data_offset or 0) + start, end - start)
        return _shifted(data, first - start * 8, self._frame_bits)

    @property
    def _word(self) -> int:
        """The length in bytes of what byte order turns around: samples, or the words that hold smaller ones."""
        form = self.form
        return 2 if form.vr == "OW" and form.bits_allocated <= 8 else max(form.bits_allocated // 8, 1)

    def _from_big_endian(self, number: int) -> bytes:
        """Give a big-endian frame as little endian; in words, samples of 8 bits and less lie over frames' borders."""
        if not 1 <= number <= len(self):
            raise IndexError(number)
        bits, word = self._frame_bits, self._word
        first_bit = (number - 1) * bits
        start, end = first_bit // 8, (first_bit + bits + 7) // 8
        first, last = start // word * word, -(-end // word) * word
        data = objects.read_range(self.instance, (self.instance.pixel_data_offset or 0) + first, last - first)
        frame = _turned(data, word)[start - first : end - first]
        return _shifted(frame, first_bit - start * 8, bits) if bits % 8 else frame

    def samples(self, number: int) -> tuple[np.ndarray, PixelForm]:
        """Decode a frame (counted from 1). Raises IndexError, NotTranscodable, ObjectMissing."""
        is_turned = self.syntax == ExplicitVRBigEndian
        data = self._from_big_endian(number) if is_turned else self.stored(number)
        if self.form.bits_allocated == 1 and not self.is_compressed:
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: self._frame_bits]
            if bits.size != self.form.rows * self.form.columns:
                raise NotTranscodable("Pixels of one bit have one sample each.")
            return bits.reshape(self.form.rows, self.form.columns), self.form
        return decode(data, ExplicitVRLittleEndian if is_turned else self.syntax, self.form)

    def little_endian(self, number: int) -> bytes:
        """Give a frame as uncompressed little-endian samples. Raises IndexError, NotTranscodable, ObjectMissing."""
        if self.syntax == ExplicitVRBigEndian:
            return self._from_big_endian(number)
        if not self.is_compressed:
            return self.stored(number)
        return native(*self.samples(number))


def _turned(data: bytes, word: int) -> bytes:
    turned: bytes = np.frombuffer(data, f">u{word}").astype(f"<u{word}").tobytes()
    return turned


def _shifted(data: bytes, first_bit: int, count: int) -> bytes:
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[first_bit : first_bit + count]
    return np.packbits(bits, bitorder="little").tobytes()
