"""From a data set to the index's values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from functools import cached_property
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from studies.ingest.errors import CLASS_NOT_SUPPORTED, DATASET_DOES_NOT_MATCH, INVALID_INSTANCE, Refusal
from studies.ingest.part10 import LONGEST_UID, UID_FORM, Structure
from studies.matching.keywords import INSTANCE_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS

LARGEST_SMALL, LARGEST_COUNT = (1 << 15) - 1, (1 << 31) - 1

# Beside those that are found by: what tells how values are to be read, and the size of a frame.
_MORE_KEYWORDS = (
    *("SpecificCharacterSet", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"),
    *("NumberOfFrames", "Rows", "Columns", "BitsAllocated", "InstitutionName", "BodyPartExamined"),
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "InstanceNumber"),
)


def _tags(keywords: tuple[str, ...]) -> list[int]:
    return sorted({tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None})


_STUDY_TAGS, _SERIES_TAGS, _INSTANCE_TAGS = (
    _tags(keywords) for keywords in (STUDY_KEYWORDS, SERIES_KEYWORDS, INSTANCE_KEYWORDS)
)
# What of a data set is read at all.
INDEXED = frozenset(_STUDY_TAGS + _SERIES_TAGS + _INSTANCE_TAGS + _tags(_MORE_KEYWORDS))


Elements = Mapping[BaseTag, RawDataElement]
_TAG_OF = {
    keyword: Tag(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
}


class Attributes:
    """An instance's identity and what its patient, study, series and instance are indexed by.

    Patient, study and series are read from the data set only when asked for: of a series' hundreds of instances, the
    first makes their rows. Raises Refusal when the data set lacks or mangles what identifies it.
    """

    def __init__(self, structure: Structure) -> None:
        self._media_storage = structure.media_storage
        elements = structure.wanted
        self._dataset = dataset = Dataset(elements)
        self.study_instance_uid = _uid(elements, "StudyInstanceUID")
        self.series_instance_uid = _uid(elements, "SeriesInstanceUID")
        self.sop_instance_uid = _uid(elements, "SOPInstanceUID", INVALID_INSTANCE)
        self.sop_class_uid = _uid(elements, "SOPClassUID")
        if not _is_stored(self.sop_class_uid):
            raise Refusal("Instances of this SOP class aren't stored.", CLASS_NOT_SUPPORTED)
        self.announced_frames = max(_integer(dataset, "NumberOfFrames") or 1, 1)
        self._rows, self._columns, self._bits = (_count(dataset, k) for k in ("Rows", "Columns", "BitsAllocated"))

    @cached_property
    def frame_bits(self) -> int:
        """Give the length of a native frame in bits (PS3.5 §8.1.1); 0 where the data set doesn't describe one."""
        pixels = (self._rows or 0) * (self._columns or 0) * (_count(self._dataset, "SamplesPerPixel") or 1)
        is_subsampled = _text(self._dataset, "PhotometricInterpretation", 16) == "YBR_FULL_422"
        bits = pixels * (self._bits or 0)
        return bits * 2 // 3 if is_subsampled else bits

    @cached_property
    def patient(self) -> dict[str, Any]:
        """Give the patient's values."""
        return {
            "patient_id": _text(self._dataset, "PatientID", 64),
            "issuer_of_patient_id": _text(self._dataset, "IssuerOfPatientID", 64),
            "patient_name": _text(self._dataset, "PatientName", 324),
            "patient_birth_date": _date(self._dataset, "PatientBirthDate"),
            "patient_sex": _text(self._dataset, "PatientSex", 16),
        }

    @cached_property
    def study(self) -> dict[str, Any]:
        """Give the study's values."""
        return {
            "study_date": _date(self._dataset, "StudyDate"),
            "study_time": _time(self._dataset, "StudyTime"),
            "accession_number": _text(self._dataset, "AccessionNumber", 64),
            "study_id": _text(self._dataset, "StudyID", 64),
            "study_description": _text(self._dataset, "StudyDescription", 256),
            "institution_name": _text(self._dataset, "InstitutionName", 256),
            "attributes": _json(self._dataset, _STUDY_TAGS),
        }

    @cached_property
    def series(self) -> dict[str, Any]:
        """Give the series' values."""
        return {
            "modality": _text(self._dataset, "Modality", 16),
            "series_number": _integer(self._dataset, "SeriesNumber"),
            "series_description": _text(self._dataset, "SeriesDescription", 256),
            "body_part_examined": _text(self._dataset, "BodyPartExamined", 32),
            "attributes": _json(self._dataset, _SERIES_TAGS),
        }

    @cached_property
    def instance(self) -> dict[str, Any]:
        """Give the instance's values."""
        return {
            "instance_number": _integer(self._dataset, "InstanceNumber"),
            "rows": self._rows,
            "columns": self._columns,
            "bits_allocated": self._bits if self._bits is not None and self._bits <= LARGEST_SMALL else None,
            "attributes": _json(self._dataset, _INSTANCE_TAGS),
        }

    @property
    def matches_file_meta(self) -> bool:
        """Say whether the file meta information names the same instance and class (PS3.10 §7.1)."""
        mine = (self.sop_class_uid, self.sop_instance_uid)
        return all(name in {"", uid} for name, uid in zip(self._media_storage, mine, strict=True))

    @property
    def referring_physician_name(self) -> str:
        """Give the referring physician's name as received."""
        return _text(self._dataset, "ReferringPhysicianName", 324)


def _uid(elements: Elements, keyword: str, status: int = DATASET_DOES_NOT_MATCH) -> str:
    element = elements.get(_TAG_OF[keyword])
    # Digits and dots in whatever encoding: pydicom takes ten times longer to make the same text of them.
    value = (element.value or b"").decode("ascii", "replace").replace("\x00", "").strip() if element else ""
    if not value:
        raise Refusal(f"The data set has no {keyword}.", DATASET_DOES_NOT_MATCH)
    # It becomes a part of an object key: digits and dots only, so that it can't be a path.
    if len(value) > LONGEST_UID or not UID_FORM.fullmatch(value):
        raise Refusal(f"{keyword} is no valid UID.", status)
    return value


def _is_stored(sop_class_uid: str) -> bool:
    """Say whether a class is for storage: all are, private ones too, but those known to be another service's."""
    known = UID(sop_class_uid)
    return known.is_private or not known.type or (known.type == "SOP Class" and "Storage" in known.name)


def _text(dataset: Dataset, keyword: str, longest: int) -> str:
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises what it will on hostile values
        return ""
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
        value = "\\".join(str(v) for v in value)
    text = str(value).replace("\x00", "").strip()
    return text.encode("utf-8", "replace").decode()[:longest]


def _first(dataset: Dataset, keyword: str) -> str:
    return _text(dataset, keyword, 1000).split("\\", 1)[0]


def _integer(dataset: Dataset, keyword: str) -> int | None:
    try:
        value = int(float(_first(dataset, keyword)))
    except (ValueError, OverflowError):
        return None
    return value if -(2**62) < value < 2**62 else None


def _count(dataset: Dataset, keyword: str) -> int | None:
    value = _integer(dataset, keyword)
    return value if value is not None and 0 <= value <= LARGEST_COUNT else None


def _date(dataset: Dataset, keyword: str) -> date | None:
    try:
        value = DA(_first(dataset, keyword).replace(".", ""))
    except ValueError:
        return None
    return date(value.year, value.month, value.day) if value else None


def _time(dataset: Dataset, keyword: str) -> time | None:
    try:
        value = TM(_first(dataset, keyword).replace(":", ""))
    except ValueError:
        return None
    return time(value.hour, value.minute, min(value.second, 59), value.microsecond) if value else None


def _json(dataset: Dataset, tags: list[int]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for tag in tags:
        if tag not in dataset:
            continue
        try:
            content[f"{tag:08X}"] = _without_nul(dataset[Tag(tag)].to_json_dict(None, 1 << 30))
        except Exception:  # noqa: S112  an element that its VR doesn't allow is left out; the original keeps it
            continue
    return content


def _without_nul(value: Any) -> Any:
    """PostgreSQL's JSON can hold neither NUL nor lone surrogates."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value if value == value and value not in {float("inf"), float("-inf")} else None
