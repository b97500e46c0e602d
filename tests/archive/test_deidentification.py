"""What leaves de-identified tells nobody who the patient is, and still fits together at its destination."""

from __future__ import annotations

from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage, generate_uid

from studies.archive.deidentification import Deidentifier, NotDeidentifiable, Profile
from tests.factories import make_instance

NAME, NUMBER = "Geheimnis", "4711-0815"


def instance(**keywords: Any) -> FileDataset:
    return pydicom.dcmread(BytesIO(make_instance(**{"PatientName": f"{NAME}^Eva", "PatientID": NUMBER, **keywords})))


def deidentified(dataset: FileDataset, destination: str = "RESEARCH", **options: bool) -> FileDataset:
    return Deidentifier(destination, Profile(**options)).apply(dataset)


def written(dataset: FileDataset) -> bytes:
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def item(**keywords: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in keywords.items():
        setattr(dataset, keyword, value)
    return dataset


def test_neither_name_nor_number_is_left_anywhere_in_the_bytes() -> None:
    dataset = instance(
        OtherPatientNames=f"{NAME}^E",
        PatientComments=f"called {NAME}",
        StudyDescription=f"CT of {NAME}",
        RequestAttributesSequence=[item(ScheduledProcedureStepDescription=f"for {NAME}", RequestedProcedureID=NUMBER)],
        ReferencedImageSequence=[item(PersonName=f"{NAME}^E", ReferencedSOPInstanceUID=generate_uid())],
        ReferencedPatientSequence=[item(PatientID=NUMBER)],
    )
    dataset.private_block(0x0011, NAME, create=True).add_new(0x01, "LO", f"{NAME} {NUMBER}")
    dataset.add_new(0x60003000, "OW", NAME.encode() + b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = NAME
    bytes_left = written(deidentified(dataset))
    assert NAME.encode() not in bytes_left
    assert NUMBER.encode() not in bytes_left


def test_it_says_what_was_done() -> None:
    dataset = deidentified(instance(), retain_device=True, clean_descriptors=True)
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.DeidentificationMethod
    assert [i.CodeValue for i in dataset.DeidentificationMethodCodeSequence] == ["113100", "113105", "113109"]
    assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


def test_two_instances_of_a_study_still_belong_together_and_references_still_fit() -> None:
    study, series = generate_uid(), generate_uid()
    first = instance(StudyInstanceUID=study, SeriesInstanceUID=series)
    second = instance(
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        ReferencedImageSequence=[
            item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=first.SOPInstanceUID)
        ],
    )
    a, b = deidentified(first), deidentified(second)
    assert a.StudyInstanceUID == b.StudyInstanceUID != study
    assert a.SeriesInstanceUID == b.SeriesInstanceUID
    assert b.ReferencedImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
    assert b.ReferencedImageSequence[0].ReferencedSOPClassUID == CTImageStorage
    assert a.PatientID == b.PatientID


def test_two_destinations_cannot_put_their_copies_together() -> None:
    study = generate_uid()
    here, there = (deidentified(instance(StudyInstanceUID=study), d) for d in ("RESEARCH", "COMPANY"))
    assert here.PatientID != there.PatientID
    assert here.StudyInstanceUID != there.StudyInstanceUID


def test_modified_dates_keep_their_distances() -> None:
    first = deidentified(instance(StudyDate="20260901", SeriesDate="20260903"), retain_modified_dates=True)
    later = deidentified(instance(StudyDate="20261001"), retain_modified_dates=True)
    assert first.StudyDate != "20260901"
    days = [date.fromisoformat(d) for d in (first.StudyDate, first.SeriesDate, later.StudyDate)]
    assert [(d - days[0]).days for d in days] == [0, 2, 30]
    assert first.StudyTime == "101500"
    assert not first.PatientBirthDate
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"


def test_options_keep_what_they_name_and_no_more() -> None:
    kept = {"StationName": "CT1", "InstitutionName": "North", "PatientAge": "056Y"}
    plain = deidentified(instance(**kept))
    assert (plain.StationName, plain.InstitutionName, plain.get("PatientAge")) == ("ANONYMIZED", "ANONYMIZED", None)
    assert deidentified(instance(**kept), retain_device=True).StationName == "CT1"
    assert deidentified(instance(**kept), retain_institution=True).InstitutionName == "North"
    characteristics = deidentified(instance(**kept), retain_patient_characteristics=True)
    assert (characteristics.PatientAge, characteristics.PatientSex) == ("056Y", "F")
    original = instance()
    uids = (original.StudyInstanceUID, original.SOPInstanceUID)
    same = deidentified(original, retain_uids=True)
    assert (same.StudyInstanceUID, same.SOPInstanceUID) == uids


def test_cleaned_descriptions_lose_names_and_dates_but_keep_their_sense() -> None:
    dataset = instance(StudyDescription=f"CT thorax {NAME.lower()} 12.03.1970 77712345 contrast")
    assert deidentified(dataset, clean_descriptors=True).StudyDescription == "CT thorax contrast"


def test_private_elements_stay_only_where_known_as_safe_and_asked_for() -> None:
    def with_private() -> FileDataset:
        dataset = instance(Modality="MR")
        dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "1000")
        dataset.private_block(0x0019, "SIEMENS MR HEADER").add_new(0x60, "LO", NAME)
        return dataset

    assert not [e for e in deidentified(with_private()) if e.tag.is_private]
    safe = deidentified(with_private(), retain_safe_private=True)
    assert safe.private_block(0x0019, "SIEMENS MR HEADER")[0x0C].value == 1000
    assert NAME.encode() not in written(safe)


@pytest.mark.parametrize(
    ("keywords", "may_go"),
    [
        ({"Modality": "CT"}, True),
        ({"Modality": "CT", "BurnedInAnnotation": "YES"}, False),
        ({"Modality": "US"}, False),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, True),
        ({"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage}, False),
        ({"Modality": "CT", "SOPClassUID": SecondaryCaptureImageStorage}, False),
    ],
)
def test_images_that_may_show_a_name_stay_unless_allowed(keywords: dict[str, str], may_go: bool) -> None:
    if may_go:
        deidentified(instance(**keywords))
    else:
        with pytest.raises(NotDeidentifiable):
            deidentified(instance(**keywords))
    assert deidentified(instance(**keywords), allow_burned_in=True).PatientIdentityRemoved == "YES"


def test_reports_and_documents_never_go_even_where_burned_in_text_is_allowed() -> None:
    for keywords in ({"Modality": "SR"}, {"EncapsulatedDocument": b"%PDF"}, {"Modality": "PR"}):
        with pytest.raises(NotDeidentifiable):
            deidentified(instance(**keywords), allow_burned_in=True)


def test_no_attribute_of_the_table_keeps_its_value_on_real_files(shared: Path) -> None:
    table = dicom_anonymization_database_selector("dicomfields_2026c")
    tags = {t[0] << 16 | t[1] for t in table["ALL_TAGS"] if len(t) == 2}
    tried = 0
    for path in sorted((shared / "dicom").rglob("*.dcm")):
        if "malformed" in path.parts:
            continue
        dataset = pydicom.dcmread(path)
        before = {int(e.tag): e.value for e in dataset if int(e.tag) in tags and e.VR != "SQ" and e.value}
        try:
            after = deidentified(dataset, allow_burned_in=True)
        except NotDeidentifiable:
            continue
        same = {t for t, v in before.items() if t in after and after[t].value == v and v not in ("O", 0, "000000")}
        assert same == set(), path.name
        again = pydicom.dcmread(BytesIO(written(after)))
        assert again.get("PixelData") == dataset.get("PixelData")
        tried += 1
    assert tried > 40


@given(st.text(min_size=1, max_size=64), st.text(max_size=10))
def test_pseudonyms_are_steady_and_valid(patient_id: str, issuer: str) -> None:
    one = Deidentifier("A", Profile()).patient_id(patient_id, issuer)
    assert one == Deidentifier("A", Profile()).patient_id(patient_id, issuer)
    assert len(one) == 11
    assert one.isalnum()


@given(st.lists(st.integers(0, 2**31), min_size=3, max_size=6))
def test_uids_are_valid_and_well_known_ones_stay(parts: list[int]) -> None:
    original = "1.3." + ".".join(map(str, parts))
    made = pydicom.uid.UID(Deidentifier("A", Profile()).uid(original))
    assert made.is_valid
    assert made != original
    assert Deidentifier("A", Profile()).uid(CTImageStorage) == CTImageStorage


def test_sequences_that_the_profile_empties_are_empty() -> None:
    dataset = instance(ReferencedStudySequence=Sequence([item(ReferencedSOPInstanceUID=generate_uid())]))
    assert len(deidentified(dataset).ReferencedStudySequence) == 0
