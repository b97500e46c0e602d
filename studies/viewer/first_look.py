"""The first look: the server's picture of what OHIF will show first, in its place until OHIF has drawn it itself.

Which images these are follows the rules of OHIF's hanging protocols and sorting, as far as they leave no doubt. Where
they do, or where OHIF and the server might draw differently, there is no first look.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from django.db.models import Count, F
from django.urls import reverse
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    MPEGTransferSyntaxes,
    MRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from accounts.principals import Principal
from studies.archive.models import SeriesMetadata
from studies.models import Instance, Series, Study
from studies.viewer.hanging import COMPARE, FOUR_UP, SINGLE, Hanging, hanging_of

# OHIF shows each image of these by itself; of others it makes a stack.
_EACH = {ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation}
_STACKS = {CTImageStorage, MRImageStorage, UltrasoundImageStorage}
_FILMS = {UltrasoundMultiFrameImageStorage}
# In our protocols a series of more frames than these comes first (bridge.js).
_MANY = 10
_GRIDS = {1: (1, 1), 2: (1, 2), 3: (2, 2), 4: (2, 2)}
# A picture needn't have more pixels than a screen.
LARGEST_SIDE = 2048
# What is read at once of a series, compressed: 10,000 slices of a CT take less.
LARGEST_METADATA = 1 << 20
_ORIENTATION_TOLERANCE, _SPACING_TOLERANCE = 0.01, 0.2
_GREY = {"MONOCHROME1", "MONOCHROME2"}
_COLOURED = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}

Attributes = dict[str, Any]


class _Doubt(Exception):
    """Which image OHIF shows first isn't certain."""


@dataclass(frozen=True)
class FirstLook:
    """The grid of viewports, and for each the address of its picture; None where it stays empty.

    Of three the first has the height of the two beside it.
    """

    rows: int
    columns: int
    pictures: list[str | None]


@dataclass(frozen=True)
class _DisplaySet:
    """What OHIF shows in a viewport: ``place`` counts those of its series."""

    study: Study
    series: Series
    frames: int
    place: int


def first_look_of(principal: Principal, study: Study, *, hanging: Hanging | None = None) -> FirstLook | None:
    """Give what is seen at first of a study that passed the gate, or None where that isn't certain."""
    hanging = hanging or hanging_of(principal, study)
    try:
        sets = _display_sets(study)
        if hanging.protocol == COMPARE:
            beside = _in_order(_display_sets(hanging.priors[0]), by_size=True)[:1]
            shown = [*_in_order(sets, by_size=True)[:1], *beside] if sets else []
        elif hanging.protocol in {SINGLE, FOUR_UP}:
            most = 4 if hanging.protocol == FOUR_UP else 1
            shown = _in_order(sets, by_size=hanging.protocol == FOUR_UP)[:most]
        else:
            return None
    except _Doubt:
        return None
    if not shown:
        return None
    rows, columns = _GRIDS[len(shown)]
    pictures = [_address(one) for one in shown]
    return FirstLook(rows, columns, pictures) if any(pictures) else None


def _display_sets(study: Study) -> list[_DisplaySet]:
    """Give what OHIF makes of a study's images. Raises _Doubt for what isn't known well enough."""
    images = Instance.objects.filter(series__study=study, is_current=True, number_of_frames__gt=0)
    kinds = images.values("series_id", "sop_class_uid", "number_of_frames", film=F("transfer_syntax_uid"))
    kinds = kinds.annotate(count=Count("pk")).order_by("series_id")
    # After their kinds: a study is opened while its series arrive, and one that came in between has no kind yet.
    counted = list(kinds)
    series = {one.pk: one for one in study.series.all()}
    found: list[_DisplaySet] = []
    seen: set[int] = set()
    for kind in counted:
        one, frames, count = series.get(kind["series_id"]), kind["number_of_frames"], kind["count"]
        if one is None:
            raise _Doubt
        if kind["film"] in MPEGTransferSyntaxes or one.pk in seen:
            raise _Doubt
        seen.add(one.pk)
        if kind["sop_class_uid"] in _EACH and frames == 1:
            found += [_DisplaySet(study, one, 1, place) for place in range(count)]
        elif kind["sop_class_uid"] in _STACKS and frames == 1:
            found.append(_DisplaySet(study, one, count, 0))
        elif kind["sop_class_uid"] in _FILMS and count == 1:
            found.append(_DisplaySet(study, one, frames, 0))
        else:
            raise _Doubt
    return found


def _in_order(sets: list[_DisplaySet], *, by_size: bool) -> list[_DisplaySet]:
    """Sort as OHIF's hanging protocols do. Raises _Doubt where two series have the same number."""

    def rank(one: _DisplaySet) -> tuple[bool, int]:
        return (by_size and one.frames <= _MANY, one.series.series_number or 0)

    ranks = {one.series.pk: rank(one) for one in sets}
    if len(set(ranks.values())) < len(ranks):
        raise _Doubt
    return sorted(sets, key=lambda one: (*rank(one), one.place))


def _address(shown: _DisplaySet) -> str | None:
    kept = SeriesMetadata.objects.filter(series=shown.series, revision=shown.series.revision)
    etag = kept.values_list("etag", flat=True).first()
    # What has just come has no metadata until the worker has built them.
    found = _first_image(shown.series.pk, etag, shown.place) if etag else None
    if found is None:
        return None
    uid, is_large = found
    address = reverse(
        "dicomweb_frame_rendered",
        args=[shown.study.study_instance_uid, shown.series.series_instance_uid, uid, "1"],
    )
    size = f"&viewport={LARGEST_SIDE},{LARGEST_SIDE}" if is_large else ""
    return f"{address}?accept=image/png{size}"


@lru_cache(maxsize=1024)
def _first_image(series: int, etag: str, place: int) -> tuple[str, bool] | None:
    """Give the SOP Instance UID of the first image and whether it is larger than a screen, from the kept metadata."""
    metadata = SeriesMetadata.objects.filter(series=series, etag=etag).first()
    if metadata is None or len(metadata.content) > LARGEST_METADATA:
        return None
    images = [one for one in json.loads(gzip.decompress(metadata.content)) if "7FE00010" in one]
    try:
        chosen = _first_of(images) if place == 0 and images[0]["00080016"]["Value"][0] not in _EACH else None
        chosen = chosen or sorted(images, key=_by_number)[place]
        if not _is_drawn_alike(chosen):
            return None
        return _text(chosen, "00080018"), max(_number(chosen, "00280010"), _number(chosen, "00280011")) > LARGEST_SIDE
    except (_Doubt, KeyError, IndexError, TypeError, ValueError):
        return None


def _values(image: Attributes, tag: str) -> list[Any]:
    return image.get(tag, {}).get("Value") or []


def _text(image: Attributes, tag: str) -> str:
    return str((_values(image, tag) or [""])[0] or "")


def _number(image: Attributes, tag: str) -> int:
    return int(_text(image, tag) or 0)


def _by_number(image: Attributes) -> tuple[int, str]:
    return _number(image, "00200013"), _text(image, "00080018")


def _first_of(images: list[Attributes]) -> Attributes:
    """Give a stack's first image: the outermost along the normal where OHIF can make a volume, else the lowest number.

    Raises _Doubt.
    """
    numbered = sorted(images, key=_by_number)
    if not all(_values(one, "00200032") for one in numbered) or len(numbered) == 1:
        return numbered[0]
    orientations = [[float(v) for v in _values(one, "00200037")] for one in numbered]
    if not all(len(one) == 6 for one in orientations):
        if any(orientations):
            raise _Doubt
        return numbered[0]
    first = orientations[0]
    apart = max(abs(a - b) for one in orientations for a, b in zip(one, first, strict=True))
    if apart >= _ORIENTATION_TOLERANCE:
        return numbered[0]
    along = _along(first)
    placed = sorted(numbered, key=lambda one: -along(_position(one)))
    if placed[0] is numbered[0]:
        return numbered[0]
    if apart or not _is_volume(placed):
        raise _Doubt
    return placed[0]


def _position(image: Attributes) -> list[float]:
    return [float(v) for v in _values(image, "00200032")]


def _along(orientation: list[float]) -> Callable[[list[float]], float]:
    a, b, c, d, e, f = orientation
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    return lambda position: sum(n * p for n, p in zip(normal, position, strict=True))


def _is_volume(placed: list[Attributes]) -> bool:
    """Say whether it's certainly a volume to OHIF: images of one form, evenly spaced well within its tolerance."""
    forms = {tuple(_number(one, tag) for tag in ("00280010", "00280011", "00280002")) for one in placed}
    positions = [_position(one) for one in placed]
    steps = [_distance(a, b) for a, b in pairwise(positions)]
    mean = _distance(positions[0], positions[-1]) / len(steps)
    return len(forms) == 1 and all(abs(step - mean) < mean * _SPACING_TOLERANCE / 2 for step in steps)


def _distance(a: list[float], b: list[float]) -> float:
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5)


def _is_drawn_alike(image: Attributes) -> bool:
    """Say whether OHIF and the server draw an image with the same greys or colours, in the same proportions."""
    kind = _text(image, "00280004")
    if any(tag.startswith("60") for tag in image) or _values(image, "00280034") or not _are_sides_sound(image):
        return False
    if kind in _COLOURED:
        return _number(image, "00280100") == 8
    is_inverse = _text(image, "20500020") == "INVERSE"
    function = _text(image, "00281056")
    return (
        kind in _GREY
        and is_inverse == (is_inverse and kind == "MONOCHROME1")
        and bool(_values(image, "00281050") and float(_text(image, "00281051") or 0) > 1)
        and function in {"", "LINEAR"}
        and "00283000" not in image
        and _number(image, "00280100") in {8, 16}
    )


def _are_sides_sound(image: Attributes) -> bool:
    spacings = [_values(image, tag) for tag in ("00280030", "00181164")]
    return all(not one or (len(one) == 2 and all(float(side) > 0 for side in one)) for one in spacings)
