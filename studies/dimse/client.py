"""What every node can be asked, whatever protocol it speaks; clients.client_of gives the one that does."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydicom import Dataset

from studies.dimse.outgoing import Outgoing


@dataclass(frozen=True)
class Query:
    """What a remote archive is asked for; empty fields aren't asked for. ``*`` and ``?`` are wildcards."""

    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""
    study_instance_uid: str = ""

    def as_keywords(self) -> dict[str, str]:
        """Give the matching keys by keyword, the empty ones left out."""
        keys = {
            "PatientID": self.patient_id,
            "PatientName": self.patient_name,
            "AccessionNumber": self.accession_number,
            "StudyDate": self.study_date,
            "ModalitiesInStudy": self.modality,
            "StudyInstanceUID": self.study_instance_uid,
        }
        return {keyword: value for keyword, value in keys.items() if value}


RETURNED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
    "NumberOfStudyRelatedSeries",
    "ReferringPhysicianName",
)


@dataclass(frozen=True)
class FoundStudy:
    """A study that a node says it has."""

    study_instance_uid: str
    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_description: str = ""
    accession_number: str = ""
    modalities: list[str] = field(default_factory=list)
    number_of_instances: int | None = None

    @property
    def shown_date(self) -> str:
        """Give the date as 2026-09-01; what is no DA, as it came."""
        text = self.study_date.replace(".", "")
        return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 and text.isdigit() else self.study_date

    @classmethod
    def of(cls, dataset: Dataset) -> FoundStudy:
        """Read an answer; what a node leaves out or mangles stays empty."""
        count = _text(dataset, "NumberOfStudyRelatedInstances")
        return cls(
            study_instance_uid=_text(dataset, "StudyInstanceUID"),
            patient_id=_text(dataset, "PatientID"),
            patient_name=_text(dataset, "PatientName"),
            patient_birth_date=_text(dataset, "PatientBirthDate"),
            patient_sex=_text(dataset, "PatientSex"),
            study_date=_text(dataset, "StudyDate"),
            study_description=_text(dataset, "StudyDescription"),
            accession_number=_text(dataset, "AccessionNumber"),
            modalities=[m for m in _text(dataset, "ModalitiesInStudy").split("\\") if m],
            number_of_instances=int(count) if count.isdigit() else None,
        )


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
        return "\\".join(str(one) for one in value)
    return str(value).strip()


@dataclass(frozen=True)
class Stored:
    """What a node said to one instance. ``error`` is empty when it has it."""

    outgoing: Outgoing
    error: str = ""
    sent_bytes: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a retrieval is; ``total`` is None while nobody knows."""

    completed: int
    failed: int
    total: int | None


# Takes a received Part 10 file, staged, and says whether it's in: an empty text, or why not.
Receiver = Callable[[Path], str]


class NodeClient(Protocol):
    """A node as we call it. Every method raises NodeUnavailable and NodeRefuses."""

    def find(self, query: Query, *, at_most: int) -> list[FoundStudy]:
        """Give the studies that match, at most so many."""
        ...

    def store(self, outgoing: Sequence[Outgoing]) -> Generator[Stored, None, None]:
        """Send the instances in order and give what the node said to each as soon as it's said."""
        ...

    def retrieve(
        self, study_instance_uid: str, series_instance_uid: str, receive: Receiver, *, known: set[str]
    ) -> Generator[Progress, None, None]:
        """Fetch a study, or one series of it, and give how far it is. ``known`` instances needn't come again."""
        ...
