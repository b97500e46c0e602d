"""Pictures of instances: windowed, scaled, as JPEG or PNG (PS3.18 §8.3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi_lut, convert_color_space, pixel_array

from studies.archive.errors import NotRenderable
from studies.archive.objects import read_dataset, read_instance
from studies.models import Instance

LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Window:
    """A VOI window in the units of the modality LUT's output (PS3.3 C.11.2)."""

    center: float
    width: float


def render(
    instance: Instance,
    *,
    frame: int = 1,
    media_type: str = "image/jpeg",
    quality: int = 90,
    window: Window | None = None,
    size: tuple[int, int] | None = None,
) -> bytes:
    """Give a picture of a frame (counted from 1) as ``image/jpeg`` or ``image/png``.

    ``size`` is (width, height) in pixels within which the picture must fit, its proportions kept.
    Raises NotRenderable, IndexError where there's no such frame, ObjectMissing.
    """
    if not instance.number_of_frames:
        raise NotRenderable("The instance has no pixel data.")
    if not 1 <= frame <= instance.number_of_frames:
        raise IndexError(frame)
    header = read_dataset(instance)
    try:
        # By path or buffer, only the wanted frame is decoded.
        samples = pixel_array(BytesIO(read_instance(instance)), index=frame - 1)
        picture = _picture(samples, header, window)
    except (ValueError, RuntimeError, AttributeError, TypeError, KeyError, NotImplementedError, OverflowError) as error:
        raise NotRenderable("The pixel data can't be decoded here.") from error
    if size is not None:
        picture.thumbnail(size, Image.Resampling.BILINEAR)
    output = BytesIO()
    try:
        if media_type == "image/png":
            picture.save(output, "PNG")
        else:
            picture.save(output, "JPEG", quality=quality)
    except (OSError, UnidentifiedImageError) as error:
        raise NotRenderable("The picture can't be encoded.") from error
    return output.getvalue()


def _picture(samples: np.ndarray, header: Dataset, window: Window | None) -> Image.Image:
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if samples.ndim == 3:
        if photometric.startswith("YBR_FULL") and samples.shape[-1] == 3 and not _was_converted(header):
            samples = convert_color_space(samples, photometric, "RGB")
        return Image.fromarray(_to_bytes(samples) if samples.dtype != np.uint8 else samples, "RGB")
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        return Image.fromarray(_to_bytes(apply_color_lut(samples, header)), "RGB")
    values = apply_modality_lut(samples, header).astype(np.float64)
    if window is None and ("WindowCenter" in header or "VOILUTSequence" in header) and header.get("WindowWidth") != 0:
        if "VOILUTSequence" in header and "WindowCenter" not in header:
            values = apply_voi_lut(apply_modality_lut(samples, header), header).astype(np.float64)
        else:
            window = Window(_first(header.WindowCenter), max(_first(header.WindowWidth), 1.0))
    grey = _windowed(values, window)
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    return Image.fromarray(grey, "L")


def _was_converted(header: Dataset) -> bool:
    """Pydicom's decoders already give RGB for JPEG and JPEG 2000; native and RLE data keep YBR."""
    return bool(header.file_meta.TransferSyntaxUID.is_compressed) and not header.file_meta.TransferSyntaxUID.endswith(
        "1.2.5"
    )


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)  # type: ignore[arg-type]


def _windowed(values: np.ndarray, window: Window | None) -> np.ndarray:
    if window is None:
        low, high = float(values.min()), float(values.max())
    else:
        low, high = window.center - window.width / 2, window.center + window.width / 2
    scaled = (values - low) * (255.0 / max(high - low, 1e-6))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _to_bytes(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        return samples
    return (samples.astype(np.float64) * (255.0 / max(float(samples.max()), 1.0))).astype(np.uint8)
