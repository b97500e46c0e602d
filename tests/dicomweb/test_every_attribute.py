"""Every attribute that docs/dicomweb.md says is indexed: found by keyword and by tag, and returned (PS3.18 §10.6)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian

from studies.matching.keywords import COMPUTED_KEYWORDS, INSTANCE_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS, Level
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "dicomweb.md"
# What a query says of itself; matched elsewhere.
NO_KEYS = {"SpecificCharacterSet", "TimezoneOffsetFromUTC"}
VALUES = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE"), ("QX1", "QX2")),
    **dict.fromkeys(("IS", "DS", "US", "UL"), ("17", "18")),
    "PN": ("Quick^Xenia", "Quick^Xaver"),
    "DA": ("20250307", "20250308"),
    "TM": ("081100", "091100"),
    "DT": ("20250307081100", "20250308081100"),
    "UI": ("1.2.840.99.1", "1.2.840.99.2"),
    "AS": ("042Y", "043Y"),
}
SPECIAL = {
    "RequestAttributesSequence": ("ScheduledProcedureStepID", "QX1", "QX2"),
    "ModalitiesInStudy": ("", "QX1", "QX2"),
    "SOPClassesInStudy": ("", "1.2.840.99.1", "1.2.840.99.2"),
    "InstanceAvailability": ("", "ONLINE", "OFFLINE"),
    "Rows": ("", "64", "65"),
    "Columns": ("", "64", "65"),
    "BitsAllocated": ("", "16", "8"),
    # How many frames the pixels are decides, not what is written.
    "NumberOfFrames": ("", "1", "2"),
    "AvailableTransferSyntaxUID": ("", ExplicitVRLittleEndian, "1.2.840.99.2"),
}
COUNTS = {keyword for keywords in COMPUTED_KEYWORDS.values() for keyword in keywords if keyword.startswith("Number")}
# The same in both objects.
ALIKE = {"InstanceAvailability", "Rows", "Columns", "BitsAllocated", "AvailableTransferSyntaxUID"}
BY_LEVEL = {
    "studies": (*STUDY_KEYWORDS, *COMPUTED_KEYWORDS[Level.STUDY]),
    "series": (*SERIES_KEYWORDS, *COMPUTED_KEYWORDS[Level.SERIES]),
    "instances": (*INSTANCE_KEYWORDS, *COMPUTED_KEYWORDS[Level.INSTANCE]),
}


def vr_of(keyword: str) -> str:
    return str(dictionary_VR(keyword)).split(" ")[0]


def query_of(keyword: str) -> tuple[str, str, str]:
    """Give the path below the attribute, a value that matches and one that doesn't."""
    if keyword in SPECIAL:
        return SPECIAL[keyword]
    if keyword in COUNTS:
        return ("", "1", "7")
    if vr_of(keyword) == "SQ":
        return ("CodeValue", "QX1", "QX2")
    return ("", *VALUES[vr_of(keyword)])


@pytest.fixture
def radiologist(north: Any, ingest_files: Any, client_of: Callable[[str], Client]) -> Client:
    """Put an instance in that has a value for everything, and one that has as little as can be."""
    described: dict[str, Any] = {}
    for keyword in {
        *STUDY_KEYWORDS,
        *SERIES_KEYWORDS,
        *INSTANCE_KEYWORDS,
        "SOPClassUID",
        "SOPInstanceUID",
        "InstanceNumber",
    }:
        below, value, _ = query_of(keyword)
        if keyword in NO_KEYS:
            continue
        if below:
            item = Dataset()
            setattr(item, below, value)
            described[keyword] = [item]
        else:
            described[keyword] = value
    (outcome,) = ingest_files(north, make_instance(**described))
    assert outcome.is_in, outcome.reason
    bare = dict.fromkeys(
        ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "StudyDescription")
    )
    ingest_files(north, make_instance(**bare, PatientID="BARE", Modality="OT"))
    return client_of("radiologist")


@pytest.mark.parametrize("resource", sorted(BY_LEVEL))
def test_every_attribute_is_found_and_returned(resource: str, radiologist: Client) -> None:
    wrong = []
    for keyword in BY_LEVEL[resource]:
        if keyword in NO_KEYS:
            continue
        below, right, other = query_of(keyword)
        tag = f"{tag_for_keyword(keyword):08X}"
        names = (keyword, tag) if not below else (f"{keyword}.{below}", f"{tag}.{tag_for_keyword(below):08X}")
        for name in names:
            answer = radiologist.get(f"/dicom-web/{resource}", {name: right})
            results = answer.json() if answer.status_code == 200 else []
            expected = 2 if keyword in COUNTS | ALIKE else 1
            if len(results) != expected or "Warning" in answer:
                wrong.append((name, right, answer.status_code, len(results)))
            elif not results[-1].get(tag, {}).get("Value"):
                wrong.append((name, "not returned"))
            missed = radiologist.get(f"/dicom-web/{resource}", {name: other})
            if missed.status_code != 204:
                wrong.append((name, other, missed.status_code))
    assert wrong == []


def test_the_required_matching_and_return_attributes_of_the_standard_are_there() -> None:
    """PS3.18 Tables 10.6.1-5 and 10.6.3-3 to -5."""
    studies = "StudyDate StudyTime AccessionNumber ModalitiesInStudy ReferringPhysicianName PatientName PatientID"
    series = "Modality SeriesInstanceUID SeriesNumber PerformedProcedureStepStartDate PerformedProcedureStepStartTime"
    assert {*studies.split(), "StudyInstanceUID", "StudyID", "InstanceAvailability"} <= set(BY_LEVEL["studies"])
    assert {*series.split(), "RequestAttributesSequence", "SeriesDescription"} <= set(BY_LEVEL["series"])
    assert {
        *["SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames"]
    } <= set(BY_LEVEL["instances"])


def test_the_documentation_names_no_attribute_that_is_not_indexed() -> None:
    (paragraph,) = re.findall(r"^Indexed and returned:.*?\n\n", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    words = set(re.findall(r"\b[A-Z][A-Za-z]+\b", paragraph)) - {"Time", "UID"}
    named = {word for word in words if word in keyword_dict}
    indexed = {keyword for keywords in BY_LEVEL.values() for keyword in keywords}
    assert len(named) > 50
    assert named <= indexed
