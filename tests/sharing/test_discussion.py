"""Colleagues talk about a study."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core import mail

from accounts.models import Notification, User
from accounts.notifications import send_due_emails
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


def test_the_email_names_no_study_and_its_link_leads_there(path: str, people: dict[str, User], client_of: Any) -> None:
    User.objects.filter(username="radiologist").update(email="radiologist@example.org")
    client_of("resident").post(path, {"text": "@radiologist is this a fracture?", "is_consult": "1"})
    assert send_due_emails() == 1
    (message,) = mail.outbox
    assert "/studies/" not in message.body
    link = urlsplit(re.search(r"https?://\S+", message.body)[0]).path  # type: ignore[index]
    assert client_of("radiologist").get(link).headers["Location"] == "/studies/1.1/#discussion"
    assert client_of("technologist").get(link).status_code == 404


def test_hostile_words_are_shown_as_words(path: str, client_of: Any) -> None:
    client_of("radiologist").post(path, {"text": "<script>alert(1)</script> @resident <b>"})
    shown = client_of("resident").get(path).content.decode()
    assert "<script>alert" not in shown
    assert "&lt;script&gt;" in shown
    assert '<span class="mention"' in shown


def test_an_answer_reaches_who_asked_and_the_end_does_too(path: str, client_of: Any) -> None:
    client_of("resident").post(path, {"text": "@radiologist is this a fracture?", "is_consult": "1"})
    consult = Comment.objects.get()
    client_of("technologist").post(path, {"text": "The plate was moved."})
    assert not Notification.objects.filter(user__username="resident").exists(), "a bystander's words wait in the room"
    client_of("radiologist").post(path, {"text": "No, an old one."})
    answered = Notification.objects.get(user__username="resident")
    assert (answered.url, "fracture" in answered.text) == ("/studies/1.1/#discussion", False)
    client_of("radiologist").post(f"{path}{consult.pk}/close/")
    assert Notification.objects.filter(user__username="resident", text__contains="closed your request").exists()
    assert not Notification.objects.filter(user__username="radiologist", read_at=None).exists(), "it waits no more"


def test_only_who_asked_or_was_asked_is_offered_to_close(path: str, client_of: Any) -> None:
    client_of("resident").post(path, {"text": "@radiologist is this a fracture?", "is_consult": "1"})
    shown = {who: client_of(who).get(path).content.decode() for who in ("resident", "radiologist", "technologist")}
    assert {who for who, page in shown.items() if "Close the request" in page} == {"resident", "radiologist"}
