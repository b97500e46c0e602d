"""Whether values of DICOM JSON can be values of their VRs (PS3.18 Table F.2.3-1, PS3.5 §6.2).

Said before anything is made of them: what a library would cut, round or leave out without a word is refused. Texts are
taken as they are, as they are in files.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.valuerep import STANDARD_VR

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
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LONGEST_DECIMAL = 16
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_TEXTS = {str(vr) for vr in STANDARD_VR} - {*_WHOLE, "DS", "FL", "FD", "AT", "PN", "SQ"}


class InvalidValue(ValueError):
    """An element has a value that its VR doesn't allow; the message names the element, not the value."""


def check_values(content: dict[str, Any]) -> None:
    """Look through a data set and its items. Raises InvalidValue; what isn't of the model's form is its reader's."""
    for tag, element in content.items():
        if not isinstance(element, dict):
            continue
        vr, values = element.get("vr"), element.get("Value")
        if "InlineBinary" in element and not _is_base64(element["InlineBinary"]):
            raise InvalidValue(f"{_name(tag)}: InlineBinary isn't Base64.")
        for value in values if isinstance(values, list) else ():
            if vr == "SQ" and isinstance(value, dict):
                check_values(value)
            elif value is not None and not _fits(str(vr), value):
                raise InvalidValue(f"{_name(tag)} has a value that {str(vr)[:2]} doesn't allow.")


def _name(tag: str) -> str:
    known = keyword_for_tag(int(tag, 16)) if _TAG.fullmatch(tag) else ""
    return known or tag[:8]


def _is_base64(text: Any) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return False
    return isinstance(text, str)


def _fits(vr: str, value: Any) -> bool:
    if vr in _WHOLE:
        return _is_whole(vr, value)
    if vr == "DS" and isinstance(value, str):
        return len(value.strip()) <= LONGEST_DECIMAL and _DECIMAL.fullmatch(value.strip()) is not None
    if vr in {"DS", "FL", "FD"}:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (vr != "DS" or math.isfinite(value))
    if vr == "AT":
        return isinstance(value, str) and _TAG.fullmatch(value) is not None
    if vr == "PN":
        groups = value.values() if isinstance(value, dict) else [value]
        return all(isinstance(group, str) and not _NO_TEXT.search(group) for group in groups)
    return vr not in _TEXTS or (isinstance(value, str) and not _NO_TEXT.search(value))


def _is_whole(vr: str, value: Any) -> bool:
    if vr in _AS_TEXT and isinstance(value, str):
        text = value.strip()
        return re.fullmatch(_AS_TEXT[vr], text) is not None and _is_whole(vr, int(text))
    smallest, largest = _WHOLE[vr]
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return is_whole and not isinstance(value, bool) and smallest <= value <= largest
