"""Identifiers of C-FIND, C-MOVE and C-GET: keys out of a request, answers in a character set that the caller reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag

from studies.matching.keywords import vr_of
from studies.matching.results import Content

SPECIFIC_CHARACTER_SET = Tag("SpecificCharacterSet")
# Tried in this order when the caller named no character set and ASCII won't do.
USUAL_CHARACTER_SETS = ("ISO_IR 100", "ISO_IR 192")
UNICODE = "ISO_IR 192"
TEXT_VRS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
NOT_KEYS = {"QueryRetrieveLevel", "SpecificCharacterSet", "RetrieveAETitle"}


class InvalidIdentifier(ValueError):
    """An identifier that can't be read; the message says why, and quotes no value."""


def read(identifier: Dataset, assumed_character_set: str = "") -> Dataset:
    """Give the request's identifier with its texts decoded, by the character set that its node is known to mean.

    Raises InvalidIdentifier.
    """
    if assumed_character_set and not identifier.get("SpecificCharacterSet"):
        identifier.set_original_encoding(
            identifier.original_encoding[0], identifier.original_encoding[1], assumed_character_set.split("\\")
        )
    try:
        for element in identifier.iterall():
            str(element.value)
    except Exception as error:  # pydicom raises what it will on hostile values
        raise InvalidIdentifier("The identifier can't be read.") from error
    return identifier


def keys_of(identifier: Dataset) -> Iterator[tuple[str, str]]:
    """Give pairs of attribute path and value, as ``studies.matching`` takes them; private attributes left out."""
    for element in identifier:
        keyword = keyword_for_tag(element.tag)
        if not keyword or keyword in NOT_KEYS or element.tag.element == 0:
            continue
        if element.VR != "SQ":
            yield keyword, text_of(element)
            continue
        items = [list(keys_of(item)) for item in element.value]
        if any(items):
            for path, value in (pair for item in items for pair in item):
                yield f"{keyword}.{path}", value
        else:
            yield keyword, ""


def text_of(element: DataElement) -> str:
    """Give a key's value as text, several joined by backslashes."""
    value = element.value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.rstrip(b"\0 ").decode("ascii", "replace")
    if not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
        return "\\".join(str(one) for one in value)
    return str(value)


def requested(identifier: Dataset) -> dict[str, Dataset | None]:
    """Give the tags of the attributes asked for, sequences with what is asked for of their items."""
    wanted: dict[str, Dataset | None] = {}
    for element in identifier:
        if element.tag.element == 0 or element.tag == SPECIFIC_CHARACTER_SET:
            continue
        item = element.value[0] if element.VR == "SQ" and element.value else None
        wanted[f"{element.tag:08X}"] = item if item is not None and len(item) else None
    return wanted


def answer(wanted: dict[str, Dataset | None], content: Content, empty: Iterable[str] = ()) -> Dataset:
    """Give the response's identifier: of the attributes wanted those known, and those of ``empty`` without a value."""
    response = Dataset()
    present = {tag: content[tag] for tag in wanted if tag in content}
    for tag, item in present.items():
        inner = wanted[tag]
        _add(response, tag, _narrowed(item, inner) if inner is not None else item)
    for tag in empty:
        if tag in wanted and tag not in present:
            _add(response, tag, {"vr": vr_of(keyword_for_tag(int(tag, 16)))})
    return response


def _narrowed(content: dict[str, Any], inner: Dataset) -> dict[str, Any]:
    """Give a sequence with only those attributes of its items that were asked for (PS3.4 §C.2.2.2.6)."""
    tags = set(requested(inner))
    items = content.get("Value", [])
    return {**content, "Value": [{tag: value for tag, value in item.items() if tag in tags} for item in items]}


def _add(response: Dataset, tag: str, content: dict[str, Any]) -> None:
    try:
        part = Dataset.from_json({tag: content})
    except Exception:  # what was received may hold values that its VR doesn't allow
        part = Dataset.from_json({tag: {"vr": content["vr"]}})
    response.update(part)


def write_texts(response: Dataset, *preferred: str) -> None:
    """Name the first of the preferred character sets in which all texts can be written, Unicode where none can."""
    texts = list(_texts(response))
    if all(text.isascii() for text in texts):
        if "SpecificCharacterSet" in response:
            del response.SpecificCharacterSet
        return
    for name in (*filter(None, preferred), *USUAL_CHARACTER_SETS):
        if can_write(texts, name):
            response.SpecificCharacterSet = name.split("\\") if "\\" in name else name
            return


def can_write(texts: Iterable[str], character_set: str) -> bool:
    """Say whether every character is in one of the character set's code tables (PS3.3 C.12.1.1.2)."""
    try:
        encodings = convert_encodings(character_set.split("\\"))
    except LookupError:
        return False
    return all(any(_encodes(character, encoding) for encoding in encodings) for text in texts for character in text)


def _encodes(character: str, encoding: str) -> bool:
    try:
        encoded = character.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    # ISO_IR 13 is the single-byte part of what Python calls so (JIS X 0201).
    return encoding != "shift_jis" or len(encoded) == 1


def _texts(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in TEXT_VRS:
            yield text_of(element)
