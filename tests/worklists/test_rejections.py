"""Rejecting and restoring images on the screens."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from studies.archive.models import Rejection
from studies.models import Instance, Study
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY = "1.2.826.1"
PAGE = f"/studies/{STUDY}/reject/"


@pytest.fixture
def study(north: Any, ingest_files: Any) -> Study:
    ingest_files(
        north,
        *(
            make_instance(
                StudyInstanceUID=STUDY,
                SeriesInstanceUID=f"{STUDY}.{series}",
                SOPInstanceUID=f"{STUDY}.{series}.{number}",
                SeriesDescription=f"series {series}",
                InstanceNumber=number,
            )
            for series, number in ((1, 1), (1, 2), (2, 1))
        ),
    )
    return Study.objects.get()


@pytest.fixture
def technologist(client_of: Any) -> Client:
    browser: Client = client_of("technologist")
    return browser


def instance(uid: str) -> Instance:
    return Instance.objects.get(sop_instance_uid=uid)


def test_the_study_page_leads_to_it_for_those_who_may(study: Study, client_of: Any) -> None:
    assert PAGE in client_of("technologist").get(f"/studies/{STUDY}/").content.decode()
    assert PAGE not in client_of("resident").get(f"/studies/{STUDY}/").content.decode()


def test_chosen_series_and_images_vanish_and_come_back(study: Study, technologist: Client) -> None:
    first = instance(f"{STUDY}.1.1")
    choice = {"series": [instance(f"{STUDY}.2.1").series_id], "instance": [first.pk], "reason": "113038"}
    answer = technologist.post(PAGE, choice, follow=True)
    assert answer.redirect_chain == [("/rejected/", 302)]
    assert "2 images rejected." in answer.content.decode()
    assert "Wrong worklist entry" in answer.content.decode()
    assert [i.sop_instance_uid for i in Instance.objects.filter(is_current=True)] == [f"{STUDY}.1.2"]
    shown = technologist.get(f"/studies/{STUDY}/").content.decode()
    assert "series 2" not in shown
    note = re.search(r'name="note" value="([0-9.]+)"', answer.content.decode())
    assert note is not None
    answer = technologist.post("/rejected/restore/", {"study": study.pk, "note": note[1]}, follow=True)
    assert "2 images are seen again." in answer.content.decode()
    assert "Nothing is rejected" in answer.content.decode()
    assert Instance.objects.filter(is_current=True, series__modality="CT").count() == 3


@pytest.mark.parametrize(
    ("choice", "words"),
    [({"reason": "113001"}, "Choose at least one"), ({"series": ["1"]}, "Choose why"), ({"reason": "1"}, "Choose why")],
)
def test_a_choice_that_lacks_something_is_told(choice: Any, words: str, study: Study, technologist: Client) -> None:
    answer = technologist.post(PAGE, choice)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not Rejection.objects.exists()


def test_a_choice_is_kept_when_it_lacks_a_reason(study: Study, technologist: Client) -> None:
    series = instance(f"{STUDY}.2.1").series_id
    answer = technologist.post(PAGE, {"series": [series]})
    assert f'name="series" value="{series}" checked' in answer.content.decode()


def test_images_of_another_study_cannot_be_slipped_in(
    study: Study, technologist: Client, ingest_files: Any, south: Any
) -> None:
    ingest_files(south, make_instance(StudyInstanceUID="1.9", SOPInstanceUID="1.9.1"))
    other = instance("1.9.1")
    technologist.post(PAGE, {"instance": [other.pk], "series": [other.series_id], "reason": "113001"})
    assert instance("1.9.1").is_current


@pytest.mark.parametrize("person", ["resident", "referrer", "southradiologist", "compliance"])
def test_nobody_else_rejects_or_restores(person: str, study: Study, client_of: Any) -> None:
    browser = client_of(person)
    choice = {"instance": [instance(f"{STUDY}.1.1").pk], "reason": "113001"}
    assert browser.post(PAGE, choice).status_code in {403, 404}
    assert browser.post("/rejected/restore/", {"study": study.pk, "note": "1"}).status_code in {403, 404}
    assert Instance.objects.filter(is_current=True).count() == 3


def test_what_one_site_rejects_is_not_listed_at_the_other(study: Study, technologist: Client, client_of: Any) -> None:
    technologist.post(PAGE, {"instance": [instance(f"{STUDY}.1.1").pk], "reason": "113001"})
    assert "Jane" in technologist.get("/rejected/").content.decode()
    assert "Jane" not in client_of("southradiologist").get("/rejected/").content.decode()


def test_a_study_without_images_says_so(study: Study, technologist: Client) -> None:
    technologist.post(PAGE, {"instance": list(Instance.objects.values_list("pk", flat=True)), "reason": "113037"})
    assert "Nothing to reject" in technologist.get(PAGE).content.decode()
    assert technologist.get(f"/studies/{STUDY}/").status_code == 200
