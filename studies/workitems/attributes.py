"""What a workitem must, may and may not hold (PS3.4 Table CC.2.5-3), and which of it is matched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.valuerep import DA, DT

from studies.person_names import searchable
from studies.workitems.errors import FinalStateNotMet, InvalidWorkitem, MissingAttribute, MissingAttributeValue

PRIORITIES = {"HIGH", "MEDIUM", "LOW"}
READINESS = {"INCOMPLETE", "UNAVAILABLE", "READY"}
# Type 1 at creation.
NEEDED = (
    *("ScheduledProcedureStepPriority", "ProcedureStepLabel", "ScheduledProcedureStepStartDateTime"),
    "InputReadinessState",
)
# Empty at creation, and at most the performer's afterwards.
EMPTY_AT_FIRST = ("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence")
# Ours to set, never a client's.
OURS = (
    *("SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "TransactionUID"),
    "ScheduledProcedureStepModificationDateTime",
)
# Fixed when the workitem is made.
FIXED = (
    *(
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
    ),
    *("PatientBirthDate", "PatientSex", "AdmissionID", "IssuerOfAdmissionIDSequence"),
    *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence"),
    *("ReplacedProcedureStepSequence", "StudyInstanceUID"),
)
# Required in the performed procedure's item when COMPLETED, and in the progress item when CANCELED.
PERFORMED = (
    *("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime", "PerformedWorkitemCodeSequence"),
    "PerformedProcedureStepEndDateTime",
)
DISCONTINUED = ("ProcedureStepDiscontinuationReasonCodeSequence", "ProcedureStepCancellationDateTime")

_CODES = (
    *("ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence"),
    *("ScheduledStationGeographicLocationCodeSequence", "ScheduledWorkitemCodeSequence"),
    "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence",
)
SEQUENCE_PATHS = (
    *(f"{code}.{keyword}" for code in _CODES for keyword in ("CodeValue", "CodingSchemeDesignator")),
    *(f"ReferencedRequestSequence.{k}" for k in ("AccessionNumber", "RequestedProcedureID", "StudyInstanceUID")),
)


def tag_of(keyword: str) -> str:
    """Give a keyword's tag as DICOM JSON writes it."""
    return f"{tag_for_keyword(keyword):08X}"


def read(dataset: Dataset) -> dict[str, Any]:
    """Give the data set as DICOM JSON, decoded, without file and command elements. Raises InvalidWorkitem."""
    try:
        text = json.dumps(dataset.to_json_dict(), allow_nan=False)
        content: dict[str, Any] = json.loads(text)
        # Halves of surrogate pairs are no text that a database keeps.
        json.dumps(content, ensure_ascii=False).encode()
    except Exception as error:  # pydicom raises what it will on hostile values
        raise InvalidWorkitem("The data set can't be read.") from error
    if "\\u0000" in text:
        raise InvalidWorkitem("A value has characters that can't be kept.")
    content.pop(tag_of("SpecificCharacterSet"), None)
    return {tag: element for tag, element in content.items() if not tag.startswith(("0000", "0002"))}


def values(content: dict[str, Any], keyword: str) -> list[Any]:
    """Give an attribute's values; none when it's empty or absent."""
    element = content.get(tag_of(keyword))
    found = element.get("Value") if isinstance(element, dict) else None
    return [v for v in found if v is not None] if isinstance(found, list) else []


def text(content: dict[str, Any], keyword: str, longest: int) -> str:
    """Give an attribute's first value as text; a name's groups joined by ``=``."""
    found = values(content, keyword)
    if not found:
        return ""
    if isinstance(found[0], dict):
        groups = [str(found[0].get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")[:longest]
    return str(found[0]).strip()[:longest]


def moment(content: dict[str, Any], keyword: str) -> datetime | None:
    """Give a DT; without an offset of its own it's in the data set's zone, else UTC. Raises InvalidWorkitem."""
    value = text(content, keyword, 64)
    if not value:
        return None
    try:
        parsed = DT(value)
        found = datetime.fromisoformat(parsed.isoformat())
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidWorkitem(f"{keyword} is no date and time.") from error
    found = found if found.tzinfo is not None else found.replace(tzinfo=_zone(content))
    if not 1 < found.year < 9999:
        # In another time zone it may be a year that there's none of.
        raise InvalidWorkitem(f"{keyword} is no date and time.")
    return found


def _zone(content: dict[str, Any]) -> timezone:
    offset = text(content, "TimezoneOffsetFromUTC", 5)
    if len(offset) == 5 and offset[0] in "+-" and offset[1:].isdigit() and int(offset[1:3]) < 15:
        minutes = int(offset[1:3]) * 60 + int(offset[3:])
        return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
    return UTC


def _day(content: dict[str, Any], keyword: str) -> date | None:
    try:
        value = DA(text(content, keyword, 10))
    except ValueError:
        return None
    return date(value.year, value.month, value.day) if value else None


def columns(content: dict[str, Any]) -> dict[str, Any]:
    """Give the columns that are matched. Raises InvalidWorkitem and its kinds."""
    for keyword in NEEDED:
        if tag_of(keyword) not in content:
            raise MissingAttribute(f"{keyword} is missing.")
        if not values(content, keyword):
            raise MissingAttributeValue(f"{keyword} has no value.")
    priority, readiness = text(content, NEEDED[0], 16), text(content, "InputReadinessState", 16)
    if priority not in PRIORITIES:
        raise InvalidWorkitem("ScheduledProcedureStepPriority is HIGH, MEDIUM or LOW.")
    if readiness not in READINESS:
        raise InvalidWorkitem("InputReadinessState is INCOMPLETE, UNAVAILABLE or READY.")
    name = text(content, "PatientName", 324)
    return {
        "priority": priority,
        "procedure_step_label": text(content, "ProcedureStepLabel", 64),
        "worklist_label": text(content, "WorklistLabel", 64),
        "input_readiness_state": readiness,
        "scheduled_start_at": moment(content, "ScheduledProcedureStepStartDateTime"),
        "expected_completion_at": moment(content, "ExpectedCompletionDateTime"),
        "expires_at": moment(content, "ScheduledProcedureStepExpirationDateTime"),
        "patient_id": text(content, "PatientID", 64),
        "issuer_of_patient_id": text(content, "IssuerOfPatientID", 64),
        "patient_name": name,
        "patient_name_search": searchable(name),
        "patient_birth_date": _day(content, "PatientBirthDate"),
        "patient_sex": text(content, "PatientSex", 16),
        "admission_id": text(content, "AdmissionID", 64),
        "study_instance_uid": text(content, "StudyInstanceUID", 64),
    }


def sequence_keys(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give (path, value) of everything inside sequences that is matched."""
    for path in SEQUENCE_PATHS:
        for value in _at(content, path.split(".")):
            yield path, value


def _at(content: dict[str, Any], path: list[str]) -> set[str]:
    if len(path) == 1:
        value = text(content, path[0], 64)
        return {value} if value else set()
    items = [item for item in values(content, path[0]) if isinstance(item, dict)]
    return {value for item in items for value in _at(item, path[1:])}


def check_final_state(content: dict[str, Any], state: str) -> None:
    """Say whether the workitem may end (PS3.4 Table CC.2.5-3, final state). Raises FinalStateNotMet."""
    if state == "COMPLETED":
        item = _first_item(content, "UnifiedProcedureStepPerformedProcedureSequence")
        missing = [keyword for keyword in PERFORMED if not values(item, keyword)]
        # What was put out may be nothing, but that must be said.
        if tag_of("OutputInformationSequence") not in item:
            missing.append("OutputInformationSequence")
    else:
        item = _first_item(content, "ProcedureStepProgressInformationSequence")
        missing = [keyword for keyword in DISCONTINUED if not values(item, keyword)]
    if missing:
        raise FinalStateNotMet(f"Missing for {state}: {', '.join(missing)}.")


def _first_item(content: dict[str, Any], keyword: str) -> dict[str, Any]:
    items = values(content, keyword)
    return items[0] if items and isinstance(items[0], dict) else {}
