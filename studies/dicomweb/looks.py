"""The query parameters of rendered resources (PS3.18 §8.3.5) and of WADO-URI (§9.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import wraps
from typing import Any, get_args

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from studies.archive.native_model import DECIMAL
from studies.archive.rendering import LARGEST_SIDE, Function, Look, Region, Window
from studies.dicomweb.errors import DicomWebError, View, warn

ANNOTATIONS = {"patient", "technique"}
LONGEST_ANNOTATION = 300
ICC_PROFILES = {"no", "yes", "srgb"}
LARGEST_NUMBER = 999_999_999
KNOWN_PROFILES = {*ICC_PROFILES, "adobergb", "rommrgb", "displayp3"}


def look_of(parameters: Mapping[str, str]) -> Look:
    """Read window, quality, viewport, annotation and iccprofile. Raises DicomWebError 400, 406."""
    size, region = _viewport(parameters.get("viewport", ""))
    return Look(
        window=_window(parameters.get("window", "")),
        size=size,
        region=region,
        quality=_quality(parameters.get("quality", "")),
        annotations=_annotations(parameters.get("annotation", "")),
        with_icc_profile=_profile(parameters.get("iccprofile", "")),
    )


def look_of_uri(parameters: Mapping[str, str]) -> Look:
    """Read WADO-URI's rows, columns, region, windowCenter, windowWidth, imageQuality and annotation."""
    rows, columns = (_side(parameters.get(name, ""), name) for name in ("rows", "columns"))
    size = (columns or LARGEST_SIDE, rows or LARGEST_SIDE) if rows or columns else None
    center, width = parameters.get("windowCenter", ""), parameters.get("windowWidth", "")
    if bool(center) != bool(width):
        raise DicomWebError(400, "windowCenter and windowWidth belong together.")
    return Look(
        window=_window(f"{center},{width}" if center else ""),
        size=size,
        quality=_quality(parameters.get("imageQuality", "")),
        annotations=_annotations(parameters.get("annotation", "")),
    )


def relative_region(text: str, width: int, height: int) -> Region | None:
    """Read WADO-URI's ``region=xmin,ymin,xmax,ymax``, each from 0 to 1 of the picture."""
    if not text:
        return None
    left, upper, right, lower = _numbers(text, 4, "region")
    if not (0 <= left < right <= 1 and 0 <= upper < lower <= 1):
        raise DicomWebError(400, "region is xmin,ymin,xmax,ymax, each from 0 to 1.")
    return Region(left * width, upper * height, (right - left) * width, (lower - upper) * height)


def _numbers(text: str, count: int, name: str) -> list[float]:
    values = [value.strip() for value in text.split(",")]
    if len(values) != count or not all(map(DECIMAL.fullmatch, values)):
        raise DicomWebError(400, f"{name} takes numbers, {count} here.")
    numbers = [float(value) for value in values]
    if not all(abs(number) <= LARGEST_NUMBER for number in numbers):
        raise DicomWebError(400, f"{name}: a number is at most {LARGEST_NUMBER}.")
    return numbers


def _window(text: str) -> Window | None:
    """Read ``window=center,width,function`` (PS3.18 §8.3.5.1.4)."""
    if not text:
        return None
    parts = text.split(",")
    if len(parts) not in {2, 3}:
        raise DicomWebError(400, "window is center,width,function.")
    center, width = _numbers(",".join(parts[:2]), 2, "window")
    name = (parts[2] if len(parts) == 3 else "linear").upper().replace("-", "_")
    function = next((known for known in get_args(Function) if known == name), None)
    if function is None:
        raise DicomWebError(400, "A window's function is linear, linear-exact or sigmoid.")
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise DicomWebError(400, "A window's width is at least 1.")
    return Window(center, width, function)


def _quality(text: str) -> int:
    if not text:
        return 90
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
        raise DicomWebError(400, "quality is a number from 1 to 100.")
    return int(text)


def _viewport(text: str) -> tuple[tuple[int, int] | None, Region | None]:
    """Read ``viewport=vw,vh`` or ``vw,vh,sx,sy,sw,sh``; a negative source width or height turns it (§8.3.5.1.3)."""
    if not text:
        return None, None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in {2, 6}:
        raise DicomWebError(400, "viewport is width,height or width,height,x,y,width,height.")
    width, height = (_side(part, "viewport") for part in parts[:2])
    if not width or not height:
        raise DicomWebError(400, f"A viewport's sides are from 1 to {LARGEST_SIDE}.")
    if len(parts) == 2:
        return (width, height), None
    left, top = (_numbers(part or "0", 1, "viewport")[0] for part in parts[2:4])
    wide, high = (_numbers(part, 1, "viewport")[0] if part else None for part in parts[4:])
    if left < 0 or top < 0 or wide == 0 or high == 0:
        raise DicomWebError(400, "A viewport's source region must lie inside the picture.")
    return (width, height), Region(
        left,
        top,
        None if wide is None else abs(wide),
        None if high is None else abs(high),
        is_mirrored=wide is not None and wide < 0,
        is_flipped=high is not None and high < 0,
    )


def _side(text: str, name: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= LARGEST_SIDE:
        raise DicomWebError(400, f"{name}: a side is from 1 to {LARGEST_SIDE} pixels.")
    return int(text)


def _annotations(text: str) -> frozenset[str]:
    """Read ``annotation=patient,technique``; other words are ignored, with a Warning (§8.3.5.1.1)."""
    return frozenset(word.strip().lower() for word in text.split(",")) & ANNOTATIONS


def warns_of_annotations(view: View) -> View:
    """Let a view of pictures name the annotations that it ignored in a Warning (PS3.18 §8.3.5.1.1)."""

    @wraps(view)
    def warned(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        ignored = _unknown_annotations(request.GET.get("annotation", ""))
        if ignored:
            said = response.get("Warning")
            warn(request, response, f"The following annotation values are not supported: {', '.join(ignored)}.")
            response["Warning"] = ", ".join(filter(None, (said, response["Warning"])))
        return response

    return warned


def _unknown_annotations(text: str) -> list[str]:
    """Give the words that are ignored, as a header can name them."""
    words = (word.strip() for word in text[:LONGEST_ANNOTATION].split(","))
    return [re.sub(r"[^ -~]|[\"\\\\]", "?", word) for word in words if word and word.lower() not in ANNOTATIONS]


def _profile(text: str) -> bool:
    name = text.lower()
    if name and name not in KNOWN_PROFILES:
        raise DicomWebError(400, "iccprofile is no, yes or srgb.")
    if name and name not in ICC_PROFILES:
        raise DicomWebError(406, "Pictures are given in sRGB.", available=sorted(ICC_PROFILES))
    return name in {"yes", "srgb"}
