"""Grayscale Softcopy Presentation States applied to pictures (PS3.3 A.33, C.11.1, C.10.5, C.7.6.11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    PseudoColorSoftcopyPresentationStateStorage,
)

from studies.archive.errors import NotRenderable
from studies.archive.lettering import lettered

PRESENTATION_STATES = {
    GrayscaleSoftcopyPresentationStateStorage,
    ColorSoftcopyPresentationStateStorage,
    PseudoColorSoftcopyPresentationStateStorage,
}
INK = (255, 221, 87)
LEAST_SIDE = 512
MOST_ROOM = 4096
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Reference:
    """The image that a presentation state is for."""

    series_instance_uid: str
    sop_instance_uid: str
    frame: int = 1


def references(state: Dataset) -> list[Reference]:
    """Give the images that the state is for, in its order."""
    found = []
    for series in state.get("ReferencedSeriesSequence") or []:
        for image in series.get("ReferencedImageSequence") or []:
            frames = image.get("ReferencedFrameNumber") or 1
            first = frames if isinstance(frames, int) else frames[0]
            found.append(Reference(str(series.SeriesInstanceUID), str(image.ReferencedSOPInstanceUID), int(first)))
    return found


class Presentation:
    """What a state says of one image. Raises NotRenderable when it says nothing of it."""

    def __init__(self, state: Dataset, sop_instance_uid: str) -> None:
        if all(r.sop_instance_uid != sop_instance_uid for r in references(state)):
            raise NotRenderable("The presentation state isn't for this image.")
        self.state, self.uid = state, sop_instance_uid

    def _applies(self, item: Dataset, frame: int | None = None) -> bool:
        images = item.get("ReferencedImageSequence")
        if not images:
            return True
        for image in images:
            if image.get("ReferencedSOPInstanceUID") != self.uid:
                continue
            frames = image.get("ReferencedFrameNumber")
            if frames is None or frame is None:
                return True
            return frame in ([frames] if isinstance(frames, int) else list(frames))
        return False

    @property
    def voi(self) -> Dataset | None:
        """The item of the Softcopy VOI LUT Sequence for the image."""
        return next((i for i in self.state.get("SoftcopyVOILUTSequence") or [] if self._applies(i)), None)

    @property
    def shape(self) -> str | None:
        """IDENTITY or INVERSE: a state decides, the image's own photometric interpretation doesn't."""
        value = self.state.get("PresentationLUTShape")
        return str(value) if value else None

    def modality_of(self, header: Dataset) -> Dataset:
        """Give what holds the modality LUT: the state, where it has one."""
        has_own = any(k in self.state for k in ("RescaleSlope", "ModalityLUTSequence"))
        return self.state if has_own else header

    def draw_on(self, image: Image.Image, frame: int) -> Image.Image:
        """Give the picture shuttered, drawn upon, cut to the displayed area, rotated and mirrored."""
        image = self._shuttered(image)
        area = next(
            (i for i in self.state.get("DisplayedAreaSelectionSequence") or [] if self._applies(i, frame)), None
        )
        box = _displayed_area(area, image)
        items = [i for i in self.state.get("GraphicAnnotationSequence") or [] if self._applies(i, frame)]
        image, scale = _room_for_lines(image) if items else (image, 1)
        for item in items:
            image = _annotated(image, item, scale, tuple(n * scale for n in box))
        if box != (0, 0, image.width // scale, image.height // scale):
            image = image.crop(tuple(n * scale for n in box))  # type: ignore[arg-type]
        if self.state.get("ImageHorizontalFlip") == "Y":
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # The standard turns clockwise, Pillow counter-clockwise.
        turned = int(self.state.get("ImageRotation") or 0) % 360
        turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
        return image.transpose(turns[turned]) if turned in turns else image

    def _shuttered(self, image: Image.Image) -> Image.Image:
        shapes = self.state.get("ShutterShape")
        if not shapes:
            return image
        mask = Image.new("L", image.size, 255)
        for shape in [shapes] if isinstance(shapes, str) else shapes:
            one = Image.new("L", image.size, 0)
            draw = ImageDraw.Draw(one)
            s = self.state
            if shape == "RECTANGULAR":
                left, right = int(s.ShutterLeftVerticalEdge), int(s.ShutterRightVerticalEdge)
                upper, lower = int(s.ShutterUpperHorizontalEdge), int(s.ShutterLowerHorizontalEdge)
                draw.rectangle((left - 1, upper - 1, right - 1, lower - 1), fill=255)
            elif shape == "CIRCULAR":
                row, column = (int(v) - 1 for v in s.CenterOfCircularShutter)
                radius = int(s.RadiusOfCircularShutter)
                draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=255)
            elif shape == "POLYGONAL":
                flat = [int(v) - 1 for v in s.VerticesOfThePolygonalShutter]
                draw.polygon([(flat[i + 1], flat[i]) for i in range(0, len(flat) - 1, 2)], fill=255)
            else:
                continue
            mask = Image.fromarray(np.minimum(np.asarray(mask), np.asarray(one)))
        grey = int(self.state.get("ShutterPresentationValue") or 0) >> 8
        background = Image.new(image.mode, image.size, grey if image.mode == "L" else (grey, grey, grey))
        return Image.composite(image, background, mask)


def _displayed_area(area: Dataset | None, image: Image.Image) -> tuple[int, int, int, int]:
    """Give (left, upper, right, lower) in pixels; the standard counts from 1, column first, and includes the last."""
    whole = (0, 0, image.width, image.height)
    if area is None:
        return whole
    try:
        left, upper = (int(v) - 1 for v in area.DisplayedAreaTopLeftHandCorner)
        right, lower = (int(v) for v in area.DisplayedAreaBottomRightHandCorner)
    except (AttributeError, TypeError, ValueError):
        return whole
    if not (left < right and upper < lower) or right - left > 4 * image.width or lower - upper > 4 * image.height:
        return whole
    return left, upper, right, lower


def _room_for_lines(image: Image.Image) -> tuple[Image.Image, int]:
    """Enlarge a small picture by a whole number, so that lines and letters on it can be read."""
    scale = max(min(-(-LEAST_SIDE // min(image.size)), MOST_ROOM // max(image.size)), 1)
    image = image.convert("RGB")
    return (image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC), scale)


def _annotated(image: Image.Image, item: Dataset, scale: int, box: tuple[int, ...]) -> Image.Image:
    draw = ImageDraw.Draw(image)
    width = max(min(image.size) // 350, 1)
    size = max(min(image.size) // 40, 10)

    def places(values: Any, units: Any) -> Points:
        flat = [float(v) for v in values or []]
        pairs = list(zip(flat[::2], flat[1::2], strict=False))
        if units == "DISPLAY":
            return [(box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1])) for x, y in pairs]
        # Pixel coordinates name the upper left pixel's centre 1,1 (PS3.3 C.10.5.1.2).
        return [((x - 0.5) * scale, (y - 0.5) * scale) for x, y in pairs]

    for graphic in item.get("GraphicObjectSequence") or []:
        points = places(graphic.get("GraphicData"), graphic.get("GraphicAnnotationUnits"))
        _draw_graphic(draw, str(graphic.get("GraphicType")), points, graphic.get("GraphicFilled") == "Y", width)
    for text in item.get("TextObjectSequence") or []:
        words, font = lettered(str(text.get("UnformattedTextValue") or "").replace("\r\n", "\n"), size)
        if text.get("BoundingBoxTopLeftHandCorner"):
            at = places(text.BoundingBoxTopLeftHandCorner, text.get("BoundingBoxAnnotationUnits"))
        else:
            at = places(text.get("AnchorPoint"), text.get("AnchorPointAnnotationUnits"))
        if at:
            draw.multiline_text(at[0], words, fill=INK, font=font, stroke_width=1, stroke_fill="black")
    return image


def _draw_graphic(draw: ImageDraw.ImageDraw, kind: str, points: Points, is_filled: bool, width: int) -> None:
    if not points:
        return
    if kind == "POINT":
        (x, y), arm = points[0], width * 4
        draw.line((x - arm, y, x + arm, y), INK, width)
        draw.line((x, y - arm, x, y + arm), INK, width)
    elif kind == "CIRCLE" and len(points) > 1:
        (x, y), (px, py) = points[:2]
        radius = ((x - px) ** 2 + (y - py) ** 2) ** 0.5
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), INK if is_filled else None, INK, width)
    elif kind == "ELLIPSE" and len(points) > 3:
        outline = _ellipse(points)
        if is_filled:
            draw.polygon(outline, INK)
        draw.line([*outline, outline[0]], INK, width, joint="curve")
    elif len(points) > 1:
        if is_filled and points[0] == points[-1]:
            draw.polygon(points, INK)
        draw.line(_smooth(points) if kind == "INTERPOLATED" else points, INK, width, joint="curve")


def _ellipse(points: Points) -> Points:
    """Give an ellipse's outline from the ends of its major, then minor axis."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = points[:4]
    x, y = (ax + bx) / 2, (ay + by) / 2
    ux, uy, vx, vy = (bx - ax) / 2, (by - ay) / 2, (dx - cx) / 2, (dy - cy) / 2
    turns = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return [(x + ux * np.cos(t) + vx * np.sin(t), y + uy * np.cos(t) + vy * np.sin(t)) for t in turns]


def _smooth(points: Points) -> Points:
    """Give a Catmull-Rom curve through the points."""
    array = np.array([points[0], *points, points[-1]])
    curve: Points = []
    for p0, p1, p2, p3 in zip(array, array[1:], array[2:], array[3:], strict=False):
        for t in np.linspace(0, 1, 12, endpoint=False):
            a, b = 2 * p1, (p2 - p0) * t
            c, d = (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2, (3 * p1 - p0 - 3 * p2 + p3) * t**3
            curve.append(tuple((a + b + c + d) / 2))
    return [*curve, points[-1]]
