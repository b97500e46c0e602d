"""Query parameters that the searches have in common (PS3.18 §8.3.4), and flags."""

from __future__ import annotations

import re
from collections.abc import Set
from urllib.parse import unquote_to_bytes

from django.http import HttpRequest

from studies.dicomweb.errors import DicomWebError
from studies.matching import Options

LARGEST = 999_999_999
# What is said of a page that isn't the last (PS3.18 §8.3.4.4).
THERE_ARE_MORE = (
    "The number of results exceeded the maximum supported by the server. Additional results can be requested."
)
MATCHING_FLAGS = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
# What isn't an attribute to be matched.
NOT_KEYS = {"limit", "offset", "includefield", "accept", "charset", *MATCHING_FLAGS}
# The same of resources that belong to a site by name.
NOT_KEYS_AT_A_SITE = {*NOT_KEYS, "site"}


def attributes(request: HttpRequest, *, other_than: Set[str]) -> list[tuple[str, list[str]]]:
    """Give the query's keys with their values, but for parameters. Raises DicomWebError 400 where it isn't UTF-8."""
    try:
        unquote_to_bytes(request.META.get("QUERY_STRING", "")).decode()
    except UnicodeDecodeError as error:
        # Django would search for something else than what was meant.
        raise DicomWebError(400, "The query isn't in UTF-8.") from error
    return [(name, values) for name, values in request.GET.lists() if name.lower() not in other_than]


def natural(request: HttpRequest, name: str, default: int) -> int:
    """Give a natural number, the default where it's absent or empty, LARGEST for a larger one. Raises DicomWebError."""
    value = request.GET.get(name, "")
    if not value:
        return default
    if not re.fullmatch(r"[0-9]+", value):
        raise DicomWebError(400, f"{name} must be a natural number.")
    digits = value.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(LARGEST)) else LARGEST


def flag(request: HttpRequest, name: str) -> bool:
    """Say whether a flag is given as true. Raises DicomWebError 400."""
    value = request.GET.get(name, "false").lower()
    if value not in {"true", "false", ""}:
        raise DicomWebError(400, f"{name} is true or false.")
    return value == "true"


def matching_options(request: HttpRequest) -> Options:
    """Give how keys are to be matched. Raises DicomWebError 400."""
    is_fuzzy, takes_empty, takes_many = (flag(request, name) for name in MATCHING_FLAGS)
    return Options(is_fuzzy=is_fuzzy, takes_empty=takes_empty, takes_many=takes_many, combines_datetime=True)
