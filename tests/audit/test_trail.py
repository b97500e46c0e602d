"""What the trail promises."""

from __future__ import annotations

import csv
import time
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client

from accounts.principals import Principal
from portal.audit.models import AuditEvent, TrailIsImmutable, ViewingWindow
from portal.audit.selectors import verify_chain
from portal.audit.services import close_viewing_windows, flush_counts, record, record_viewing
from tests.factories import PASSWORD

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def drop_protection() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("DROP TRIGGER audit_no_change ON audit_auditevent")
        else:
            cursor.execute("DROP TRIGGER audit_no_update")
            cursor.execute("DROP TRIGGER audit_no_delete")


def some_events(count: int = 5) -> None:
    for number in range(count):
        record(
            AuditEvent.Action.VIEW, principal=Principal(ae_title="CT1"), details={"number": number, "ü": [None, 1.5]}
        )


def test_an_untouched_trail_is_whole() -> None:
    some_events()
    assert verify_chain().is_whole
    call_command("audit", "verify")


def test_the_application_can_neither_change_nor_delete_an_event() -> None:
    some_events(1)
    event = AuditEvent.objects.get()
    event.username = "someone else"
    for attempt in (
        event.save,
        event.delete,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.update(username="x"),
    ):
        with pytest.raises(TrailIsImmutable):
            attempt()


@pytest.mark.parametrize("statement", ["UPDATE audit_auditevent SET username = 'x'", "DELETE FROM audit_auditevent"])
def test_the_database_itself_refuses_to_change_an_event(statement: str) -> None:
    some_events(1)
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEvent.objects.get().username == "AE:CT1"


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE audit_auditevent SET username = 'x' WHERE sequence = 3", 3),
        ("UPDATE audit_auditevent SET details = '{}' WHERE sequence = 2", 2),
        ("DELETE FROM audit_auditevent WHERE sequence = 4", 4),
        ("DELETE FROM audit_auditevent WHERE sequence > 3", 4),
        ("UPDATE audit_chainhead SET seal = 'x'", 5),
    ],
)
def test_an_edit_behind_the_applications_back_is_found(statement: str, broken_at: int) -> None:
    some_events()
    drop_protection()
    with connection.cursor() as cursor:
        cursor.execute(statement)
    assert verify_chain().broken_at == broken_at
    with pytest.raises(SystemExit) as ended:
        call_command("audit", "verify")
    assert ended.value.code == 1


def test_viewing_is_recorded_once_per_study_and_quarter_hour(north: Any) -> None:
    one = {"principal": Principal(ae_title="CT1"), "site_id": north.pk, "patient_id": "P", "patient_name": "N"}
    for _ in range(3):
        record_viewing(AuditEvent.Action.RETRIEVE, study_instance_uid="1.2", **one)
    record_viewing(AuditEvent.Action.RETRIEVE, study_instance_uid="1.3", **one)
    assert AuditEvent.objects.filter(action="retrieve").count() == 2


def test_what_a_failed_transaction_counted_did_not_happen(north: Any, django_capture_on_commit_callbacks: Any) -> None:
    def received(*, fails: bool) -> None:
        with transaction.atomic():
            record_viewing(
                AuditEvent.Action.IMPORT,
                principal=Principal(ae_title="CT1"),
                site_id=north.pk,
                patient_id="P",
                patient_name="N",
                study_instance_uid="1.2",
                instances=1,
            )
            if fails:
                raise DatabaseError

    with django_capture_on_commit_callbacks(execute=True):
        with pytest.raises(DatabaseError):
            received(fails=True)
        received(fails=False)
    flush_counts()
    assert ViewingWindow.objects.get().instances == 1


def test_what_began_a_viewing_is_counted_in_the_same_transaction(north: Any) -> None:
    record_viewing(
        AuditEvent.Action.IMPORT,
        principal=Principal(ae_title="CT1"),
        site_id=north.pk,
        patient_id="P",
        patient_name="N",
        study_instance_uid="1.2",
        instances=3,
        octets=50,
    )
    window = ViewingWindow.objects.get()
    assert (window.instances, window.octets) == (3, 50), "a process that is killed now loses no count"


def test_what_was_viewed_is_counted_once_the_quarter_hour_is_over(
    north: Any, django_capture_on_commit_callbacks: Any
) -> None:
    one = {"principal": Principal(ae_title="CT1", ip_address="10.0.0.1"), "site_id": north.pk}
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(3):
            record_viewing(
                AuditEvent.Action.RETRIEVE,
                study_instance_uid="1.2",
                patient_id="P",
                patient_name="N",
                frames=2,
                octets=100,
                **one,
            )
    flush_counts()
    assert close_viewing_windows() == 0
    assert close_viewing_windows(now=time.time() + 1000) == 1
    begun, total = AuditEvent.objects.filter(action="retrieve").order_by("sequence")
    assert total.details == {"total_of": begun.sequence, "instances": 0, "frames": 6, "bytes": 300}
    assert (total.patient_id, total.ip_address, total.username) == ("P", "10.0.0.1", "AE:CT1")
    assert verify_chain().is_whole
    assert close_viewing_windows(now=time.time() + 1000) == 0


def test_sign_in_and_its_failure_leave_a_trace(people: Any) -> None:
    browser = Client()
    browser.post("/accounts/login/", {"login": "radiologist", "password": "wrong"})
    browser.post("/accounts/login/", {"login": "radiologist", "password": PASSWORD})
    failed = AuditEvent.objects.get(action="sign_in_failed")
    assert failed.details == {"login": "radiologist"}
    assert AuditEvent.objects.get(action="sign_in").username == "radiologist"


def test_the_officer_filters_and_exports(client_of: Any, north: Any) -> None:
    record(AuditEvent.Action.VIEW, principal=Principal(ae_title="CT1"), site_id=north.pk, patient_id="=cmd()")
    record(AuditEvent.Action.VIEW, principal=Principal(ae_title="CT2"), site_id=north.pk, patient_id="P2")
    officer = client_of("compliance")
    page = officer.get("/audit/", {"username": "AE:CT1"})
    assert b"AE:CT1" in page.content
    assert b"P2" not in page.content
    answer = officer.get("/audit/export.csv", {"username": "AE:CT1"})
    rows = list(csv.DictReader(StringIO(b"".join(answer.streaming_content).decode("utf-8-sig"))))
    assert [(row["action"], row["patient_id"]) for row in rows] == [("view", "'=cmd()")]
    assert AuditEvent.objects.filter(action="export", username="compliance").exists()


def test_the_trail_of_another_site_is_not_seen(people: Any, south: Any, client_of: Any) -> None:
    record(AuditEvent.Action.VIEW, principal=Principal(ae_title="CT9"), site_id=south.pk)
    membership = people["compliance"].memberships.get(site=south)
    membership.delete()
    assert b"CT9" not in client_of("compliance").get("/audit/").content


def test_others_do_not_see_the_trail(client_of: Any) -> None:
    for person in ("radiologist", "resident", "technologist", "referrer"):
        for path in ("/audit/", "/audit/export.csv"):
            assert client_of(person).get(path).status_code == 403
    assert Client().get("/audit/").status_code == 302


def test_a_changed_account_is_in_the_trail(people: Any, north: Any) -> None:
    people["resident"].email = "resident@example.org"
    people["resident"].save()
    change = AuditEvent.objects.filter(action="change", details__model="user", details__fields=["email"])
    assert change.count() == 1


def test_a_patient_is_found_by_a_part_of_the_name_or_id_and_a_whole_id_means_that_one_alone(
    north: Any, people: Any, client_of: Any
) -> None:
    for patient_id, name in (
        ("NG204518", "Lindqvist^Henrik Olof"),
        ("NG2045180", "Nkosi^Sipho"),
        ("X1", "Okonkwo^Chidi"),
    ):
        record(
            AuditEvent.Action.VIEW,
            principal=Principal(ae_title="CT1"),
            site_id=north.pk,
            patient_id=patient_id,
            patient_name=name,
        )
    compliance = client_of("compliance")

    def found(**query: str) -> set[str]:
        page = compliance.get("/audit/", query).content.decode()
        return {one for one in ("NG204518", "NG2045180", "X1") if f">{one}<" in page}

    assert found(patient_id="henrik lind") == {"NG204518"}
    assert found(patient_id="g2045") == {"NG204518", "NG2045180"}
    assert found(patient_id="NG204518") == {"NG204518"}
    assert found(username="ct") == {"NG204518", "NG2045180", "X1"}
    assert found(username="mr") == set()
