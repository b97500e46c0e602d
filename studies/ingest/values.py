"""The values of a data set's elements as the index keeps them: text, numbers, dates and DICOM JSON.

Most elements need no decoding beyond ASCII; those are read here. All others are left to pydicom, which reads everything
and takes ten times longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from functools import cache, cached_property
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, TM

LARGEST_COUNT = (1 << 31) - 1
# Value representations of which printable ASCII is text as it stands (PS3.5 §6.2).
_SINGLE = {"LT", "ST"}
_PLAIN = {*_SINGLE, "AS", "CS", "DA", "DT", "IS", "LO", "PN", "SH", "TM", "UI"}
_PRINTABLE = re.compile(rb"[ -~]+")
_INTEGER = re.compile(r"-?[0-9]{1,12}")


def tags_of(keywords: Iterable[str]) -> list[int]:
    """Give the tags of attributes, in order; a keyword that the dictionary lacks has none."""
    return sorted({tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None})


_dictionary_vr = cache(dictionary_VR)


def vr_of(element: RawDataElement) -> str:
    """Give an element's value representation, in implicit VR by the dictionary."""
    return str(element.VR or _dictionary_vr(element.tag))


def plain_values(element: RawDataElement) -> list[Any] | None:
    """Give the values of an element that can be read as they stand, equal to pydicom's; None says that it can't."""
    vr, content = vr_of(element), element.value or b""
    if vr == "US":
        return [int.from_bytes(content, "little" if element.is_little_endian else "big")] if len(content) == 2 else None
    content = content.rstrip(b" \x00")
    if vr not in _PLAIN or not _PRINTABLE.fullmatch(content):
        return None
    text = content.decode("ascii")
    values = [text] if vr in _SINGLE else text.split("\\")
    if vr == "IS":
        return [int(value) for value in values] if all(map(_INTEGER.fullmatch, values)) else None
    if vr == "PN" and ("=" in text or any(value.endswith("^") for value in values)):
        return None
    if any(not value or value != value.strip() for value in values):
        return None
    return values


class Values:
    """Reads a data set's elements, by tag; a value that its VR doesn't allow is as good as none."""

    def __init__(self, elements: Mapping[int, RawDataElement]) -> None:
        self._elements = elements

    @cached_property
    def _dataset(self) -> Dataset:
        return Dataset({BaseTag(tag): element for tag, element in self._elements.items()})

    def text(self, keyword: str, longest: int) -> str:
        """Give the value as text, several with backslashes between, cut at ``longest`` characters."""
        tag = tag_for_keyword(keyword) or 0
        element = self._elements.get(tag)
        if element is None:
            return ""
        values = plain_values(element)
        if values is not None:
            return "\\".join(map(str, values)).strip()[:longest]
        try:
            value = self._dataset[BaseTag(tag)].value
        except Exception:  # pydicom raises what it will on hostile values
            return ""
        if value is None:
            return ""
        if not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
            value = "\\".join(str(v) for v in value)
        text = str(value).replace("\x00", "").strip()
        return text.encode("utf-8", "replace").decode()[:longest]

    def integer(self, keyword: str) -> int | None:
        """Give the first value as a whole number that a database can keep."""
        try:
            value = int(float(self._first(keyword)))
        except (ValueError, OverflowError):
            return None
        return value if -(2**62) < value < 2**62 else None

    def count(self, keyword: str) -> int | None:
        """Give the first value as a whole number from 0 to 2³¹-1."""
        value = self.integer(keyword)
        return value if value is not None and 0 <= value <= LARGEST_COUNT else None

    def date(self, keyword: str) -> date | None:
        """Give the first value as a date, also in the form of before 1993, with dots."""
        try:
            value = DA(self._first(keyword).replace(".", ""))
        except ValueError:
            return None
        return date(value.year, value.month, value.day) if value else None

    def time(self, keyword: str) -> time | None:
        """Give the first value as a time, also in the form of before 1993, with colons."""
        try:
            value = TM(self._first(keyword).replace(":", ""))
        except ValueError:
            return None
        return time(value.hour, value.minute, min(value.second, 59), value.microsecond) if value else None

    def json(self, tags: Iterable[int]) -> dict[str, Any]:
        """Give those of the elements that are there as DICOM JSON (PS3.18 §F.2)."""
        content: dict[str, Any] = {}
        for tag in tags:
            element = self._elements.get(tag)
            if element is None:
                continue
            values = plain_values(element)
            if values is not None:
                vr = vr_of(element)
                content[f"{tag:08X}"] = {
                    "vr": vr,
                    "Value": [{"Alphabetic": value} for value in values] if vr == "PN" else values,
                }
                continue
            try:
                content[f"{tag:08X}"] = _without_nul(self._dataset[BaseTag(tag)].to_json_dict(None, 1 << 30))
            except Exception:  # noqa: S112  an element that its VR doesn't allow is left out; the original keeps it
                continue
        return content

    def _first(self, keyword: str) -> str:
        return self.text(keyword, 1000).split("\\", 1)[0]


def _without_nul(value: Any) -> Any:
    """PostgreSQL's JSON can hold neither NUL nor lone surrogates."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value if value == value and value not in {float("inf"), float("-inf")} else None
