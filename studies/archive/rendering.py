"""Pictures of frames: windowed, cut, scaled, annotated (PS3.18 §8.3.5, PS3.3 C.11)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms, ImageDraw
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space

from studies.archive.codecs import DECODING_ERRORS, PixelForm
from studies.archive.errors import NotRenderable, NotTranscodable, OutsidePicture
from studies.archive.frames import Frames
from studies.archive.lettering import lettered
from studies.archive.presentation_states import Presentation
from studies.models import Instance
from studies.person_names import displayed

LARGEST_SIDE = 4096
LARGEST_PICTURE = 200_000_000
SQUARE = 0.01
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF", "image/webp": "WEBP"}
Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_VALUE_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


@dataclass(frozen=True)
class Window:
    """A VOI window in the units of the modality LUT's output (PS3.3 C.11.2)."""

    center: float
    width: float
    function: Function = "LINEAR"


@dataclass(frozen=True)
class Region:
    """A part of the picture in its own pixels; ``is_mirrored`` and ``is_flipped`` turn it left-right, upside down."""

    left: float = 0
    top: float = 0
    width: float | None = None
    height: float | None = None
    is_mirrored: bool = False
    is_flipped: bool = False


@dataclass(frozen=True)
class Look:
    """How a picture is wanted. ``size`` is (width, height) within which it must fit, its proportions kept."""

    window: Window | None = None
    size: tuple[int, int] | None = None
    region: Region | None = None
    quality: int = 90
    annotations: frozenset[str] = frozenset()
    with_icc_profile: bool = False
    presentation: Presentation | None = None


def render(instance: Instance, *, frame: int = 1, media_type: str = "image/jpeg", look: Look | None = None) -> bytes:
    """Give a picture of a frame (counted from 1) as JPEG, PNG, GIF or WebP.

    Raises NotRenderable, IndexError where there's no such frame, ObjectMissing.
    """
    look = look or Look()
    return encoded(picture(Frames(instance), frame, look), media_type, look)


def encoded(image: Image.Image, media_type: str, look: Look) -> bytes:
    """Write a picture in a media type."""
    options: dict[str, Any] = {"quality": look.quality} if media_type in {"image/jpeg", "image/webp"} else {}
    if look.with_icc_profile:
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    output = BytesIO()
    image.save(output, FORMATS[media_type], **options)
    return output.getvalue()


def picture(frames: Frames, frame: int, look: Look) -> Image.Image:
    """Give a frame's picture, of mode L or RGB. Raises NotRenderable, IndexError, ObjectMissing."""
    if not len(frames):
        raise NotRenderable("The instance has no pixel data.")
    try:
        if frames.form.rows * frames.form.columns > LARGEST_PICTURE:
            raise NotRenderable("The frame is too large for a picture.")
        samples, form = frames.samples(frame)
        header = values_of_frame(frames.header, frame)
        image = _image(samples, form, header, look)
    except NotTranscodable as error:
        raise NotRenderable("The pixel data can't be decoded here.") from error
    except IndexError:
        raise
    except DECODING_ERRORS as error:
        raise NotRenderable("The pixel data can't be shown.") from error
    if look.presentation is not None:
        image = look.presentation.draw_on(image, frame)
    image = _squared(image, frames.header)
    image = placed(image, look)
    return annotated(image, frames.header, look.annotations)


def values_of_frame(header: Dataset, frame: int) -> Dataset:
    """Give the header with the frame's own rescale and window, if it has functional groups (PS3.3 C.7.6.16)."""
    groups: list[Dataset] = []
    for sequence, number in ((_SHARED, 0), (_PER_FRAME, frame - 1)):
        items = header.get(sequence) or []
        if number < len(items):
            groups += [items[number][group][0] for group in _VALUE_GROUPS if items[number].get(group)]
    if not groups:
        return header
    values = Dataset()
    for part in (header, *groups):
        for element in part:
            if element.VR != "SQ" or element.keyword in {"ModalityLUTSequence", "VOILUTSequence"}:
                values.add(element)
    return values


def _image(samples: np.ndarray, form: PixelForm, header: Dataset, look: Look) -> Image.Image:
    photometric = form.photometric_interpretation
    if photometric == "PALETTE COLOR":
        coloured = apply_color_lut(samples, header)
        # Entries of 16 bits, unless they only use the lower half.
        bits = 16 if coloured.dtype.itemsize > 1 and int(coloured.max()) > 255 else 8
        return Image.fromarray(_to_bytes(coloured, bits), "RGB")
    if samples.ndim == 3:
        coloured = _to_bytes(samples, form.bits_stored)
        if photometric.startswith("YBR_FULL"):
            coloured = convert_color_space(coloured, "YBR_FULL", "RGB")
        return Image.fromarray(np.ascontiguousarray(coloured[..., :3]), "RGB")
    shown = look.presentation
    values = apply_modality_lut(samples, shown.modality_of(header) if shown else header)
    voi = shown.voi if shown is not None else None
    if look.window is not None:
        grey = windowed(values, look.window)
    else:
        grey = _by_header(values, samples, form, voi if voi is not None else header)
    inverted = photometric == "MONOCHROME1"
    if shown is not None and shown.shape is not None:
        inverted = shown.shape == "INVERSE"
    elif str(header.get("PresentationLUTShape", "")) == "INVERSE":
        inverted = True
    return Image.fromarray(255 - grey if inverted else grey, "L")


def _by_header(values: np.ndarray, samples: np.ndarray, form: PixelForm, header: Dataset) -> np.ndarray:
    width = _first(header.get("WindowWidth"))
    center = _first(header.get("WindowCenter"))
    if center is not None and width:
        function = str(header.get("VOILUTFunction") or "LINEAR")
        known: Function = function if function in {"LINEAR", "LINEAR_EXACT", "SIGMOID"} else "LINEAR"  # type: ignore[assignment]
        return windowed(values, Window(center, max(width, 1.0) if known == "LINEAR" else width, known))
    if header.get("VOILUTSequence"):
        looked_up: np.ndarray = apply_voi_lut(values, header)
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return _to_bytes(looked_up, bits)
    if form.bits_allocated == 1:
        return (samples * 255).astype(np.uint8)
    if form.bits_stored == 8 and not form.pixel_representation and values.dtype == samples.dtype:
        return _to_bytes(samples, 8)
    return stretched(values, samples, header)


def stretched(values: np.ndarray, samples: np.ndarray, header: Dataset) -> np.ndarray:
    """Spread what the values are mostly, the padding left out, over all greys."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    padding = header.get("PixelPaddingValue")
    if padding is not None and samples.shape == values.shape and finite.shape == values.shape:
        kept = values[samples != padding]
        finite = kept if kept.size else finite
    if not finite.size:
        return np.zeros(values.shape, np.uint8)
    low, high = (float(v) for v in np.percentile(finite, (0.1, 99.9)))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    return _greys((np.nan_to_num(values.astype(np.float64)) - low) / max(high - low, 1e-9))


def windowed(values: np.ndarray, window: Window) -> np.ndarray:
    """Apply a window by its function (PS3.3 C.11.2.1.2, C.11.2.1.3): greys of 8 bits."""
    x = np.nan_to_num(values.astype(np.float64))
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        return _greys(1 / (1 + np.exp(np.clip(-4 * (x - center) / width, -500, 500))))
    if window.function == "LINEAR_EXACT":
        return _greys((x - center) / width + 0.5)
    if width <= 1:
        return np.where(x > center - 0.5, 255, 0).astype(np.uint8)
    return _greys((x - (center - 0.5)) / (width - 1) + 0.5)


def _greys(fractions: np.ndarray) -> np.ndarray:
    greys: np.ndarray = np.clip(np.rint(fractions * 255), 0, 255).astype(np.uint8)
    return greys


def _to_bytes(samples: np.ndarray, bits: int) -> np.ndarray:
    if bits > 8:
        return (samples.astype(np.uint32) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if bits < 8:
        return (samples.astype(np.uint32) * 255 // ((1 << bits) - 1)).clip(0, 255).astype(np.uint8)
    return samples.astype(np.uint8)


def _first(value: object) -> float | None:
    if isinstance(value, MultiValue):
        value = value[0] if len(value) else None
    try:
        return None if value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _squared(image: Image.Image, header: Dataset) -> Image.Image:
    """Stretch a picture whose pixels aren't square (PS3.3 C.7.6.3.1.7)."""
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
        value = header.get(keyword)
        try:
            vertical, horizontal = (float(v) for v in value) if value else (1.0, 1.0)
        except (TypeError, ValueError):
            continue
        if not (vertical > 0 and horizontal > 0) or abs(vertical / horizontal - 1) < SQUARE:
            continue
        ratio = vertical / horizontal
        if not 0.05 < ratio < 20:
            continue
        width, height = image.size
        size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
        return image.resize(size, Image.Resampling.BILINEAR)
    return image


def placed(image: Image.Image, look: Look) -> Image.Image:
    """Cut the region out and scale it so that it fits the size. Raises OutsidePicture."""
    region = look.region
    if region is not None:
        width = region.width if region.width is not None else image.width - region.left
        height = region.height if region.height is not None else image.height - region.top
        # What lies beyond the picture would be black, and cost memory without bound.
        right, lower = min(region.left + width, image.width), min(region.top + height, image.height)
        box = (region.left, region.top, right, lower)
        if width <= 0 or height <= 0 or box[0] >= image.width or box[1] >= image.height:
            raise OutsidePicture("The region lies outside the picture.")
        image = image.crop(tuple(round(n) for n in box))  # type: ignore[arg-type]
        if not image.width or not image.height:
            raise OutsidePicture("The region lies outside the picture.")
        if region.is_mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if region.is_flipped:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if look.size is None:
        return image
    scale = min(look.size[0] / image.width, look.size[1] / image.height)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def annotated(image: Image.Image, header: Dataset, kinds: frozenset[str]) -> Image.Image:
    """Write who and what is shown into the upper corners (PS3.18 §8.3.5.1.1)."""
    columns = []
    if "patient" in kinds:
        columns.append(
            [
                displayed(str(header.get("PatientName", ""))),
                str(header.get("PatientID", "")),
                " ".join(str(header.get(k, "")) for k in ("PatientBirthDate", "PatientSex")).strip(),
            ]
        )
    if "technique" in kinds:
        columns.append(
            [
                " ".join(str(header.get(k, "")) for k in ("Modality", "SeriesDescription")).strip(),
                " ".join(str(header.get(k, "")) for k in ("StudyDate", "StudyDescription")).strip(),
                _technique(header),
            ]
        )
    if not columns:
        return image
    size = max(min(image.width, image.height) // 32, 9)
    draw = ImageDraw.Draw(image)
    for place, lines in enumerate(columns):
        is_right = place == 1 or (len(columns) == 1 and "technique" in kinds)
        text, font = lettered("\n".join(line for line in lines if line), size)
        at = (image.width - size // 2, size // 2) if is_right else (size // 2, size // 2)
        draw.multiline_text(
            at,
            text,
            fill="white",
            font=font,
            stroke_width=max(size // 12, 1),
            stroke_fill="black",
            anchor="ra" if is_right else "la",
            align="right" if is_right else "left",
        )
    return image


def _technique(header: Dataset) -> str:
    parts = (
        ("KVP", "kV"),
        ("ExposureTime", "ms"),
        ("XRayTubeCurrent", "mA"),
        ("SliceThickness", "mm"),
        ("RepetitionTime", "ms TR"),
        ("EchoTime", "ms TE"),
    )
    shown = [f"{value:g} {unit}" for keyword, unit in parts if (value := _first(header.get(keyword))) is not None]
    return ", ".join(shown)


def scaled_for(look: Look, side: int) -> Look:
    """Give the look of a thumbnail within a square."""
    return replace(look, size=look.size or (side, side))
