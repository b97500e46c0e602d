"""DICOM JSON in the order that PS3.18 §F.2.2 asks for: the attributes of each object by ascending tag."""

from __future__ import annotations

from typing import Any


def in_tag_order(content: dict[str, Any]) -> dict[str, Any]:
    """Give a data set, and every item of its sequences, with its attributes by ascending tag."""
    return {tag: _with_items_in_order(element) for tag, element in sorted(content.items())}


def _with_items_in_order(element: Any) -> Any:
    if not isinstance(element, dict) or element.get("vr") != "SQ" or not isinstance(element.get("Value"), list):
        return element
    items = [in_tag_order(item) if isinstance(item, dict) else item for item in element["Value"]]
    return {**element, "Value": items}
