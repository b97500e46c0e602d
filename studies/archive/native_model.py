"""The Native DICOM Model (PS3.19 §A.1) as XML, to and from DICOM JSON (PS3.18 Annex F)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from pydicom.datadict import keyword_for_tag

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
MEDIA_TYPE = "application/dicom+xml"
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_NAME_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_FLOATING = frozenset({"DS", "FL", "FD"})
_WHOLE = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
# A number as DS, JSON and XML write it, in the digits of ASCII; Python's own reader takes more.
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# How FL and FD are written that are no number, or none that ends.
NOT_FINITE = frozenset({"NaN", "inf", "-inf", "Infinity", "-Infinity"})
DEEPEST = 64
MOST_LEFT_OUT = 1000

Content = dict[str, Any]


class InvalidNativeModel(ValueError):
    """The text isn't XML of the Native DICOM Model."""


def to_native_xml(content: Content) -> bytes:
    """Give one data set, as DICOM JSON, as an XML document in UTF-8.

    Bulk data stay references (``BulkData uri``). What XML can't hold, such as control characters, is left out.
    """
    root = ElementTree.Element("NativeDicomModel", {"xmlns": NAMESPACE, "xml:space": "preserve"})
    _write(root, content)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _write(parent: ElementTree.Element, content: Content) -> None:
    for tag, element in sorted(content.items()):
        attributes = {"tag": tag, "vr": element["vr"]}
        keyword = keyword_for_tag(int(tag, 16))
        if keyword:
            attributes["keyword"] = keyword
        written = ElementTree.SubElement(parent, "DicomAttribute", attributes)
        if "BulkDataURI" in element:
            ElementTree.SubElement(written, "BulkData", {"uri": _writable(str(element["BulkDataURI"]))})
        elif "InlineBinary" in element:
            ElementTree.SubElement(written, "InlineBinary").text = element["InlineBinary"]
        else:
            for number, value in enumerate(element.get("Value", ()), start=1):
                _write_value(written, element["vr"], number, value)


def _write_value(parent: ElementTree.Element, vr: str, number: int, value: Any) -> None:
    place = {"number": str(number)}
    if vr == "SQ":
        _write(ElementTree.SubElement(parent, "Item", place), value or {})
    elif vr == "PN":
        written = ElementTree.SubElement(parent, "PersonName", place)
        for group in _NAME_GROUPS:
            text = value.get(group) if isinstance(value, dict) else None
            if text:
                named = ElementTree.SubElement(written, group)
                for component, part in zip(_NAME_COMPONENTS, text.split("^"), strict=False):
                    if part:
                        ElementTree.SubElement(named, component).text = _writable(part)
    else:
        ElementTree.SubElement(parent, "Value", place).text = "" if value is None else _writable(_spelled(value))


def _spelled(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _writable(text: str) -> str:
    """Leave out what XML 1.0 §2.2 doesn't allow."""
    return "".join(
        c for c in text if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff")
    )


def from_native_xml(document: bytes) -> Content:
    """Read one data set from an XML document and give it as DICOM JSON. Raises InvalidNativeModel.

    Documents that define entities are refused, so that none can grow or fetch anything.
    """
    root = _parsed(document)
    if _local(root) != "NativeDicomModel":
        raise InvalidNativeModel("The document isn't a NativeDicomModel.")
    return _read(root, 0)


def _parsed(document: bytes) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*arguments: Any) -> None:
        raise InvalidNativeModel("The document has a DOCTYPE or entities.")

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(document, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, RecursionError) as error:
        raise InvalidNativeModel("The document isn't well-formed XML.") from error


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _read(parent: ElementTree.Element, depth: int) -> Content:
    if depth > DEEPEST:
        raise InvalidNativeModel("Sequences are nested too deep.")
    content: Content = {}
    for element in parent:
        if _local(element) != "DicomAttribute":
            raise InvalidNativeModel("Only DicomAttribute is allowed in a data set.")
        tag, vr = element.get("tag", "").upper(), element.get("vr", "")
        if len(tag) != 8 or not set(tag) <= set("0123456789ABCDEF") or len(vr) != 2:
            raise InvalidNativeModel("A DicomAttribute needs a tag and a vr.")
        content[tag] = {"vr": vr, **_read_values(element, vr, depth)}
    return content


def _read_values(element: ElementTree.Element, vr: str, depth: int) -> dict[str, Any]:
    values: list[tuple[int, Any]] = []
    for number, child in enumerate(element, start=1):
        kind, text = _local(child), child.text or ""
        if kind == "BulkData":
            return {"BulkDataURI": child.get("uri") or child.get("uuid") or ""}
        if kind == "InlineBinary":
            return {"InlineBinary": _binary(text)}
        place = child.get("number", "")
        values.append(
            (int(place) if place.isascii() and place.isdigit() else number, _read_value(kind, child, vr, text, depth))
        )
    return {"Value": _in_places(values)} if values else {}


def _in_places(values: list[tuple[int, Any]]) -> list[Any]:
    """Give values in the places that their numbers say, None in those that are left out."""
    places = dict(values)
    last = max(places)
    if len(places) < len(values) or min(places) < 1 or last > len(values) + MOST_LEFT_OUT:
        raise InvalidNativeModel("Values are numbered from 1, each once.")
    return [places.get(number) for number in range(1, last + 1)]


def _read_value(kind: str, child: ElementTree.Element, vr: str, text: str, depth: int) -> Any:
    if kind == "Item":
        return _read(child, depth + 1)
    if kind == "PersonName":
        return dict(_read_name(child))
    if kind != "Value":
        raise InvalidNativeModel("An attribute has a part that the model doesn't know.")
    if vr not in _WHOLE | _FLOATING:
        return text
    number = text.strip()
    if not number:
        return None
    if vr in _FLOATING and (number in NOT_FINITE or DECIMAL.fullmatch(number)):
        return float(number)
    if vr in _WHOLE and _INTEGER.fullmatch(number):
        return int(number)
    raise InvalidNativeModel("A number was expected.")


def _read_name(element: ElementTree.Element) -> Iterator[tuple[str, str]]:
    for group in element:
        if _local(group) in _NAME_GROUPS:
            parts = {_local(part): part.text or "" for part in group}
            yield _local(group), "^".join(parts.get(component, "") for component in _NAME_COMPONENTS).rstrip("^")


def _binary(text: str) -> str:
    try:
        return base64.b64encode(base64.b64decode("".join(text.split()), validate=True)).decode()
    except binascii.Error as error:
        raise InvalidNativeModel("InlineBinary isn't Base64.") from error
