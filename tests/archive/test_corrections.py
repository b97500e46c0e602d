"""Corrections: what leaves is corrected and says so; what was received stays."""

from __future__ import annotations

import subprocess
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless

from portal.audit.models import AuditEvent
from studies.archive import objects
from studies.archive.corrections import correct_study
from studies.archive.errors import NotCorrectable
from studies.archive.models import Correction
from studies.archive.transcoding import transcoded_file
from studies.models import DomainEvent, Instance, Patient, Study
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
Correct = Callable[..., Correction]


@pytest.fixture
def correct(people: Any) -> Correct:
    def correct_it(**attributes: Any) -> Correction:
        return correct_study(
            study=Study.objects.get(),
            attributes=attributes,
            reason="Wrong patient chosen at the scanner",
            principal=principal_of(people["technologist"]),
        )

    return correct_it


def leaving(**how: Any) -> Dataset:
    instance = Instance.objects.select_related("series__study").get()
    return pydicom.dcmread(BytesIO(b"".join(objects.stream_instance(instance, **how))))


def test_what_leaves_is_corrected_and_holds_the_original(north: Any, ingest_files: Any, correct: Correct) -> None:
    content = make_instance()
    ingest_files(north, content)
    correct(PatientName="Müller^Eva", PatientID="P2", AccessionNumber="A2")
    dataset = leaving()
    assert (dataset.PatientName, dataset.PatientID, dataset.AccessionNumber) == ("Müller^Eva", "P2", "A2")
    (item,) = dataset.OriginalAttributesSequence
    assert item.ReasonForTheAttributeModification == "CORRECT"
    assert item.ModifiedAttributesSequence[0].PatientName == "Doe^Jane"
    assert item.ModifiedAttributesSequence[0].AccessionNumber == "A1"
    assert np.array_equal(dataset.pixel_array, pydicom.dcmread(BytesIO(content)).pixel_array)
    instance = Instance.objects.select_related("series__study").get()
    assert b"".join(objects.stream_instance(instance, original=True)) == content
    assert pydicom.dcmread(BytesIO(b"".join(transcoded_file(instance, JPEG2000Lossless)))).PatientID == "P2"


def test_index_search_and_metadata_follow(
    north: Any, ingest_files: Any, correct: Correct, client_of: Callable[[str], Client]
) -> None:
    ingest_files(north, make_instance())
    browser = client_of("radiologist")
    instance = Instance.objects.select_related("series__study").get()
    series = (
        f"/dicom-web/studies/{instance.series.study.study_instance_uid}/series/{instance.series.series_instance_uid}"
    )
    before = browser.get(f"{series}/metadata")
    correct(PatientName="Berg^Ole", PatientID="P7", PatientBirthDate="19610305", StudyDate="20260101")
    study = Study.objects.select_related("patient").get()
    assert (study.patient_name, study.patient_id_value, str(study.study_date)) == ("Berg^Ole", "P7", "2026-01-01")
    assert (study.patient.patient_id, str(study.patient.patient_birth_date)) == ("P7", "1961-03-05")
    assert study.patient_name_search == "BERG^OLE"
    after = browser.get(f"{series}/metadata")
    assert after["ETag"] != before["ETag"]
    assert after.json()[0]["00100010"]["Value"] == [{"Alphabetic": "Berg^Ole"}]
    assert "04000561" in after.json()[0]
    assert len(browser.get("/dicom-web/studies?PatientID=P7").json()) == 1
    assert not browser.get("/dicom-web/studies?PatientID=P1").content
    assert DomainEvent.objects.filter(name="study.corrected").exists()


def test_a_study_moves_to_the_patient_that_the_site_knows(north: Any, ingest_files: Any, correct: Correct) -> None:
    ingest_files(north, make_instance())
    known = Patient.objects.create(site=north, identity="|P9", patient_id="P9", patient_name="Known^Name")
    correct(PatientID="P9", PatientName="Known^Name")
    assert Study.objects.get().patient == known


def test_a_second_correction_adds_to_the_history(north: Any, ingest_files: Any, correct: Correct) -> None:
    ingest_files(north, make_instance())
    correct(PatientName="Second^Name")
    correct(PatientName="Third^Name", StudyDescription="CT chest")
    items = leaving().OriginalAttributesSequence
    assert [i.ModifiedAttributesSequence[0].PatientName for i in items] == ["Doe^Jane", "Second^Name"]
    assert items[1].ModifiedAttributesSequence[0].StudyDescription == "CT thorax"
    assert Correction.objects.count() == 2


def test_each_instance_keeps_its_own_original(north: Any, ingest_files: Any, correct: Correct) -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    ingest_files(north, make_instance(**uids), make_instance(**uids, PatientName="DOE^J", InstanceNumber=2))
    correct(PatientName="Third^Name")
    last = Instance.objects.select_related("series__study").get(instance_number=2)
    item = objects.read_dataset(last).OriginalAttributesSequence[0]
    assert item.ModifiedAttributesSequence[0].PatientName == "DOE^J"


def test_the_trail_names_attributes_and_no_values(north: Any, ingest_files: Any, correct: Correct) -> None:
    ingest_files(north, make_instance())
    made = correct(PatientName="Berg^Ole")
    event = AuditEvent.objects.filter(action="change").latest("sequence")
    assert event.details["attributes"] == ["PatientName"]
    assert event.username == "technologist"
    assert made.original["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]


@pytest.mark.parametrize(
    "attributes",
    [{}, {"StudyInstanceUID": "1.2"}, {"PatientBirthDate": "yesterday"}, {"PatientID": "x" * 65}, {"Rows": 3}],
    ids=str,
)
def test_what_isnt_correctable_changes_nothing(
    attributes: dict[str, Any], north: Any, ingest_files: Any, correct: Correct
) -> None:
    ingest_files(north, make_instance())
    with pytest.raises(NotCorrectable):
        correct(**attributes)
    assert Study.objects.get().corrections == {}
    assert not Correction.objects.exists()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "MR_small_bigendian.dcm",
            "MR_small_implicit.dcm",
            "image_dfl.dcm",
            "MR_small_RLE.dcm",
            "examples_ybr_color.dcm",
        ),
        *(
            "test-SR.dcm",
            "priv_SQ.dcm",
            "JPEG2000.dcm",
            "liver_1frame.dcm",
            "chrH31.dcm",
            "color3d_jpeg_baseline.dcm",
        ),
    ],
)
def test_every_encoding_keeps_its_pixels_and_all_else(
    name: str, north: Any, ingest_files: Any, correct: Correct
) -> None:
    path = Path(str(pydicom.data.get_testdata_file(name) or pydicom.data.get_charset_files(name)[0]))
    (outcome,) = ingest_files(north, path)
    if not outcome.is_in:
        pytest.skip(outcome.reason)
    correct(PatientName="Ærø^Åse", PatientID="N1")
    dataset, source = leaving(), pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    assert dataset.PatientName == "Ærø^Åse"
    changed = {"PatientName", "PatientID", "SpecificCharacterSet", "OriginalAttributesSequence"}
    for element in source:
        if element.keyword in changed or element.tag.element == 0:
            continue
        assert dataset[element.tag].value == element.value, element.tag


@pytest.mark.skipif(which("dcmdump") is None, reason="dcmtk isn't installed")
def test_dcmtk_reads_a_corrected_file(north: Any, ingest_files: Any, correct: Correct, tmp_path: Path) -> None:
    ingest_files(north, make_instance())
    correct(PatientName="Berg^Ole")
    file = tmp_path / "corrected.dcm"
    file.write_bytes(b"".join(objects.stream_instance(Instance.objects.select_related("series__study").get())))
    shown = subprocess.run(["dcmdump", file], check=True, capture_output=True, text=True).stdout
    assert "[Berg^Ole]" in shown
    assert "OriginalAttributesSequence" in shown


def test_pixels_dont_pass_through_memory(north: Any, ingest_files: Any, correct: Correct) -> None:
    ingest_files(north, make_instance(pixels=np.zeros((60, 512, 1024), np.uint16)))
    correct(PatientName="Berg^Ole")
    instance = Instance.objects.select_related("series__study").get()
    tracemalloc.start()
    length = sum(len(chunk) for chunk in objects.stream_instance(instance))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length > 60 << 20
    assert peak < 8 << 20


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\=^"), max_size=60)
)
def test_any_name_comes_out_as_it_went_in(name: str, north: Any, ingest_files: Any, correct: Correct) -> None:
    Instance.objects.all().delete()
    Study.objects.all().delete()
    ingest_files(north, make_instance(StudyInstanceUID="1.2.77"))
    correct(PatientName=f"{name.strip()}^A")
    assert leaving().PatientName == f"{name.strip()}^A"
