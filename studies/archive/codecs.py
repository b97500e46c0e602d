"""Pixel codecs: one frame from and to each transfer syntax (PS3.5 §8.2), by kept libraries.

pydicom's decoders and encoders (pylibjpeg, OpenJPEG, CharLS) do most; JPEG lossless and HTJ2K are encoded by
imagecodecs (libjpeg-turbo, OpenJPH), which pydicom has no encoder for, and JPEG XL is decoded by it (libjxl).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, get_encoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from studies.archive.codestreams import announced_pixels
from studies.archive.errors import NotTranscodable

UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian}
LOSSY_JPEG = {JPEGBaseline8Bit, JPEGExtended12Bit}
# JPEG XL lossless, JPEG recompression and JPEG XL (PS3.5 §8.2.18): newer than pydicom's dictionary.
JPEG_XL = {UID(f"1.2.840.10008.1.2.4.{number}") for number in (110, 111, 112)}
DECODABLE = UNCOMPRESSED | {
    *JPEG_XL,
    *LOSSY_JPEG,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
    RLELossless,
}
LOSSY_QUALITY = 90
TINY = 64
# Of a compressed frame, and how many times larger its stream may say that it is than its data set.
MOST_SAMPLES = 400_000_000
MOST_TIMES = 2
# What decoders raise on broken or unusual data.
DECODING_ERRORS = (
    ValueError,
    RuntimeError,
    AttributeError,
    TypeError,
    KeyError,
    NotImplementedError,
    OverflowError,
    IndexError,
    OSError,
)


@dataclass(frozen=True)
class PixelForm:
    """How a frame's samples are to be read (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int = 0
    keyword: str = "PixelData"
    vr: str = "OW"

    @classmethod
    def of(cls, header: Dataset, *, keyword: str = "PixelData", vr: str = "OW") -> PixelForm:
        """Read it from a data set. Raises NotTranscodable where the data set doesn't say."""
        try:
            bits = int(header.BitsAllocated)
            return cls(
                rows=int(header.Rows),
                columns=int(header.Columns),
                samples_per_pixel=int(header.get("SamplesPerPixel") or 1),
                bits_allocated=bits,
                bits_stored=int(header.get("BitsStored") or bits),
                pixel_representation=int(header.get("PixelRepresentation") or 0),
                photometric_interpretation=str(header.get("PhotometricInterpretation") or "MONOCHROME2"),
                planar_configuration=int(header.get("PlanarConfiguration") or 0),
                keyword=keyword,
                vr=vr,
            )
        except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
            raise NotTranscodable("The data set doesn't say how its pixels are to be read.") from error

    def options(self) -> dict[str, Any]:
        """Give them as pydicom's decoders and encoders take them."""
        options: dict[str, Any] = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples_per_pixel,
            "bits_allocated": self.bits_allocated,
            "bits_stored": self.bits_stored,
            "pixel_representation": self.pixel_representation,
            "photometric_interpretation": self.photometric_interpretation,
            "number_of_frames": 1,
        }
        if self.samples_per_pixel > 1:
            options["planar_configuration"] = self.planar_configuration
        return options


def decode(data: bytes, syntax: str, form: PixelForm) -> tuple[np.ndarray, PixelForm]:
    """Decode one frame, native or one compressed bit stream.

    Gives samples of shape (rows, columns) or (rows, columns, samples), and their form: colour by pixel; RGB where the
    codec's own colour transform was undone. Raises NotTranscodable.
    """
    uid = UID(syntax)
    if uid not in DECODABLE:
        raise NotTranscodable(f"{uid.name} can't be decoded here.")
    if uid.is_compressed or uid in JPEG_XL:
        _check_size(data, form)
    if uid in JPEG_XL:
        return _jpeg_xl(data, form)
    options = form.options() | {"pixel_keyword": form.keyword, "pixel_vr": form.vr}
    try:
        source = encapsulate([data], has_bot=False) if uid.is_compressed else data
        # Only lossy JPEG's YCbCr is turned into RGB; elsewhere the samples are what was stored.
        samples, given = get_decoder(uid).as_array(source, index=0, raw=uid not in LOSSY_JPEG, **options)
    except DECODING_ERRORS as error:
        if uid == JPEGExtended12Bit and form.samples_per_pixel == 1 and form.bits_allocated == 16:
            return _twelve_bits(data, form), form
        raise NotTranscodable("The pixel data can't be decoded here.") from error
    except BaseException as error:
        # A decoder written in Rust panics on a broken stream; its exception can't be imported, and is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise NotTranscodable("The pixel data can't be decoded here.") from error
    return samples, replace(
        form,
        photometric_interpretation=str(given["photometric_interpretation"]),
        planar_configuration=0,
        bits_allocated=samples.dtype.itemsize * 8 if form.bits_allocated > 1 else form.bits_allocated,
    )


def _check_size(data: bytes, form: PixelForm) -> None:
    """Refuse a stream of which a decoder would make more than the data set says: some hundred bytes can become 17 GB.

    Raises NotTranscodable.
    """
    pixels = form.rows * form.columns
    if pixels * form.samples_per_pixel > MOST_SAMPLES or (announced_pixels(data) or 0) > MOST_TIMES * pixels:
        raise NotTranscodable("The frame is too large, or larger than the data set says.")


def _jpeg_xl(data: bytes, form: PixelForm) -> tuple[np.ndarray, PixelForm]:
    """Decode JPEG XL; libjxl gives colours as RGB, whatever they were coded as."""
    try:
        samples: np.ndarray = imagecodecs.jpegxl_decode(data)
    except (*DECODING_ERRORS, imagecodecs.DelayedImportError) as error:
        raise NotTranscodable("The pixel data can't be decoded here.") from error
    shape = (form.rows, form.columns) if form.samples_per_pixel == 1 else (form.rows, form.columns, 3)
    if samples.shape != shape or samples.dtype.kind != "u" or samples.dtype.itemsize * 8 != form.bits_allocated:
        raise NotTranscodable("The pixel data isn't what the data set says.")
    if form.pixel_representation:
        samples = samples.view(f"i{samples.dtype.itemsize}")
    colours = form.photometric_interpretation if form.samples_per_pixel == 1 else "RGB"
    return samples, replace(form, photometric_interpretation=colours, planar_configuration=0)


def _twelve_bits(data: bytes, form: PixelForm) -> np.ndarray:
    """Decode lossy JPEG of 12 bits by libjpeg-turbo: real files break a rule that pydicom's decoder insists on."""
    try:
        samples: np.ndarray = imagecodecs.jpeg8_decode(data).astype(np.uint16)
    except DECODING_ERRORS as error:
        raise NotTranscodable("The pixel data can't be decoded here.") from error
    if samples.shape != (form.rows, form.columns):
        raise NotTranscodable("The pixel data isn't what the data set says.")
    return samples


def native(samples: np.ndarray, form: PixelForm) -> bytes:
    """Give samples as little-endian bytes; those of one bit are packed (PS3.5 §8.1.1)."""
    if form.bits_allocated == 1:
        return np.packbits(samples.astype(np.uint8), axis=None, bitorder="little").tobytes()
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def _by_pydicom(syntax: str, samples: np.ndarray, form: PixelForm) -> bytes:
    return bytes(get_encoder(UID(syntax)).encode(samples, **form.options() | {"planar_configuration": 0}))


def _rle(samples: np.ndarray, form: PixelForm) -> bytes:
    return _by_pydicom(RLELossless, samples, form)


def _jpeg_ls(samples: np.ndarray, form: PixelForm) -> bytes:
    if _is_tiny(samples):
        # pyjpegls reserves too little room for these.
        return bytes(imagecodecs.jpegls_encode(samples.view(f"u{samples.dtype.itemsize}")))
    return _by_pydicom(JPEGLSLossless, samples, form)


def _jpeg_2000(samples: np.ndarray, form: PixelForm) -> bytes:
    if _is_tiny(samples):
        # pylibjpeg-openjpeg asks for more resolutions than these have.
        return bytes(
            imagecodecs.jpeg2k_encode(
                samples,
                codecformat="j2k",
                reversible=True,
                resolutions=1,
                mct=form.photometric_interpretation == "YBR_RCT",
                bitspersample=form.bits_stored,
            )
        )
    return _by_pydicom(JPEG2000Lossless, samples, form)


def _is_tiny(samples: np.ndarray) -> bool:
    return int(min(samples.shape[:2])) < TINY


def _jpeg_lossless(samples: np.ndarray, form: PixelForm) -> bytes:
    """Encode process 14, selection value 1, at the allocated precision: any bit pattern comes back.

    RGB is marked as such. What the data set says to be YCbCr has no marker: decoders believe Adobe's that it's RGB, and
    JFIF's that it's YCbCr still to be turned into RGB.
    """
    unsigned = samples.view(f"u{samples.dtype.itemsize}")
    colour = None if samples.ndim == 2 else "RGB" if form.photometric_interpretation == "RGB" else "UNKNOWN"
    return bytes(
        imagecodecs.jpeg8_encode(
            unsigned,
            colorspace=colour,
            outcolorspace=colour,
            lossless=True,
            predictor=1,
            bitspersample=samples.dtype.itemsize * 8,
        )
    )


def _htj2k(samples: np.ndarray, form: PixelForm) -> bytes:
    # OpenJPH's order of progression is RPCL unless told otherwise.
    return bytes(imagecodecs.htj2k_encode(samples, reversible=True, rgb=form.photometric_interpretation == "YBR_RCT"))


def _jpeg_baseline(samples: np.ndarray, form: PixelForm) -> bytes:
    output = BytesIO()
    Image.fromarray(samples).save(output, "JPEG", quality=LOSSY_QUALITY, subsampling=0)
    return output.getvalue()


ENCODERS: dict[str, Callable[[np.ndarray, PixelForm], bytes]] = {
    RLELossless: _rle,
    JPEGLossless: _jpeg_lossless,
    JPEGLosslessSV1: _jpeg_lossless,
    JPEGLSLossless: _jpeg_ls,
    # The syntaxes that allow loss hold a lossless stream as well.
    JPEGLSNearLossless: _jpeg_ls,
    JPEG2000Lossless: _jpeg_2000,
    JPEG2000: _jpeg_2000,
    HTJ2KLossless: _htj2k,
    HTJ2KLosslessRPCL: _htj2k,
    HTJ2K: _htj2k,
}
WITH_COLOUR_TRANSFORM = {JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K}
EXACT_RANGE = {JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000}


def encoded_form(form: PixelForm, syntax: str) -> PixelForm:
    """Give the form that the data set must declare once its frames are encoded. Raises NotTranscodable."""
    if form.bits_allocated not in {8, 16} or form.keyword != "PixelData":
        raise NotTranscodable(f"Pixels of {form.bits_allocated} bits aren't compressed.")
    if syntax in WITH_COLOUR_TRANSFORM and form.photometric_interpretation == "RGB":
        form = replace(form, photometric_interpretation="YBR_RCT")
    if syntax == JPEGBaseline8Bit:
        if form.bits_stored > 8 or form.pixel_representation or form.photometric_interpretation == "PALETTE COLOR":
            raise NotTranscodable("JPEG baseline holds 8-bit samples only.")
        if form.samples_per_pixel == 3:
            if form.photometric_interpretation != "RGB":
                raise NotTranscodable("Only RGB and grey samples are given as JPEG baseline.")
            form = replace(form, photometric_interpretation="YBR_FULL")
    return replace(form, planar_configuration=0, vr="OB")


def encode(samples: np.ndarray, form: PixelForm, syntax: str) -> bytes:
    """Encode one frame whose form is that of :func:`encoded_form`. Raises NotTranscodable."""
    encoder = _jpeg_baseline if syntax == JPEGBaseline8Bit else ENCODERS.get(syntax)
    if encoder is None:
        raise NotTranscodable(f"{UID(syntax).name} isn't encoded here.")
    samples = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("="))
    if syntax in EXACT_RANGE and not _fits(samples, form):
        raise NotTranscodable("Samples lie outside the stored bits.")
    try:
        return encoder(samples, form)
    except (*DECODING_ERRORS, imagecodecs.DelayedImportError) as error:
        raise NotTranscodable(f"The pixel data can't be encoded as {UID(syntax).name}.") from error


def _fits(samples: np.ndarray, form: PixelForm) -> bool:
    low, high = (
        (-(1 << form.bits_stored - 1), (1 << form.bits_stored - 1) - 1)
        if form.pixel_representation
        else (0, (1 << form.bits_stored) - 1)
    )
    return bool(low <= int(samples.min()) and int(samples.max()) <= high)
