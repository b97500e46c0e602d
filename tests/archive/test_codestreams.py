"""A compressed frame's announced size is read before anything is decoded: a small stream may claim to be a huge one."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from studies.archive.codecs import PixelForm, decode, encode
from studies.archive.codestreams import announced_pixels
from studies.archive.errors import NotTranscodable

FORM = PixelForm(40, 64, 1, 8, 8, 0, "MONOCHROME2")
JPEG_XL = "1.2.840.10008.1.2.4.110"
PICTURE = np.arange(40 * 64, dtype=np.uint8).reshape(40, 64)
# Where each stream writes its height and width: the marker before them, the places after it and their form.
PLACES = {
    JPEG2000Lossless: (b"\xff\x51", (6, 22), ">II"),
    HTJ2KLossless: (b"\xff\x51", (6, 22), ">II"),
    JPEGLSLossless: (b"\xff\xf7", (5,), ">HH"),
    JPEGLosslessSV1: (b"\xff\xc3", (5,), ">HH"),
    JPEGBaseline8Bit: (b"\xff\xc0", (5,), ">HH"),
}


def stream_of(syntax: str, picture: np.ndarray = PICTURE) -> bytes:
    if syntax == JPEG_XL:
        return bytes(imagecodecs.jpegxl_encode(picture, lossless=True))
    return bytes(imagecodecs.jpeg8_encode(picture)) if syntax == JPEGBaseline8Bit else encode(picture, FORM, syntax)


@pytest.mark.parametrize("syntax", [*PLACES, JPEG_XL])
def test_the_announced_size_is_the_frames(syntax: str) -> None:
    assert announced_pixels(stream_of(syntax)) == 40 * 64


@pytest.mark.parametrize("size", [(8, 8), (40, 40), (256, 8), (30, 40), (7, 9), (300, 1000), (1080, 1920), (1, 70_000)])
def test_every_form_of_jpeg_xls_size_is_read(size: tuple[int, int]) -> None:
    assert announced_pixels(stream_of(JPEG_XL, np.zeros(size, np.uint8))) == size[0] * size[1]


def test_a_stream_in_boxes_is_found() -> None:
    boxed = bytes(imagecodecs.jpeg2k_encode(PICTURE, codecformat="jp2"))
    assert boxed[4:8] == b"jP  "
    assert announced_pixels(boxed) == 40 * 64


@pytest.mark.parametrize("syntax", PLACES)
def test_a_stream_that_claims_to_be_huge_is_refused(syntax: str) -> None:
    marker, places, form = PLACES[syntax]
    stream = bytearray(stream_of(syntax))
    for place in places:
        struct.pack_into(form, stream, stream.index(marker) + place, 60_000, 60_000)
    with pytest.raises(NotTranscodable, match="larger than the data set says"):
        decode(bytes(stream), syntax, FORM)


def test_a_jpeg_xl_that_is_larger_than_its_data_set_says_is_not_decoded() -> None:
    """A hundred megapixels of black are some hundred bytes."""
    with pytest.raises(NotTranscodable, match="larger than the data set says"):
        decode(stream_of(JPEG_XL, np.zeros((1000, 1000), np.uint8)), JPEG_XL, FORM)


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\0\0\0\x0cjP  "]))
def test_any_bytes_have_a_size_or_none(data: bytes, head: bytes) -> None:
    assert (announced_pixels(head + data) or 0) >= 0
