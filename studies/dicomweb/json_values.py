"""Values of DICOM JSON as their VRs allow them (PS3.18 Table F.2.3-1, PS3.5 §6.2), before a data set is made of them.

What would be cut, doubled or left out without a word on the way to bytes is refused. What texts say isn't looked at:
it's taken as it is in files.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from typing import Any

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.multival import MultiValue
from pydicom.valuerep import STANDARD_VR, format_number_as_ds

from studies.archive.native_model import DECIMAL, NOT_FINITE

# Smallest and largest.
_WHOLE = {
    "US": (0, 2**16 - 1),
    "SS": (-(2**15), 2**15 - 1),
    "UL": (0, 2**32 - 1),
    "SL": (-(2**31), 2**31 - 1),
    "IS": (-(2**31), 2**31 - 1),
    "UV": (0, 2**64 - 1),
    "SV": (-(2**63), 2**63 - 1),
}
# May be written as strings, so that no reader rounds them.
_AS_TEXT = {"IS": r"[+-]?[0-9]{1,12}", "UV": "[0-9]{1,20}", "SV": "-?[0-9]{1,19}"}
_WRITTEN: dict[str, Callable[[Any], str]] = {"IS": str, "DS": lambda number: format_number_as_ds(float(number))}
LARGEST_FLOAT = (2 - 2**-23) * 2.0**127
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_TEXTS = {str(vr) for vr in STANDARD_VR if vr not in _WHOLE} - {"DS", "FL", "FD", "AT", "PN", "SQ"}
# One value each, in which a backslash is a letter.
_WHOLE_TEXTS = {"LT", "ST", "UR", "UT"}


class InvalidValue(ValueError):
    """An element has a value that its VR doesn't allow; the message names the element, not the value."""


def dataset_of(content: dict[str, Any], bulk_value: Callable[[str, str, str], Any] | None = None) -> Dataset:
    """Make a data set; ``bulk_value`` gives what a BulkDataURI names, by tag, VR and URI.

    Empty values among others stay empty, numbers that are kept as text are written within the VR's length, and NULs
    that pad a text go. Raises InvalidValue, and what pydicom will for what isn't of the model's form.
    """
    dataset = Dataset.from_json(_checked_set(content), bulk_value)
    for element in dataset.iterall():
        # pydicom would write None as a word, and a number as long as it comes.
        if element.VR in _WRITTEN and element.value is not None:
            values = element.value if isinstance(element.value, MultiValue) else [element.value]
            element.value = ["" if value is None else _WRITTEN[element.VR](value) for value in values]
    return dataset


def _checked_set(content: dict[str, Any]) -> dict[str, Any]:
    return {tag: _checked(tag, element) for tag, element in content.items()}


def _checked(tag: str, element: Any) -> Any:
    if not isinstance(element, dict):
        return element
    if "InlineBinary" in element and not _is_base64(element["InlineBinary"]):
        raise InvalidValue(f"{_name(tag)}: InlineBinary isn't Base64.")
    vr, values = str(element.get("vr")), element.get("Value")
    if not isinstance(values, list):
        return element
    if vr == "SQ":
        return {**element, "Value": [_checked_set(item) if isinstance(item, dict) else item for item in values]}
    try:
        return {**element, "Value": [_value(vr, value, is_alone=len(values) == 1) for value in values]}
    except ValueError as error:
        raise InvalidValue(f"{_name(tag)} has a value that {vr[:2]} doesn't allow.") from error


def _name(tag: str) -> str:
    known = keyword_for_tag(int(tag, 16)) if _TAG.fullmatch(tag) else ""
    return known or tag[:8]


def _is_base64(text: Any) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return False
    return isinstance(text, str)


def _value(vr: str, value: Any, *, is_alone: bool) -> Any:
    """Give one value as pydicom reads it. Raises ValueError."""
    if value is None:
        if is_alone or vr in _TEXTS or vr in {"PN", "DS", "IS"}:
            return value
        raise ValueError(vr)
    if vr in _WHOLE:
        return _whole(vr, value)
    if vr == "DS":
        return _decimal(value)
    if vr in {"FL", "FD"}:
        return _floating(vr, value)
    if vr == "AT":
        return _matched(_TAG, value)
    if vr == "PN" and isinstance(value, dict):
        return {group: _text(vr, text) for group, text in value.items()}
    return _text(vr, value) if vr == "PN" or vr in _TEXTS else value


def _matched(form: re.Pattern[str], value: Any) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not form.fullmatch(text):
        raise ValueError(form.pattern)
    return text


def _text(vr: str, value: Any) -> str:
    text = value.rstrip("\0") if isinstance(value, str) else "\0"
    if _NO_TEXT.search(text) or ("\\" in text and vr not in _WHOLE_TEXTS):
        raise ValueError(vr)
    return text


def _whole(vr: str, value: Any) -> int:
    if vr in _AS_TEXT and isinstance(value, str):
        return _whole(vr, int(_matched(re.compile(_AS_TEXT[vr]), value)))
    smallest, largest = _WHOLE[vr]
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or isinstance(value, bool) or not smallest <= value <= largest:
        raise ValueError(vr)
    return int(value)


def _decimal(value: Any) -> float:
    number = float(_matched(DECIMAL, value)) if isinstance(value, str) else float(_number(value))
    if not math.isfinite(number):
        raise ValueError("DS")
    return number


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    return value


def _floating(vr: str, value: Any) -> float:
    number = float(value if value in NOT_FINITE else _number(value))
    if vr == "FL" and math.isfinite(number) and abs(number) > LARGEST_FLOAT:
        raise ValueError(vr)
    return number
