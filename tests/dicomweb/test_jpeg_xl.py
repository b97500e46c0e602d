"""JPEG XL (PS3.5 §8.2.18): given as it came, and in every other form that its samples can take."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from tests.factories import make_instance

pytestmark = pytest.mark.django_db
LOSSLESS, RECOMPRESSED, LOSSY = (f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))
INSTANCE = "/dicom-web/studies/1.2/series/1.2.1/instances/1.2.1.1"
GREY = (np.arange(96 * 80, dtype=np.uint16) * 7 % 4096).reshape(96, 80)
COLOUR = np.random.default_rng(3).integers(0, 256, (96, 80, 3), dtype=np.uint8)


def compressed(pixels: np.ndarray, stream: bytes, syntax: str) -> bytes:
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1", "SOPInstanceUID": "1.2.1.1"}
    grey = pixels if pixels.ndim == 2 else pixels[..., 0].copy()
    dataset = pydicom.dcmread(BytesIO(make_instance(**uids, pixels=grey)))
    if pixels.ndim == 3:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "RGB"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()


def body_of(answer: Any) -> bytes:
    assert answer.status_code == 200, answer.content
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


@pytest.fixture
def radiologist(client_of: Any) -> Any:
    return client_of("radiologist")


@pytest.mark.parametrize(("pixels", "syntax"), [(GREY, LOSSLESS), (COLOUR, LOSSLESS), (GREY, LOSSY)])
def test_samples_come_back_whatever_is_asked_for(
    pixels: np.ndarray, syntax: str, north: Any, ingest_files: Any, radiologist: Any
) -> None:
    stream = imagecodecs.jpegxl_encode(pixels, lossless=True)
    ingest_files(north, compressed(pixels, stream, syntax))
    stored = body_of(radiologist.get(f"{INSTANCE}/frames/1", HTTP_ACCEPT="image/jxl, */*;q=0.1"))
    assert stored.rstrip(b"\0") in {stream, stream.rstrip(b"\0")} or stream in stored
    octets = body_of(radiologist.get(f"{INSTANCE}/frames/1", HTTP_ACCEPT="application/octet-stream"))
    assert octets == pixels.tobytes()
    for target in (ExplicitVRLittleEndian, JPEG2000Lossless):
        accept = f"application/dicom; transfer-syntax={target}"
        dataset = pydicom.dcmread(BytesIO(body_of(radiologist.get(INSTANCE, HTTP_ACCEPT=accept))))
        assert dataset.file_meta.TransferSyntaxUID == target
        assert np.array_equal(pixel_array(dataset), pixels)
    shown = Image.open(BytesIO(body_of(radiologist.get(f"{INSTANCE}/rendered", HTTP_ACCEPT="image/png"))))
    assert shown.size == (80, 96)


def test_a_recompressed_jpeg_is_the_jpegs_picture(north: Any, ingest_files: Any, radiologist: Any) -> None:
    smooth = np.stack([np.add.outer(np.arange(96), np.arange(80)) + n for n in (0, 20, 40)], axis=2).astype(np.uint8)
    jpeg = imagecodecs.jpeg8_encode(smooth, level=95)
    ingest_files(north, compressed(smooth, imagecodecs.jpegxl_encode_jpeg(jpeg), RECOMPRESSED))
    octets = body_of(radiologist.get(f"{INSTANCE}/frames/1", HTTP_ACCEPT="application/octet-stream"))
    given = np.frombuffer(octets, np.uint8).reshape(smooth.shape).astype(int)
    assert np.abs(given - imagecodecs.jpeg8_decode(jpeg)).max() <= 3


def test_what_is_no_jpeg_xl_is_refused(north: Any, ingest_files: Any, radiologist: Any) -> None:
    for stream in (b"nothing of the kind!", imagecodecs.jpegxl_encode(GREY[:50], lossless=True)):
        ingest_files(north, compressed(GREY, stream, LOSSLESS))
        answer = radiologist.get(f"{INSTANCE}/frames/1", HTTP_ACCEPT="application/octet-stream")
        assert answer.status_code == 406
