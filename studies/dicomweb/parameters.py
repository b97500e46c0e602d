"""Query parameters that the searches have in common (PS3.18 §8.3.4), and flags."""

from __future__ import annotations

import re

from django.http import HttpRequest

from studies.dicomweb.errors import DicomWebError

LARGEST = 999_999_999


def natural(request: HttpRequest, name: str, default: int) -> int:
    """Give a natural number, the default where it's absent or empty. Raises DicomWebError 400."""
    value = request.GET.get(name, "")
    if not value:
        return default
    if not re.fullmatch(r"[0-9]+", value):
        raise DicomWebError(400, f"{name} must be a natural number.")
    digits = value.lstrip("0") or "0"
    if len(digits) > len(str(LARGEST)):
        raise DicomWebError(400, f"{name} is at most {LARGEST}.")
    return int(digits)


def flag(request: HttpRequest, name: str) -> bool:
    """Say whether a flag is given as true. Raises DicomWebError 400."""
    value = request.GET.get(name, "false").lower()
    if value not in {"true", "false", ""}:
        raise DicomWebError(400, f"{name} is true or false.")
    return value == "true"
