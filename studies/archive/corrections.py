"""Corrections of patient and study attributes: an overlay over what was received, which stays as it is in storage.

How ``studies.orders`` calls it, inside or outside a transaction of its own, after it has asked the gate::

    correct_study(
        study=study,
        attributes={"PatientID": "4711", "PatientName": "Lindqvist^Eva", "AccessionNumber": "A77"},
        reason="Reconciled with order A77",
        principal=principal,
    )

From the commit on all that leaves (Part 10 files of WADO, C-GET and C-MOVE, metadata, QIDO, C-FIND) carries the
corrected values and the Original Attributes Sequence; ``objects.stream_instance(…, original=True)`` gives what was
received. One who sets ``Study.corrections`` back (an undone step) calls :func:`restate` in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, time
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import DA, TM, validate_value

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive.errors import NotCorrectable
from studies.archive.models import Correction
from studies.archive.overlay import ORIGINAL_ATTRIBUTES
from studies.matching import remember_names
from studies.models import Patient, ReferringPhysician, Series, Study
from studies.person_names import identifying, searchable
from studies.trail import subject_of

PATIENT_KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("OtherPatientIDsSequence", "OtherPatientNames", "PatientBirthDate", "PatientBirthTime", "PatientSex"),
    *("PatientMotherBirthName", "EthnicGroup", "PatientComments", "PatientSpeciesDescription", "ResponsiblePerson"),
    *("PatientBreedDescription", "ResponsiblePersonRole"),
)
STUDY_KEYWORDS = (
    *("StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence", "StudyID", "StudyDescription"),
    *("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence", "ProcedureCodeSequence"),
    *("RequestingService", "AdmissionID", "IssuerOfAdmissionIDSequence", "PatientAge", "PatientSize", "PatientWeight"),
    *("AdditionalPatientHistory", "AdmittingDiagnosesDescription", "NameOfPhysiciansReadingStudy", "InstitutionName"),
    *("PhysiciansOfRecord", "Occupation", "ReasonForPerformedProcedureCodeSequence"),
)
CORRECTABLE = frozenset((*PATIENT_KEYWORDS, *STUDY_KEYWORDS))
MODIFYING_SYSTEM = "ATRIUM"
# Defined term of Reason for the Attribute Modification (0400,0565).
CORRECT = "CORRECT"
_PATIENT_COLUMNS = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")


@transaction.atomic
def correct_study(*, study: Study, attributes: Mapping[str, Any], reason: str, principal: Principal) -> Correction:
    """Correct a study's attributes, given by keyword; an empty value empties the attribute.

    Values are what pydicom takes: text, ``date``, lists for several values, lists of ``Dataset`` for sequences. The
    overlay, the indexed columns, the patient's row, the revision of every series and the trail change together; the
    event ``study.corrected`` tells the other rooms. The caller has asked whether the principal may (``study.correct``).
    Raises NotCorrectable for an attribute that may not be corrected or a value that its VR doesn't allow.
    """
    corrected = _as_json(attributes)
    study = Study.objects.select_for_update(of=("self",)).select_related("patient").get(pk=study.pk)
    received = {**study.attributes, **study.corrections}
    original = {tag: received.get(tag, {"vr": element["vr"]}) for tag, element in corrected.items()}
    history = study.corrections.get(ORIGINAL_ATTRIBUTES, {}).get("Value", [])
    study.corrections = {
        **study.corrections,
        **corrected,
        ORIGINAL_ATTRIBUTES: {"vr": "SQ", "Value": [*history, _original_item(original, study)]},
    }
    _index(study)
    restate(study=study)
    made = Correction.objects.create(
        study=study, corrected=corrected, original=original, reason=reason[:300], user=principal.user
    )
    events.emit("study.corrected", study=study.pk, correction=made.pk)
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details={"what": "study corrected", "attributes": sorted(attributes), "correction": made.pk},
    )
    return made


def restate(*, study: Study) -> None:
    """Make stale whatever was built from the study's attributes, in the caller's transaction."""
    Series.objects.filter(study=study).update(revision=F("revision") + 1)


def _as_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(attributes) - CORRECTABLE)
    if unknown or not attributes:
        raise NotCorrectable(f"Not to be corrected: {', '.join(unknown)}." if unknown else "Nothing to correct.")
    dataset = Dataset()
    for keyword, value in attributes.items():
        tag, vr = tag_for_keyword(keyword) or 0, dictionary_VR(keyword)
        try:
            for one in value if isinstance(value, list | tuple) else [value]:
                if vr != "SQ" and one not in ("", None):
                    validate_value(vr, _text(one, vr), config.RAISE)
            # JSON holds DA and TM as text (PS3.18 F.2.2).
            kept = _text(value, vr) if isinstance(value, date | time) else value
            dataset[tag] = DataElement(tag, vr, [] if vr == "SQ" and not kept else kept)
            content: dict[str, Any] = dataset.to_json_dict()
        except (ValueError, TypeError, AttributeError) as error:
            raise NotCorrectable(f"{keyword} can't have this value.") from error
    return content


def _text(value: Any, vr: str) -> str:
    if isinstance(value, date):
        return value.strftime("%Y%m%d")
    if isinstance(value, time):
        return value.strftime("%H%M%S")
    return str(value)


def _original_item(original: dict[str, Any], study: Study) -> dict[str, Any]:
    """Give an item of the Original Attributes Sequence (PS3.3 C.12.1.1.9)."""
    item = Dataset()
    item.AttributeModificationDateTime = timezone.now().astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    item.ModifyingSystem = MODIFYING_SYSTEM
    item.SourceOfPreviousValues = ""
    item.ReasonForTheAttributeModification = CORRECT
    item.ModifiedAttributesSequence = [Dataset.from_json(original)]
    content: dict[str, Any] = item.to_json_dict()
    return content


def _index(study: Study) -> None:
    """Bring the study's columns, its patient and its referring physician in line with its corrected attributes."""
    now = Dataset.from_json(
        {t: e for t, e in {**study.attributes, **study.corrections}.items() if t in study.corrections}
    )
    texts = {
        "AccessionNumber": ("accession_number", 64),
        "StudyID": ("study_id", 64),
        "StudyDescription": ("study_description", 256),
        "InstitutionName": ("institution_name", 256),
    }
    for keyword, (column, longest) in texts.items():
        if keyword in now:
            setattr(study, column, _value(now, keyword)[:longest])
    if "StudyDate" in now:
        study.study_date = _date(now, "StudyDate")
    if "StudyTime" in now:
        value = TM(_value(now, "StudyTime") or None)
        study.study_time = time(value.hour, value.minute, value.second, value.microsecond) if value else None
    if "ReferringPhysicianName" in now:
        _move_to_physician(study, _value(now, "ReferringPhysicianName"))
    if any(keyword in now for keyword in PATIENT_KEYWORDS):
        _move_to_patient(study, now)
    study.save()


def _move_to_physician(study: Study, name: str) -> None:
    study.referring_physician, study.referring_physician_name = None, name
    name_search = identifying(name)
    if name_search:
        study.referring_physician, _ = ReferringPhysician.objects.get_or_create(
            site_id=study.site_id, name_search=name_search, defaults={"name": name}
        )
        remember_names([name_search])


def _move_to_patient(study: Study, now: Dataset) -> None:
    before = study.patient
    known = {column: getattr(before, column) for column in _PATIENT_COLUMNS}
    # The study's own words count, where the patient's row says something else.
    known["patient_id"], known["patient_name"] = study.patient_id_value, study.patient_name
    for keyword, column in (
        ("PatientID", "patient_id"),
        ("IssuerOfPatientID", "issuer_of_patient_id"),
        ("PatientName", "patient_name"),
        ("PatientSex", "patient_sex"),
    ):
        if keyword in now:
            known[column] = _value(now, keyword)
    if "PatientBirthDate" in now:
        known["patient_birth_date"] = _date(now, "PatientBirthDate")
    identity = (
        f"{known['issuer_of_patient_id']}|{known['patient_id']}"
        if known["patient_id"]
        else f"study:{study.study_instance_uid}"
    )
    patient, is_new = Patient.objects.get_or_create(site_id=study.site_id, identity=identity, defaults=known)
    is_theirs_alone = patient.pk == before.pk and not patient.studies.exclude(pk=study.pk).exists()
    if not is_new and is_theirs_alone:
        Patient.objects.filter(pk=patient.pk).update(**known)
    study.patient = patient.merged_into or patient
    study.patient_id_value, study.patient_name = known["patient_id"], known["patient_name"]
    study.patient_name_search = searchable(known["patient_name"])
    remember_names([study.patient_name_search])


def _value(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value)


def _date(dataset: Dataset, keyword: str) -> date | None:
    value = DA(_value(dataset, keyword) or None)
    return date(value.year, value.month, value.day) if value else None
