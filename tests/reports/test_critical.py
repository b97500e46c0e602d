"""Critical results: told, acknowledged, escalated; nobody can miss one and all is traced."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from accounts.models import Notification
from accounts.notifications import send_due_emails
from portal.audit.models import AuditEvent
from studies.models import Study
from studies.reports import critical
from studies.reports.models import CriticalPolicy, CriticalResult
from tests.factories import make_instance, principal_of
from tests.reports.desk import DESK, UID

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def flagged(north: Any, ingest_files: Any, client_of: Any, people: Any) -> CriticalResult:
    people["referrer"].email = "referrer@example.org"
    people["referrer"].save()
    ingest_files(north, make_instance(StudyInstanceUID=UID, PatientName="Geheim^Eva"))
    answer = client_of("radiologist").post(
        f"{DESK}/critical/",
        {"finding": "Pneumothorax", "category": "1", "recipient": f"user:{people['referrer'].pk}"},
        headers={"HX-Request": "true"},
    )
    assert b"Pneumothorax" in answer.content
    return CriticalResult.objects.get()


def test_who_must_know_is_told_at_once_and_by_an_email_that_names_nobody(
    flagged: CriticalResult, client_of: Any
) -> None:
    assert flagged.due_at - flagged.flagged_at == timedelta(minutes=60)
    page = client_of("referrer").get("/reports/critical/")
    assert b"Pneumothorax" in page.content
    assert b'<span class="bubble">1</span>' in page.content
    assert b"Pneumothorax" in client_of("referrer").get(f"{DESK}/").content
    assert send_due_emails() == 1
    (message,) = mail.outbox
    assert message.to == ["referrer@example.org"]
    for secret in ("Geheim", "Eva", "Pneumothorax", UID, "P1"):
        assert secret not in message.subject + message.body
    assert send_due_emails() == 0


def test_it_is_acknowledged_where_the_report_is_read_by_those_who_must(flagged: CriticalResult, client_of: Any) -> None:
    button = f"/reports/critical/{flagged.pk}/acknowledge/".encode()
    assert button in client_of("referrer").get(f"{DESK}/panel/").content
    assert button in client_of("referrer").get(f"{DESK}/").content
    assert button not in client_of("radiologist").get(f"{DESK}/panel/").content
    client_of("referrer").post(button.decode())
    assert button not in client_of("referrer").get(f"{DESK}/").content


def test_who_was_named_is_told_it_even_of_a_patient_that_is_not_theirs(flagged: CriticalResult, client_of: Any) -> None:
    Study.objects.update(referring_physician=None)
    covering = client_of("referrer")
    assert covering.get(f"/studies/{UID}/").status_code == 404
    page = covering.get(f"/reports/critical/{flagged.pk}/").content.decode()
    assert "Pneumothorax" in page
    assert f"/reports/{UID}/" not in page
    assert f"/studies/{UID}/" not in page
    covering.post(f"/reports/critical/{flagged.pk}/acknowledge/")
    flagged.refresh_from_db()
    assert not flagged.is_open
    assert client_of("southradiologist").get(f"/reports/critical/{flagged.pk}/").status_code == 404


def test_acknowledging_closes_it_with_who_and_when(flagged: CriticalResult, client_of: Any) -> None:
    assert client_of("referrer").post(f"/reports/critical/{flagged.pk}/acknowledge/").status_code == 302
    flagged.refresh_from_db()
    assert flagged.acknowledged_by is not None
    assert flagged.acknowledged_by.username == "referrer"
    assert not flagged.is_open
    assert not Notification.objects.filter(key=f"critical:{flagged.pk}:0", read_at=None).exists()
    assert b"was acknowledged" in client_of("radiologist").get("/notifications/").content
    again = client_of("referrer").post(f"/reports/critical/{flagged.pk}/acknowledge/")
    assert again.status_code == 422
    steps = AuditEvent.objects.filter(action="critical_result").order_by("sequence").values_list("details", flat=True)
    assert [d["step"] for d in steps] == ["flagged", "acknowledged"]


def test_others_can_not_acknowledge_and_strangers_can_not_see(flagged: CriticalResult, client_of: Any) -> None:
    for person in ("resident", "radiologist"):
        client_of(person).post(f"/reports/critical/{flagged.pk}/acknowledge/")
    flagged.refresh_from_db()
    assert flagged.is_open
    for person in ("southradiologist", "technologist", "compliance"):
        assert client_of(person).get(f"/reports/critical/{flagged.pk}/").status_code in {403, 404}


def test_a_late_one_goes_to_the_next_and_then_to_everyone(flagged: CriticalResult, people: Any) -> None:
    assert critical.escalate_late() == 0
    for level, who in ((1, {"radiologist"}), (2, {"radiologist"})):
        CriticalResult.objects.update(escalates_at=timezone.now() - timedelta(seconds=1))
        assert critical.escalate_late() == 1
        told = Notification.objects.filter(key=f"critical:{flagged.pk}:{level}", is_urgent=True)
        assert {n.user.username for n in told} >= who | {"referrer"}
    flagged.refresh_from_db()
    assert flagged.level == 2
    assert [s.text for s in flagged.steps.all()][1].startswith("Late; escalated to")
    critical.acknowledge(result=flagged, principal=principal_of(people["referrer"]))
    CriticalResult.objects.filter(acknowledged_at=None).update(escalates_at=timezone.now())
    assert critical.escalate_late() == 0


def test_the_dashboard_says_how_many_are_late_at_the_site_that_it_shows(
    flagged: CriticalResult, client_of: Any
) -> None:
    CriticalResult.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    lead = client_of("radiologist")
    assert b"1 late" in lead.get("/dashboard/?site=north").content
    assert b"1 late" not in lead.get("/dashboard/?site=south").content


def test_a_ward_is_told_by_telephone(flagged: CriticalResult, client_of: Any) -> None:
    browser = client_of("radiologist")
    browser.post(f"/reports/critical/{flagged.pk}/acknowledge/", {"told_to": "Nurse Ito, ward 5"})
    flagged.refresh_from_db()
    assert flagged.told_to == "Nurse Ito, ward 5"
    assert b"Nurse Ito" in browser.get(f"/reports/critical/{flagged.pk}/").content


def test_a_flag_by_mistake_is_withdrawn_with_a_reason(flagged: CriticalResult, client_of: Any) -> None:
    browser = client_of("radiologist")
    assert browser.post(f"/reports/critical/{flagged.pk}/withdraw/", {"reason_for": ""}).status_code == 422
    browser.post(f"/reports/critical/{flagged.pk}/withdraw/", {"reason_for": "another study"})
    flagged.refresh_from_db()
    assert flagged.withdrawn_reason == "another study"


@pytest.mark.parametrize("bad", [{"category": "9"}, {"finding": " "}, {"recipient": "user:999999"}])
def test_a_flag_needs_a_finding_a_category_and_someone_to_tell(
    bad: dict[str, str], north: Any, ingest_files: Any, client_of: Any, people: Any
) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID))
    good = {"finding": "x", "category": "1", "recipient": f"user:{people['referrer'].pk}"}
    client_of("radiologist").post(f"{DESK}/critical/", {**good, **bad})
    assert not CriticalResult.objects.exists()


def decide(client_of: Any, site: Any, **changes: Any) -> Any:
    """Save the site's policies as the form has them, with some values changed."""
    form: dict[str, Any] = {"site": site.pk}
    for category, deadline, deadline_unit, step, step_unit in (
        (1, 60, 1, 15, 1),
        (2, 12, 60, 2, 60),
        (3, 3, 1440, 1, 1440),
    ):
        form |= {f"{category}.deadline": deadline, f"{category}.deadline_unit": deadline_unit}
        form |= {f"{category}.step": step, f"{category}.step_unit": step_unit}
        form |= {f"{category}.0.group": ["reporter", "leads"], f"{category}.1.group": ["reporter", "leads", "readers"]}
    return client_of("admin").post("/reports/critical/settings/", {**form, **changes})


def test_a_site_decides_its_own_deadlines_and_whom_to_tell(
    north: Any, south: Any, ingest_files: Any, client_of: Any, people: Any
) -> None:
    page = client_of("admin").get("/reports/critical/settings/").content.decode()
    assert 'name="1.deadline" value="60"' in page.replace("\n", " ") or 'value="1"' in page
    resident = people["resident"].pk
    answer = decide(
        client_of,
        north,
        **{"1.deadline": 20, "1.step": 5, "1.0.group": [], "1.0.person": [resident], "1.1.group": ["leads"]},
    )
    assert answer.status_code == 302
    ingest_files(north, make_instance(StudyInstanceUID=UID))
    browser = client_of("radiologist")
    assert b"1, within 20 minutes" in browser.get(f"{DESK}/desk/").content
    recipient = f"user:{people['referrer'].pk}"
    browser.post(f"{DESK}/critical/", {"finding": "Bleed", "category": "1", "recipient": recipient})
    result = CriticalResult.objects.get()
    assert result.due_at - result.flagged_at == timedelta(minutes=20)
    for level, told in (
        (1, {"resident", "referrer"}),
        (2, {"radiologist", "referrer"}),
        (3, {"radiologist", "referrer"}),
    ):
        CriticalResult.objects.update(escalates_at=timezone.now() - timedelta(seconds=1))
        assert critical.escalate_late() == 1
        result.refresh_from_db()
        notices = Notification.objects.filter(key=f"critical:{result.pk}:{level}")
        assert {n.user.username for n in notices} == told
        assert result.escalates_at is not None
        assert timedelta(minutes=4) < result.escalates_at - timezone.now() <= timedelta(minutes=5)
    event = AuditEvent.objects.filter(action="change", site_id=north.pk).latest("sequence")
    assert event.username == "admin"
    assert event.details["critical_policy"] == 1
    assert (event.details["before"]["deadline_minutes"], event.details["after"]["deadline_minutes"]) == (60, 20)


@pytest.mark.parametrize(
    "bad",
    [
        {"1.deadline": "0"},
        {"1.deadline": "soon"},
        {"2.step": "99999"},
        {"3.0.group": [], "3.1.group": []},
        {"1.0.group": []},
        {"1.0.group": ["everyone in the world"]},
        {"1.0.person": ["999999"]},
    ],
)
def test_a_policy_that_would_tell_nobody_in_time_is_refused(bad: dict[str, Any], client_of: Any, north: Any) -> None:
    assert decide(client_of, north, **bad).status_code == 422
    assert not CriticalPolicy.objects.exists()


def test_saving_the_values_as_delivered_changes_and_records_nothing(client_of: Any, north: Any) -> None:
    before = AuditEvent.objects.filter(action="change").count()
    assert decide(client_of, north).status_code == 302
    assert not CriticalPolicy.objects.exists()
    assert AuditEvent.objects.filter(action="change").count() == before
