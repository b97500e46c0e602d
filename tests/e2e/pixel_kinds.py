"""One image, a ramp with a disc, in every kind of pixels that a viewer may meet, each a series of one study."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    ParametricMapStorage,
)

from tests.factories import make_instance

SIDE = 64
JPEG_XL, JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.4.110"
_rows, _columns = np.mgrid[:SIDE, :SIDE]
_disc = (_rows - 32) ** 2 + (_columns - 32) ** 2 < 500
GREY = (_disc * 900 + _rows * 6).astype(np.uint16)
COLOURS = np.stack([_rows * 4, _columns * 4, _disc * 255], -1).astype(np.uint8)
INDEXES = (GREY // 6).clip(0, 255).astype(np.uint8)
WINDOW = {"WindowCenter": 640, "WindowWidth": 1280}


def pixel_kinds(study: str) -> Iterator[tuple[str, bytes]]:
    """Give each kind's name and file; the n-th is ``{study}.{n}.1`` in the series ``{study}.{n}``."""
    for number, (name, dataset) in enumerate(_kinds(), 1):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.{number}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number}.1"
        dataset.SeriesNumber, dataset.SeriesDescription = number, name
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        yield name, buffer.getvalue()


def _kinds() -> Iterator[tuple[str, Any]]:
    yield "MONOCHROME1", _grey(PhotometricInterpretation="MONOCHROME1")
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        yield f"VOI LUT function {function}", _grey(VOILUTFunction=function)
    yield "signed", _with(_grey(WindowCenter=40), GREY.astype(np.int16) - 600, "MONOCHROME2")
    yield (
        "32 bits",
        _with(_grey(WindowCenter=640 << 16, WindowWidth=1280 << 16), GREY.astype(np.uint32) << 16, "MONOCHROME2"),
    )
    yield "no size", _grey(PixelSpacing=[0, 0])
    yield "1 bit", _single_bits()
    for name, bits, first in (("8 bits", 8, 0), ("16 bits", 16, 0), ("from 300", 16, 300)):
        indexes = INDEXES if not first else INDEXES.astype(np.uint16) + first
        yield f"palette, {name}", _palette(_with(_grey(), indexes, "PALETTE COLOR"), bits, first)
    yield "palette, segmented", _segmented(_with(_grey(), INDEXES, "PALETTE COLOR"))
    yield "RGB by plane", _with(_grey(), COLOURS, "RGB", by_plane=True)
    yield "RGB of 16 bits", _with(_grey(), COLOURS.astype(np.uint16) * 257, "RGB")
    full = convert_color_space(COLOURS, "RGB", "YBR_FULL")
    yield "YBR_FULL", _with(_grey(), full, "YBR_FULL")
    halved = np.stack([full[:, ::2, 0], full[:, 1::2, 0], full[:, ::2, 1], full[:, ::2, 2]], -1)
    half = _with(_grey(), full, "YBR_FULL_422")
    half.PixelData = halved.astype(np.uint8).tobytes()
    yield "YBR_FULL_422", half
    yield "JPEG lossless", _coded(_grey(), JPEGLosslessSV1, imagecodecs.ljpeg_encode(GREY))
    yield "JPEG-LS", _coded(_with(_grey(), COLOURS, "RGB"), JPEGLSLossless, imagecodecs.jpegls_encode(COLOURS))
    yield "JPEG 2000", _coded(_grey(), JPEG2000Lossless, imagecodecs.jpeg2k_encode(GREY, codecformat="j2k", level=0))
    yield "HTJ2K", _coded(_grey(), HTJ2KLossless, imagecodecs.htj2k_encode(GREY))
    plain = imagecodecs.jpeg8_encode(COLOURS, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    yield "JPEG of RGB", _coded(_with(_grey(), COLOURS, "RGB"), JPEGBaseline8Bit, plain)
    yield "JPEG XL, grey", _coded(_grey(), JPEG_XL_LOSSLESS, imagecodecs.jpegxl_encode(GREY, lossless=True))
    yield "JPEG XL", _coded(_with(_grey(), COLOURS, "RGB"), JPEG_XL, imagecodecs.jpegxl_encode(COLOURS, level=90))
    private = _grey()
    private.SOPClassUID = private.file_meta.MediaStorageSOPClassUID = "1.2.826.0.4.99"
    yield "private SOP class", private
    yield "float", _floats("FloatPixelData", "<f4")
    yield "double", _floats("DoubleFloatPixelData", "<f8")


def _grey(**keywords: Any) -> Any:
    return pydicom.dcmread(BytesIO(make_instance(pixels=GREY, PatientID="KINDS8", **{**WINDOW, **keywords})))


def _with(dataset: Any, pixels: np.ndarray[Any, Any], photometric: str, *, by_plane: bool = False) -> Any:
    dataset.PhotometricInterpretation = photometric
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.BitsAllocated = dataset.BitsStored = pixels.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = pixels.itemsize * 8 - 1, int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = int(by_plane)
        pixels = np.moveaxis(pixels, -1, 0) if by_plane else pixels
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return dataset


def _single_bits() -> Any:
    dataset = _with(_grey(WindowCenter=None, WindowWidth=None, Modality="OT"), INDEXES, "MONOCHROME2")
    dataset.SOPClassUID = MultiFrameSingleBitSecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.NumberOfFrames, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 1, 0
    dataset.PixelData = np.packbits(_disc.ravel(), bitorder="little").tobytes()
    return dataset


def _palette(dataset: Dataset, bits: int, first: int) -> Dataset:
    ramp = np.arange(256)
    for number, entries in enumerate((ramp, 255 - ramp, np.abs(ramp - 128) * 2 - (ramp == 0))):
        dataset.add_new(0x00281101 + number, "US", [256, first, bits])
        table = (entries * 257).astype("<u2") if bits == 16 else entries.astype(np.uint8)
        dataset.add_new(0x00281201 + number, "OW", table.tobytes())
    return dataset


def _segmented(dataset: Dataset) -> Dataset:
    """Add tables of a discrete entry and linear segments (PS3.3 C.7.9.2)."""
    tables = ([0, 1, 0, 1, 255, 65535], [0, 1, 65535, 1, 255, 0], [0, 1, 65535, 1, 127, 0, 1, 128, 65535])
    for number, table in enumerate(tables):
        dataset.add_new(0x00281101 + number, "US", [256, 0, 16])
        dataset.add_new(0x00281221 + number, "OW", np.array(table, "<u2").tobytes())
    return dataset


def _coded(dataset: Any, syntax: str, stream: bytes) -> Any:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return dataset


def _floats(keyword: str, kind: str) -> Any:
    """Give a parametric map that belongs to no image (PS3.3 A.75)."""
    dataset = _grey(WindowCenter=None, WindowWidth=None, Modality="OT")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ParametricMapStorage
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.NumberOfFrames, dataset.BitsAllocated = 1, int(kind[-1]) * 8
    setattr(dataset, keyword, (GREY / 1300).astype(kind).tobytes())
    return dataset
