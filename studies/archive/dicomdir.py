"""The directory of a file-set (PS3.3 Annex F, PS3.10 §8.6), made from the index, without reading the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    MediaStorageDirectoryStorage,
    RTDoseStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    generate_uid,
)

from studies.archive.writing import dataset_bytes, file_head
from studies.models import Instance, Study

IN_USE = 0xFFFF
UNICODE = "ISO_IR 192"
IMPLEMENTATION_CLASS_UID = UID("1.2.826.0.1.3680043.8.498.1")
SEQUENCE_HEAD = b"\x04\x00\x20\x12SQ\x00\x00"
ITEM_HEAD = b"\xfe\xff\x00\xe0"
_TYPES = {
    KeyObjectSelectionDocumentStorage: "KEY OBJECT DOC",
    EncapsulatedPDFStorage: "ENCAP DOC",
    RTDoseStorage: "RT DOSE",
    RTPlanStorage: "RT PLAN",
    RTStructureSetStorage: "RT STRUCTURE SET",
}
_TYPES_BY_NAME = (("SR ", "SR DOCUMENT"), ("Presentation State", "PRESENTATION"), ("Waveform", "WAVEFORM"))
_ALWAYS = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED"}
_KEYS = (
    *("ContentDate", "ContentTime", "ConceptNameCodeSequence", "CompletionFlag", "VerificationFlag", "ContentLabel"),
    *("ContentDescription", "ContentCreatorName", "DocumentTitle", "MIMETypeOfEncapsulatedDocument"),
)


@dataclass
class _Record:
    dataset: Dataset
    below: list[_Record] = field(default_factory=list)


class Directory:
    """A DICOMDIR that grows with each file added; instances of one series must come one after another."""

    def __init__(self, study: Study) -> None:
        attributes = Dataset.from_json({**study.attributes, **study.corrections})
        patient = _record("PATIENT", attributes, ("PatientName", "PatientID"))
        study_keys = ("StudyDate", "StudyTime", "AccessionNumber", "StudyDescription", "StudyInstanceUID", "StudyID")
        self._study = _Record(_record("STUDY", attributes, study_keys))
        self._study.dataset.StudyInstanceUID = study.study_instance_uid
        self._root = _Record(patient, [self._study])
        self._series_id: int | None = None

    def add(self, instance: Instance, syntax: str, file_id: list[str]) -> None:
        """Add a file, by its components' names, in the transfer syntax that it's written in."""
        series = instance.series
        if series.pk != self._series_id:
            record = _record("SERIES", Dataset(), ())
            record.Modality, record.SeriesInstanceUID = series.modality, series.series_instance_uid
            record.SeriesNumber = series.series_number
            self._study.below.append(_Record(record))
            self._series_id = series.pk
        kind = _TYPES.get(UID(instance.sop_class_uid)) or next(
            (k for part, k in _TYPES_BY_NAME if part in UID(instance.sop_class_uid).name), "IMAGE"
        )
        keys = _KEYS if kind != "IMAGE" else ()
        record = _record(kind, Dataset.from_json(instance.attributes), keys)
        record.ReferencedFileID = file_id
        record.ReferencedSOPClassUIDInFile = instance.sop_class_uid
        record.ReferencedSOPInstanceUIDInFile = instance.sop_instance_uid
        record.ReferencedTransferSyntaxUIDInFile = syntax
        record.InstanceNumber = instance.instance_number
        self._study.below[-1].below.append(_Record(record))

    def to_bytes(self) -> bytes:
        """Give the DICOMDIR file."""
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
        head = file_head(meta)
        front = Dataset()
        front.FileSetID = "ATRIUM"
        front.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
        front.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
        front.FileSetConsistencyFlag = 0
        start = len(head) + len(dataset_bytes(front, ExplicitVRLittleEndian)) + len(SEQUENCE_HEAD) + 4
        places: dict[int, int] = {}
        records = list(_walk(self._root))
        position = start
        for record in records:
            places[id(record)] = position
            # Offsets have a fixed size: the lengths hold once they're filled in.
            position += 8 + len(dataset_bytes(record.dataset, ExplicitVRLittleEndian))
        for record in records:
            siblings = record.below
            if siblings:
                record.dataset.OffsetOfReferencedLowerLevelDirectoryEntity = places[id(siblings[0])]
            for this, following in pairwise(siblings):
                this.dataset.OffsetOfTheNextDirectoryRecord = places[id(following)]
        front.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = start
        front.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = start
        items = []
        for record in records:
            content = dataset_bytes(record.dataset, ExplicitVRLittleEndian)
            items.append(ITEM_HEAD + len(content).to_bytes(4, "little") + content)
        body = b"".join(items)
        return (
            head + dataset_bytes(front, ExplicitVRLittleEndian) + SEQUENCE_HEAD + len(body).to_bytes(4, "little") + body
        )


def _walk(record: _Record) -> list[_Record]:
    return [record, *(inner for below in record.below for inner in _walk(below))]


def _record(kind: str, attributes: Dataset, keywords: tuple[str, ...]) -> Dataset:
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord = 0
    record.RecordInUseFlag = IN_USE
    record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.DirectoryRecordType = kind
    record.SpecificCharacterSet = UNICODE
    for keyword in keywords:
        value: Any = attributes.get(keyword, _ALWAYS.get(keyword) if kind == "SR DOCUMENT" else None)
        if value is not None or kind in {"PATIENT", "STUDY"}:
            setattr(record, keyword, value if value is not None else "")
    return record
