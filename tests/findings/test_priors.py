"""What is measured on a patient's earlier study arrives in the report that it's measured for, marked as of that day."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portal.audit.models import AuditEvent
from studies.findings.models import ImageFinding
from studies.findings.places import places_in
from studies.models import Instance, Study
from tests.factories import make_instance
from tests.findings.test_findings import a_picture
from tests.reports.desk import DESK, UID, sign, write

pytestmark = [pytest.mark.django_db, pytest.mark.database]
PRIOR, OLDER, FOREIGN = "1.9", "1.8", "1.7"


@pytest.fixture
def study(north: Any, ingest_files: Any) -> Study:
    for uid, day, patient in (
        (UID, "20260110", "P1"),
        (PRIOR, "20240302", "P1"),
        (OLDER, "20200101", "P1"),
        (FOREIGN, "20240302", "P2"),
    ):
        ingest_files(
            north,
            make_instance(
                StudyInstanceUID=uid,
                StudyDate=day,
                PatientID=patient,
                SOPInstanceUID=f"{uid}.1",
                SeriesNumber=2,
                InstanceNumber=5,
            ),
        )
    return Study.objects.get(study_instance_uid=UID)


def measure(browser: Any, of: str, value: float, label: str = "", **more: Any) -> Any:
    body = {
        "uid": f"{of}{label}",
        "study": of,
        "sop": f"{of}.1",
        "label": label,
        "values": [{"name": "length", "value": value, "unit": "mm"}],
        "beside": [PRIOR, OLDER],
        **more,
    }
    return browser.post(f"/studies/{UID}/findings/", json.dumps(body), content_type="application/json")


def test_a_measurement_on_a_prior_says_of_which_day_it_is(study: Study, client_of: Any) -> None:
    answer = measure(client_of("radiologist"), PRIOR, 11.97).json()
    assert answer["sentence"] == "Prior 2024-03-02: 12.0 mm (2024-03-02, series 2, image 5)."
    assert ImageFinding.objects.get().study.study_instance_uid == PRIOR
    event = AuditEvent.objects.filter(action=AuditEvent.Action.REPORT_DRAFT).latest("sequence")
    assert event.study_instance_uid == PRIOR


def test_the_words_follow_a_measurement_that_is_dragged_on(study: Study, client_of: Any) -> None:
    first = measure(client_of("radiologist"), PRIOR, 12).json()
    again = measure(client_of("radiologist"), PRIOR, 13).json()
    assert again["known"] == [first["sentence"]]
    assert "13.0 mm" in again["sentence"]


def test_growth_is_told_where_the_same_label_is_measured_on_both(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    alone = measure(browser, PRIOR, 12, "Nodule").json()
    assert alone["goes_into"] is None
    now = measure(browser, UID, 14, "nodule").json()
    assert now["sentence"] == (
        "nodule: 14.0 mm (series 2, image 5); prior 12.0 mm (2024-03-02, series 2, image 5), +2.0 mm (+17 %)."
    )
    assert now["takes_in"]["known"] == [alone["sentence"]]
    shrunk = measure(browser, PRIOR, 20, "Nodule").json()["goes_into"]
    assert shrunk["known"][1] == now["sentence"], "the sentence that stands in the report is named, to be exchanged"
    assert shrunk["sentence"].endswith("−6.0 mm (−30 %).")


def test_the_newest_prior_before_the_readers_eyes_is_compared(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    measure(browser, OLDER, 10, "Nodule")
    measure(browser, PRIOR, 12, "Nodule")
    assert "prior 12.0 mm" in measure(browser, UID, 14, "Nodule").json()["sentence"]
    assert "prior 10.0 mm" in measure(browser, UID, 14, "Nodule", beside=[OLDER]).json()["sentence"]
    assert "prior" not in measure(browser, UID, 14, "Nodule", beside=[]).json()["sentence"]


@pytest.mark.parametrize("label", ["", "Cyst"])
def test_nothing_is_guessed(study: Study, client_of: Any, label: str) -> None:
    browser = client_of("radiologist")
    measure(browser, PRIOR, 12, "Nodule" if label else "")
    assert "prior" not in measure(browser, UID, 14, label).json()["sentence"]
    measure(browser, PRIOR, 12, "Cyst")
    measure(browser, PRIOR, 9, "Cyst", uid="another of the same name", frame=1)
    assert "prior" not in measure(browser, UID, 14, "Cyst").json()["sentence"]


def test_other_units_are_not_subtracted(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    measure(browser, PRIOR, 12, "Nodule", values=[{"name": "length", "value": 12, "unit": "px"}])
    assert "prior" not in measure(browser, UID, 14, "Nodule").json()["sentence"]


@pytest.mark.parametrize("of", [FOREIGN, "9.9.9"])
def test_no_other_patients_image_comes_into_a_report(study: Study, client_of: Any, of: str) -> None:
    assert measure(client_of("radiologist"), of, 12).status_code == 422
    assert not ImageFinding.objects.exists()


def test_what_was_measured_on_priors_is_listed_and_ones_own_can_be_removed(study: Study, client_of: Any) -> None:
    measure(client_of("radiologist"), PRIOR, 12, "Nodule")
    finding = ImageFinding.objects.get()
    address = f"/studies/{UID}/findings/"
    remove = f"{address}{finding.pk}/remove/"
    seen = client_of("resident").get(address).content.decode()
    assert "Prior 2024-03-02" in seen
    assert f'data-study="{PRIOR}"' in seen
    assert remove not in seen
    assert remove in client_of("radiologist").get(address).content.decode()
    assert "Nodule" not in client_of("radiologist").post(remove).content.decode()


def test_a_place_with_a_day_leads_to_the_prior(study: Study) -> None:
    visible = Study.objects.all()
    text = "12 mm (2024-03-02, series 2, image 5), now 14 mm (series 2, image 5); 2024-13-77, series 2, image 5."
    found = [[image.study_instance_uid for image in place.images] for place in places_in(study, text, visible)]
    assert found == [[PRIOR], [UID], []]
    hidden = visible.exclude(study_instance_uid=PRIOR)
    assert [place.images for place in places_in(study, "(2024-03-02, series 2, image 5)", hidden)] == [()]


def test_the_signed_report_links_the_prior_for_those_who_may_see_it(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    browser.post(f"{DESK}/start/")
    write(browser, findings="Prior 2024-03-02: 12.0 mm (2024-03-02, series 2, image 5).", impression="Nodule.")
    sign(browser)
    link = f'href="/studies/{PRIOR}/?sop={PRIOR}.1&amp;frame=1" data-jump data-study="{PRIOR}"'
    assert link in browser.get(f"{DESK}/").content.decode()
    Study.objects.filter(study_instance_uid=PRIOR).update(referring_physician=None)
    referrer = client_of("referrer").get(f"{DESK}/").content.decode()
    assert "2024-03-02, series 2, image 5" in referrer
    assert "data-jump" not in referrer


def mark(browser: Any, of: str, **more: Any) -> Any:
    """Mark a key image as the viewer does."""
    body = {"uid": f"key {of}", "study": of, "sop": f"{of}.1", "frame": 1, "picture": a_picture(), **more}
    return browser.post(f"/studies/{UID}/findings/", json.dumps(body), content_type="application/json")


def test_a_key_image_of_a_prior_is_in_the_report_with_its_day_and_its_objects_in_the_prior(
    study: Study, client_of: Any
) -> None:
    browser = client_of("radiologist")
    assert mark(browser, PRIOR).json()["place"] == "2024-03-02, series 2, image 5"
    kept = ImageFinding.objects.get()
    assert kept.study == study
    archived = Instance.objects.exclude(series__modality="CT")
    assert {(one.series.modality, one.series.study.study_instance_uid) for one in archived} == {
        ("KO", PRIOR),
        ("PR", PRIOR),
    }
    listed = browser.get(f"/studies/{UID}/findings/").content.decode()
    assert f'data-study="{PRIOR}"' in listed
    assert "finding-jump" not in browser.get(f"/studies/{PRIOR}/findings/").content.decode()

    browser.post(f"{DESK}/start/")
    write(browser, findings="Key image (2024-03-02, series 2, image 5).", impression="Known nodule.")
    sign(browser)
    link = f'href="/studies/{PRIOR}/?sop={PRIOR}.1&amp;frame=1" data-jump data-study="{PRIOR}"'
    signed = browser.get(f"{DESK}/").content.decode()
    assert signed.count(link) == 2, "by its words and by its picture"
    picture = f"/studies/{UID}/findings/{kept.pk}/picture.jpg"
    assert picture in signed
    Study.objects.filter(study_instance_uid=PRIOR).update(referring_physician=None)
    referrer = client_of("referrer")
    seen = referrer.get(f"{DESK}/").content.decode()
    assert picture in seen
    assert "data-jump" not in seen, "who may not see the prior is led nowhere"
    assert referrer.get(picture).status_code == 200


def test_a_key_image_of_a_prior_without_a_day_gives_no_numbers_that_lead_elsewhere(
    study: Study, client_of: Any
) -> None:
    Study.objects.filter(study_instance_uid=PRIOR).update(study_date=None)
    assert mark(client_of("radiologist"), PRIOR).json()["place"] == "prior of unknown date"


@pytest.mark.parametrize("of", [FOREIGN, "9.9.9"])
def test_no_other_patients_key_image_comes_into_a_report(study: Study, client_of: Any, of: str) -> None:
    assert mark(client_of("radiologist"), of).status_code == 422
    assert not ImageFinding.objects.exists()
