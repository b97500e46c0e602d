"""From a data set to the index's values."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.uid import UID

from studies.ingest.errors import CLASS_NOT_SUPPORTED, DATASET_DOES_NOT_MATCH, INVALID_INSTANCE, Refusal
from studies.ingest.part10 import Structure, read_beginning
from studies.ingest.values import Values, tags_of
from studies.matching.keywords import INSTANCE_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS
from studies.uids import is_uid

LARGEST_SMALL = (1 << 15) - 1

# Beside those that are found by: what tells how values are to be read, and the size of a frame.
_MORE_KEYWORDS = (
    *("SpecificCharacterSet", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"),
    *("NumberOfFrames", "Rows", "Columns", "BitsAllocated", "InstitutionName", "BodyPartExamined"),
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "InstanceNumber"),
)
_STUDY_TAGS, _SERIES_TAGS, _INSTANCE_TAGS = map(tags_of, (STUDY_KEYWORDS, SERIES_KEYWORDS, INSTANCE_KEYWORDS))
# What of a data set is read at all.
INDEXED = frozenset(_STUDY_TAGS + _SERIES_TAGS + _INSTANCE_TAGS + tags_of(_MORE_KEYWORDS))
_UID_TAGS = {
    keyword: tags_of([keyword])[0]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
}
_NAMING = frozenset(tags_of(["SOPClassUID", "SOPInstanceUID"]))


class Attributes:
    """An instance's identity and what its patient, study, series and instance are indexed by.

    Patient, study and series are read from the data set only when asked for: of a series' hundreds of instances, the
    first makes their rows. Raises Refusal when the data set lacks or mangles what identifies it.
    """

    def __init__(self, structure: Structure) -> None:
        self._media_storage = structure.media_storage
        elements = structure.wanted
        self._values = values = Values(elements)
        self.study_instance_uid = _uid(elements, "StudyInstanceUID")
        self.series_instance_uid = _uid(elements, "SeriesInstanceUID")
        self.sop_instance_uid = _uid(elements, "SOPInstanceUID", INVALID_INSTANCE)
        self.sop_class_uid = _uid(elements, "SOPClassUID")
        if not _is_stored(self.sop_class_uid):
            raise Refusal("Instances of this SOP class aren't stored.", CLASS_NOT_SUPPORTED)
        self.announced_frames = max(values.integer("NumberOfFrames") or 1, 1)
        self._rows, self._columns, self._bits = (values.count(k) for k in ("Rows", "Columns", "BitsAllocated"))

    @cached_property
    def frame_bits(self) -> int:
        """Give the length of a native frame in bits (PS3.5 §8.1.1); 0 where the data set doesn't describe one."""
        pixels = (self._rows or 0) * (self._columns or 0) * (self._values.count("SamplesPerPixel") or 1)
        is_subsampled = self._values.text("PhotometricInterpretation", 16) == "YBR_FULL_422"
        bits = pixels * (self._bits or 0)
        return bits * 2 // 3 if is_subsampled else bits

    @cached_property
    def patient(self) -> dict[str, Any]:
        """Give the patient's values."""
        return {
            "patient_id": self._values.text("PatientID", 64),
            "issuer_of_patient_id": self._values.text("IssuerOfPatientID", 64),
            "patient_name": self._values.text("PatientName", 324),
            "patient_birth_date": self._values.date("PatientBirthDate"),
            "patient_sex": self._values.text("PatientSex", 16),
        }

    @cached_property
    def study(self) -> dict[str, Any]:
        """Give the study's values."""
        return {
            "study_date": self._values.date("StudyDate"),
            "study_time": self._values.time("StudyTime"),
            "accession_number": self._values.text("AccessionNumber", 64),
            "study_id": self._values.text("StudyID", 64),
            "study_description": self._values.text("StudyDescription", 256),
            "institution_name": self._values.text("InstitutionName", 256),
            "attributes": self._values.json(_STUDY_TAGS),
        }

    @cached_property
    def series(self) -> dict[str, Any]:
        """Give the series' values."""
        return {
            "modality": self._values.text("Modality", 16),
            "series_number": self._values.integer("SeriesNumber"),
            "series_description": self._values.text("SeriesDescription", 256),
            "body_part_examined": self._values.text("BodyPartExamined", 32),
            "attributes": self._values.json(_SERIES_TAGS),
        }

    @cached_property
    def instance(self) -> dict[str, Any]:
        """Give the instance's values."""
        return {
            "instance_number": self._values.integer("InstanceNumber"),
            "rows": self._rows,
            "columns": self._columns,
            "bits_allocated": self._bits if self._bits is not None and self._bits <= LARGEST_SMALL else None,
            "attributes": self._values.json(_INSTANCE_TAGS),
        }

    @property
    def matches_file_meta(self) -> bool:
        """Say whether the file meta information names the same instance and class (PS3.10 §7.1)."""
        mine = (self.sop_class_uid, self.sop_instance_uid)
        return all(name in {"", uid} for name, uid in zip(self._media_storage, mine, strict=True))

    @property
    def referring_physician_name(self) -> str:
        """Give the referring physician's name as received."""
        return self._values.text("ReferringPhysicianName", 324)


def sop_uids(beginning: bytes) -> tuple[str, str]:
    """Give SOP Class and Instance UID of a file that can't be taken; empty where there's none or it isn't valid."""
    elements = read_beginning(beginning, _NAMING)
    sop_class_uid, sop_instance_uid = (_uid_text(elements, keyword) for keyword in ("SOPClassUID", "SOPInstanceUID"))
    return sop_class_uid if is_uid(sop_class_uid) else "", sop_instance_uid if is_uid(sop_instance_uid) else ""


def _uid_text(elements: dict[int, RawDataElement], keyword: str) -> str:
    element = elements.get(_UID_TAGS[keyword])
    # Digits and dots in whatever encoding: pydicom takes ten times longer to make the same text of them.
    return (element.value or b"").decode("ascii", "replace").replace("\x00", "").strip() if element else ""


def _uid(elements: dict[int, RawDataElement], keyword: str, status: int = DATASET_DOES_NOT_MATCH) -> str:
    value = _uid_text(elements, keyword)
    if not value:
        raise Refusal(f"The data set has no {keyword}.", DATASET_DOES_NOT_MATCH)
    # It becomes a part of an object key: digits and dots only, so that it can't be a path.
    if not is_uid(value):
        raise Refusal(f"{keyword} is no valid UID.", status)
    return value


def _is_stored(sop_class_uid: str) -> bool:
    """Say whether a class is for storage: all are, private ones too, but those known to be another service's."""
    known = UID(sop_class_uid)
    return known.is_private or not known.type or (known.type == "SOP Class" and "Storage" in known.name)
