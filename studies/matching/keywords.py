"""Which attributes belong to which level, and which of them each level is indexed by (PS3.4 §C.6, PS3.18 §10.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword

from studies.matching.errors import UnknownAttribute


class Level(IntEnum):
    """Levels of the information model, from the widest to the narrowest."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    INSTANCE = 3


# What of a received data set is kept beside each row as DICOM JSON, found and returned.
PATIENT_KEYWORDS = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "PatientSpeciesDescription",
    "PatientBreedDescription",
    "ResponsiblePerson",
    "EthnicGroup",
    "PatientComments",
)
STUDY_KEYWORDS = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    *PATIENT_KEYWORDS,
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "Occupation",
    "AdditionalPatientHistory",
    "StudyInstanceUID",
    "StudyID",
    "StudyDescription",
    "ProcedureCodeSequence",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord",
    "AdmittingDiagnosesDescription",
    "AdmissionID",
    "InstitutionName",
)
SERIES_KEYWORDS = (
    "TimezoneOffsetFromUTC",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "SeriesDescriptionCodeSequence",
    "SeriesDate",
    "SeriesTime",
    "Laterality",
    "BodyPartExamined",
    "PatientPosition",
    "ProtocolName",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepID",
    "PerformedProcedureStepDescription",
    "PerformedProtocolCodeSequence",
    "RequestAttributesSequence",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "PerformingPhysicianName",
    "OperatorsName",
    "FrameOfReferenceUID",
)
INSTANCE_KEYWORDS = (
    "TimezoneOffsetFromUTC",
    "ImageType",
    "ContentDate",
    "ContentTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "AcquisitionNumber",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "ContentLabel",
    "ContentDescription",
    "ContentCreatorName",
    "CompletionFlag",
    "VerificationFlag",
    "DocumentTitle",
    "MIMETypeOfEncapsulatedDocument",
)

# What is counted or known about a row rather than read from a data set.
COMPUTED_KEYWORDS: dict[Level, tuple[str, ...]] = {
    Level.PATIENT: (
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries",
        "NumberOfPatientRelatedInstances",
    ),
    Level.STUDY: (
        "ModalitiesInStudy",
        "SOPClassesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "InstanceAvailability",
    ),
    Level.SERIES: ("NumberOfSeriesRelatedInstances",),
    Level.INSTANCE: (
        "SOPClassUID",
        "SOPInstanceUID",
        "InstanceNumber",
        "Rows",
        "Columns",
        "BitsAllocated",
        "NumberOfFrames",
        "AvailableTransferSyntaxUID",
    ),
}


def tag_of(keyword: str) -> str:
    """Give the tag of a keyword as DICOM JSON writes it: ``"00100010"``."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise UnknownAttribute(f"«{keyword[:60]}» is no attribute.")
    return f"{tag:08X}"


def tags_of(keywords: Iterable[str]) -> frozenset[str]:
    """Give the tags of keywords."""
    return frozenset(tag_of(keyword) for keyword in keywords)


_MATCHED_EACH = {"AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"}


def vr_of(keyword: str) -> str:
    """Give the value representation of a keyword, the first of several (PS3.6)."""
    tag = tag_for_keyword(keyword)
    return str(dictionary_VR(tag)).split(" ")[0] if tag is not None else "UN"


def has_several_values(keyword: str) -> bool:
    """Say whether an attribute may have several values that are each matched (PS3.6, PS3.4 §C.2.2.2.8)."""
    tag = tag_for_keyword(keyword)
    return tag is not None and dictionary_VM(tag) != "1" and vr_of(keyword) in _MATCHED_EACH


def keyword_of(name: str) -> str:
    """Give the keyword for a keyword or tag (``"PatientID"``, ``"00100020"``). Raises UnknownAttribute."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        keyword: str = keyword_for_tag(int(name, 16))
        if keyword and not name.upper().startswith("FFFE"):
            return keyword
    # The dictionary has what stands between items under an empty keyword.
    elif name and name.isascii() and tag_for_keyword(name) is not None:
        return name
    raise UnknownAttribute(f"«{name[:60]}» is no attribute.")


def path_of(name: str) -> tuple[str, ...]:
    """Give the keywords of an attribute path, each but the last a sequence (PS3.18 §8.3.4.1). Raises UnknownAttribute.

    ``"00400275.00400009"`` and ``"RequestAttributesSequence.ScheduledProcedureStepID"`` give the same.
    """
    path = tuple(keyword_of(part) for part in name.split("."))
    if len(path) > 6 or any(vr_of(keyword) != "SQ" for keyword in path[:-1]):
        raise UnknownAttribute(f"«{name[:60]}» is no attribute.")
    return path


_LEVELS = {
    **dict.fromkeys((*INSTANCE_KEYWORDS, *COMPUTED_KEYWORDS[Level.INSTANCE]), Level.INSTANCE),
    **dict.fromkeys((*SERIES_KEYWORDS, *COMPUTED_KEYWORDS[Level.SERIES]), Level.SERIES),
    **dict.fromkeys((*STUDY_KEYWORDS, *COMPUTED_KEYWORDS[Level.STUDY]), Level.STUDY),
    **dict.fromkeys((*PATIENT_KEYWORDS, *COMPUTED_KEYWORDS[Level.PATIENT]), Level.PATIENT),
}


def level_of(keyword: str) -> Level | None:
    """Give the level that an attribute belongs to; None for one that the index doesn't know."""
    return _LEVELS.get(keyword)


def tags_at(level: Level) -> frozenset[str]:
    """Give all tags that a row of the level can return."""
    kept = {
        Level.PATIENT: PATIENT_KEYWORDS,
        Level.STUDY: STUDY_KEYWORDS,
        Level.SERIES: SERIES_KEYWORDS,
        Level.INSTANCE: INSTANCE_KEYWORDS,
    }[level]
    return tags_of((*kept, *COMPUTED_KEYWORDS[level]))
