"""Colleagues talk about a study."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Notification
from studies.models import Study
from studies.sharing.models import Comment
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def path(north: Any, ingest_files: Any) -> str:
    ingest_files(north, make_instance(StudyInstanceUID="1.1"))
    return "/studies/1.1/discussion/"


def test_who_is_mentioned_is_told_without_the_patients_name(path: str, client_of: Any) -> None:
    client_of("radiologist").post(path, {"text": "Look at the apex, @resident, please."})
    notice = Notification.objects.get()
    assert (notice.user.username, notice.url) == ("resident", "/studies/1.1/#discussion")
    assert Study.objects.get().patient_name not in notice.text
    assert "Look at the apex" in client_of("resident").get(path).content.decode()


@pytest.mark.parametrize("stranger", ["southradiologist", "referrer", "compliance", "nobody"])
def test_who_may_not_see_the_study_cant_be_mentioned(path: str, client_of: Any, stranger: str) -> None:
    answer = client_of("radiologist").post(path, {"text": f"@{stranger} what do you think?"})
    assert answer.status_code == 422
    assert not Comment.objects.exists()
    assert not Notification.objects.exists()
    assert "what do you think?" in answer.content.decode(), "the words are still there"


def test_a_consult_waits_until_who_was_asked_closes_it(path: str, client_of: Any) -> None:
    client_of("resident").post(path, {"text": "Is this @radiologist's kind of case?"})
    assert "No open requests" in client_of("radiologist").get("/consults/").content.decode()
    client_of("resident").post(path, {"text": "@radiologist is this a fracture?", "is_consult": "1"})
    consult = Comment.objects.get(kind="consult")
    assert "is this a fracture?" in client_of("radiologist").get("/consults/").content.decode()
    assert client_of("technologist").post(f"{path}{consult.pk}/close/").status_code == 404
    consult.refresh_from_db()
    assert consult.is_open_consult, "a bystander can't close it"
    client_of("radiologist").post(f"{path}{consult.pk}/close/")
    assert "No open requests" in client_of("radiologist").get("/consults/").content.decode()


def test_a_consult_must_ask_someone(path: str, client_of: Any) -> None:
    assert client_of("resident").post(path, {"text": "anyone?", "is_consult": "1"}).status_code == 422


def test_hostile_words_are_shown_as_words(path: str, client_of: Any) -> None:
    client_of("radiologist").post(path, {"text": "<script>alert(1)</script> @resident <b>"})
    shown = client_of("resident").get(path).content.decode()
    assert "<script>alert" not in shown
    assert "&lt;script&gt;" in shown
    assert '<span class="mention"' in shown
