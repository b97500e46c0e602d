"""Structured reports and key object selections as pages for people (PS3.3 C.17.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from django.template.loader import render_to_string
from pydicom import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, DT, TM

from studies.person_names import displayed

DEEPEST = 32
_BREAK = re.compile(r"<br\s*/?>\n?", re.IGNORECASE)
MOST_NODES = 20_000
# How a content item stands to the one above it, where the reader has to be told.
RELATIONSHIPS = {"INFERRED FROM": "inferred from", "HAS PROPERTIES": "", "CONTAINS": "", "HAS OBS CONTEXT": ""}


@dataclass
class Node:
    """One content item: what it's about, what it says, and what is below it."""

    concept: str
    value: str
    kind: str
    relationship: str = ""
    below: list[Node] = field(default_factory=list)


def is_report(dataset: Dataset) -> bool:
    """Say whether the data set has a content tree."""
    return "ContentSequence" in dataset or str(dataset.get("ValueType", "")) == "CONTAINER"


def content_tree(dataset: Dataset) -> Node:
    """Give the content tree, its root the document's title."""
    left = [MOST_NODES]
    root = _node(dataset, 0, left)
    root.concept = root.concept or UID(str(dataset.get("SOPClassUID", ""))).name
    return root


def _node(item: Dataset, depth: int, left: list[int]) -> Node:
    kind = str(item.get("ValueType", ""))
    node = Node(
        _code(item.get("ConceptNameCodeSequence")),
        _value(item, kind),
        kind,
        RELATIONSHIPS.get(str(item.get("RelationshipType", "")), ""),
    )
    if depth < DEEPEST:
        for child in item.get("ContentSequence") or []:
            left[0] -= 1
            if left[0] < 0:
                break
            node.below.append(_node(child, depth + 1, left))
    return node


def _code(sequence: Any) -> str:
    if not sequence:
        return ""
    return str(sequence[0].get("CodeMeaning") or sequence[0].get("CodeValue") or "")


def _value(item: Dataset, kind: str) -> str:
    if kind == "TEXT":
        # Some systems write their line breaks as markup.
        return _BREAK.sub("\n", str(item.get("TextValue") or "")).strip()
    if kind == "CODE":
        return _code(item.get("ConceptCodeSequence"))
    if kind == "NUM":
        measured = (item.get("MeasuredValueSequence") or [None])[0]
        if measured is None:
            return _code(item.get("NumericValueQualifierCodeSequence"))
        unit = (measured.get("MeasurementUnitsCodeSequence") or [Dataset()])[0]
        symbol = str(unit.get("CodeValue") or "")
        return f"{measured.get('NumericValue', '')} {'' if symbol == '1' else symbol}".strip()
    if kind == "PNAME":
        return displayed(str(item.get("PersonName") or ""))
    simple = {"DATE": "Date", "TIME": "Time", "DATETIME": "DateTime", "UIDREF": "UID"}
    if kind in simple:
        return _moment(kind, str(item.get(simple[kind]) or ""))
    if kind in {"IMAGE", "COMPOSITE", "WAVEFORM"}:
        return "\n".join(_reference(r) for r in item.get("ReferencedSOPSequence") or [])
    if kind in {"SCOORD", "SCOORD3D"}:
        points = len(item.get("GraphicData") or []) // (3 if kind == "SCOORD3D" else 2)
        return f"{str(item.get('GraphicType', '')).lower()} of {points} points"
    return ""


def _moment(kind: str, text: str) -> str:
    try:
        if kind == "DATE":
            return DA(text).isoformat() if text else ""  # type: ignore[union-attr]
        if kind == "TIME":
            return TM(text).isoformat("minutes") if text else ""  # type: ignore[union-attr]
        if kind == "DATETIME":
            return DT(text).isoformat(" ", "minutes") if text else ""  # type: ignore[union-attr]
    except (ValueError, AttributeError):
        return text
    return text


def _reference(item: Dataset) -> str:
    name = UID(str(item.get("ReferencedSOPClassUID", ""))).name.removesuffix(" Storage")
    frames = item.get("ReferencedFrameNumber")
    at = f", frame {frames}" if frames else ""
    return f"{name}{at} ({item.get('ReferencedSOPInstanceUID', '')})"


def referenced_instances(dataset: Dataset) -> list[tuple[str, int]]:
    """Give (series UID, number of instances) of what a key object selection or report refers to as evidence."""
    found = []
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []:
        for series in study.get("ReferencedSeriesSequence") or []:
            found.append((str(series.get("SeriesInstanceUID", "")), len(series.get("ReferencedSOPSequence") or [])))
    return found


def to_html(dataset: Dataset) -> str:
    """Give the report as a page; every text in it is escaped."""
    return render_to_string("archive/structured_report.html", {"root": content_tree(dataset), "facts": _facts(dataset)})


def to_text(dataset: Dataset) -> str:
    """Give the report as plain text, indented as its tree is."""
    root = content_tree(dataset)
    lines = [root.concept, "=" * len(root.concept), ""]
    lines += [f"{name}: {value}" for name, value in _facts(dataset)]
    lines.append("")

    def write(node: Node, depth: int) -> None:
        value = node.value.replace("\r\n", "\n").replace("\n", "\n" + "  " * (depth + 1))
        lines.append("  " * depth + ": ".join(text for text in (node.concept, value) if text))
        for child in node.below:
            write(child, depth + 1)

    for node in root.below:
        write(node, 0)
    return "\n".join(lines) + "\n"


def _facts(dataset: Dataset) -> list[tuple[str, str]]:
    verifying = (dataset.get("VerifyingObserverSequence") or [Dataset()])[0]
    facts = [
        ("Patient", displayed(str(dataset.get("PatientName", "")))),
        ("Patient ID", str(dataset.get("PatientID", ""))),
        ("Born", _moment("DATE", str(dataset.get("PatientBirthDate", "")))),
        ("Study", str(dataset.get("StudyDescription", ""))),
        ("Date", _moment("DATE", str(dataset.get("ContentDate") or dataset.get("StudyDate") or ""))),
        ("Accession number", str(dataset.get("AccessionNumber", ""))),
        ("Completed", str(dataset.get("CompletionFlag", "")).capitalize()),
        ("Verified", str(dataset.get("VerificationFlag", "")).capitalize()),
        ("Verified by", displayed(str(verifying.get("VerifyingObserverName", "")))),
    ]
    return [(name, value) for name, value in facts if value]
