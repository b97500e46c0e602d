"""Measurements and key images on their way from the viewer into the report and the archive."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage, KeyObjectSelectionDocumentStorage

from studies.archive import objects
from studies.findings.models import ImageFinding
from studies.models import Instance, Study
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def a_picture(width: int = 300, height: int = 200) -> str:
    output = BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(output, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(output.getvalue()).decode()


@pytest.fixture
def study(north: Any, ingest_files: Any) -> Study:
    ingest_files(north, make_instance(SeriesNumber=2, InstanceNumber=52, SOPInstanceUID="1.2.3"))
    return Study.objects.get()


def send(browser: Any, study: Study, **finding: Any) -> Any:
    body = {"uid": "m1", "sop": "1.2.3", "frame": 1, **finding}
    path = f"/studies/{study.study_instance_uid}/findings/"
    return browser.post(path, json.dumps(body), content_type="application/json")


def length(value: float) -> list[dict[str, Any]]:
    return [{"name": "length", "value": value, "unit": "mm"}]


def test_a_measurement_says_its_value_with_unit_and_where_it_is(study: Study, client_of: Any) -> None:
    answer = send(client_of("radiologist"), study, values=length(57.79), label="Nodule").json()
    assert (answer["label"], answer["text"], answer["place"]) == ("Nodule", "57.8 mm", "series 2, image 52")
    assert answer["before"] is None


def test_a_measurement_that_is_dragged_on_stays_one(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    send(browser, study, values=length(57.79))
    answer = send(browser, study, values=length(41.2)).json()
    assert (answer["before"]["text"], answer["text"]) == ("57.8 mm", "41.2 mm")
    assert ImageFinding.objects.count() == 1


def test_a_measurement_restored_under_another_name_is_not_a_second_one(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    send(browser, study, values=length(57.79))
    answer = send(browser, study, uid="restored", values=length(57.79)).json()
    assert answer["before"]["text"] == "57.8 mm"
    assert [f.tracking_identifier for f in ImageFinding.objects.all()] == ["restored"]


def test_several_quantities_are_named(study: Study, client_of: Any) -> None:
    values = [{"name": "area", "value": 120.4, "unit": "mm²"}, {"name": "mean", "value": 43, "unit": "HU"}]
    assert send(client_of("resident"), study, values=values).json()["text"] == "area 120 mm², mean 43.0 HU"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools' dciodvfy isn't installed")
def test_a_key_image_is_a_valid_key_object_selection_and_presentation_state(
    study: Study, client_of: Any, tmp_path: Path
) -> None:
    answer = send(client_of("radiologist"), study, picture=a_picture(), windowCenter=40, windowWidth=400)
    assert answer.status_code == 200, answer.content
    for sop_class_uid in (KeyObjectSelectionDocumentStorage, GrayscaleSoftcopyPresentationStateStorage):
        instance = Instance.objects.get(sop_class_uid=sop_class_uid)
        assert instance.series.study == study
        path = tmp_path / sop_class_uid
        path.write_bytes(objects.read_instance(instance))
        judged = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        errors = [line for line in (judged.stdout + judged.stderr).splitlines() if line.startswith("Error")]
        assert errors == []
    document = pydicom.dcmread(tmp_path / KeyObjectSelectionDocumentStorage)
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert "1.2.3" in {item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence}
    state = pydicom.dcmread(tmp_path / GrayscaleSoftcopyPresentationStateStorage)
    assert state.SoftcopyVOILUTSequence[0].WindowWidth == 400


def test_a_picture_is_made_anew_and_bounded(study: Study, client_of: Any) -> None:
    send(client_of("radiologist"), study, picture=a_picture(3000, 1500))
    with Image.open(BytesIO(bytes(ImageFinding.objects.get().picture or b""))) as kept:
        assert kept.size == (1024, 512)
    hostile = "data:image/jpeg;base64," + base64.b64encode(b"<svg onload=alert(1)>").decode()
    assert send(client_of("radiologist"), study, uid="k2", picture=hostile).status_code == 422


@pytest.mark.parametrize(
    "finding",
    [
        {"sop": "9.9.9", "values": length(1)},
        {"frame": 7, "values": length(1)},
        {"uid": "x" * 65, "values": length(1)},
        {"values": [{"name": "length", "value": 1e999, "unit": "mm"}]},
    ],
)
def test_what_is_no_finding_of_this_study_is_refused(study: Study, client_of: Any, finding: dict[str, Any]) -> None:
    assert send(client_of("radiologist"), study, **finding).status_code in {400, 422}
    assert not ImageFinding.objects.exists()


def test_key_images_reach_the_referrer_with_the_signed_report_and_not_before(study: Study, client_of: Any) -> None:
    send(client_of("radiologist"), study, picture=a_picture())
    finding = ImageFinding.objects.get()
    path = f"/studies/{study.study_instance_uid}/findings/{finding.pk}/picture.jpg"
    assert client_of("referrer").get(path).status_code == 404
    Study.objects.update(status=Study.Status.FINAL)
    assert client_of("referrer").get(path).headers["Content-Type"] == "image/jpeg"


def test_only_writers_at_the_studys_site_keep_findings(study: Study, client_of: Any) -> None:
    for person, status in (("technologist", 403), ("referrer", 403), ("southradiologist", 404)):
        assert send(client_of(person), study, values=length(1)).status_code == status, person
