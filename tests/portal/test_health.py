"""What an administrator is told of the installation, and a stranger isn't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from studies import events
from studies.models import DomainEvent

pytestmark = pytest.mark.django_db
ClientOf = Callable[[str], Client]


def test_open_mode_is_warned_of_until_it_is_off(client_of: ClientOf, settings: LazySettings) -> None:
    settings.ATRIUM = replace(settings.ATRIUM, dicom_open=True)
    admin = client_of("admin")
    assert "Open mode" in admin.get("/health/").content.decode()
    assert "North Hospital" in admin.get("/health/").content.decode()
    assert "Open mode" in admin.get("/network/").content.decode()
    assert any("Open mode" in text for text in admin.get("/readyz").json()["warnings"])
    settings.ATRIUM = replace(settings.ATRIUM, dicom_open=False)
    assert "Open mode" not in admin.get("/health/").content.decode()
    assert not any("Open mode" in text for text in admin.get("/readyz").json()["warnings"])


def test_a_stranger_learns_no_more_than_whether_it_works(client: Client, settings: LazySettings) -> None:
    settings.ATRIUM = replace(settings.ATRIUM, dicom_open=True)
    assert set(client.get("/readyz").json()) == {"database", "storage", "broker"}
    assert client.get("/healthz").content == b"alive\n"


def test_jobs_that_nobody_takes_are_warned_of(client_of: ClientOf) -> None:
    admin = client_of("admin")
    events.emit("nobody.listens", number=1)
    assert "Is the worker started" not in admin.get("/health/").content.decode()
    DomainEvent.objects.update(due_at=timezone.now() - timedelta(minutes=6))
    assert "Is the worker started" in admin.get("/health/").content.decode()


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/worklist/", "text/html; charset=utf-8"), ("/dicom-web/studies", "application/problem+json")],
)
def test_who_meets_a_locked_database_is_told_to_come_again(client_of: ClientOf, path: str, media_type: str) -> None:
    def locked(*_arguments: object) -> None:
        raise OperationalError("database is locked")

    reader = client_of("radiologist")
    reader.raise_request_exception = False
    with connection.execute_wrapper(locked):
        answer = reader.get(path)
    assert (answer.status_code, answer["Retry-After"], answer["Content-Type"]) == (503, "5", media_type)
