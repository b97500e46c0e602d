"""What a referring clinician comes for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from studies.models import Patient, Study
from studies.reports.models import CriticalResult, Report, ReportPart, Retraction
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
Sign = Callable[..., Study]


@pytest.fixture
def sign(north: Any, people: dict[str, User], ingest_files: Any) -> Sign:
    """Give a function that puts a study into the archive with a signed report."""

    def put(
        uid: str, *, days_ago: int = 0, impression: str = "Nothing wrong.", site: Any = None, **dicom: Any
    ) -> Study:
        ingest_files(site or north, make_instance(StudyInstanceUID=uid, **{"PatientID": uid, **dicom}))
        study = Study.objects.get(study_instance_uid=uid)
        report, _ = Report.objects.get_or_create(study=study)
        text = {"impression": impression}
        ReportPart.objects.create(
            report=report,
            kind="report",
            ordinal=1,
            author=people["radiologist"],
            signed_by=people["radiologist"],
            sections=text,
            canonical_text=str(text),
            signed_at=timezone.now() - timedelta(days=days_ago),
        )
        return study

    return put


def order_of(page: str, *uids: str) -> list[str]:
    return sorted(uids, key=lambda uid: page.index(f"/studies/{uid}/"))


def test_home_is_the_results_with_critical_first_then_new_then_old(
    sign: Sign, people: dict[str, User], client_of: Any
) -> None:
    sign("1.1", days_ago=1)
    sign("1.2", days_ago=3)
    critical = sign("1.3", days_ago=9)
    now = timezone.now()
    CriticalResult.objects.create(
        study=critical, category=1, finding="x", flagged_by=people["radiologist"], flagged_at=now, due_at=now
    )
    referrer = client_of("referrer")
    assert referrer.get("/").headers["Location"] == "/results/"
    referrer.get("/reports/1.1/")
    page = referrer.get("/results/").content.decode()
    assert order_of(page, "1.1", "1.2", "1.3") == ["1.3", "1.2", "1.1"]


def test_a_critical_result_that_waits_for_them_stands_on_top_before_a_report_is_signed(
    sign: Sign, people: dict[str, User], client_of: Any, ingest_files: Any, north: Any
) -> None:
    sign("1.1")
    ingest_files(north, make_instance(StudyInstanceUID="1.9", PatientName="Told^By Telephone"))
    now = timezone.now()
    told, other = (
        CriticalResult.objects.create(
            study=Study.objects.get(study_instance_uid="1.9"),
            category=1,
            finding=finding,
            flagged_by=people["radiologist"],
            flagged_at=now,
            due_at=now,
        )
        for finding in ("Tension pneumothorax", "Not theirs")
    )
    told.recipients.create(user=people["referrer"], notified_at=now)
    other.recipients.create(user=people["southradiologist"], notified_at=now)
    referrer = client_of("referrer")
    page = referrer.get("/results/").content.decode()
    assert page.index("Tension pneumothorax") < page.index("/studies/1.1/")
    assert "Critical, late" in page
    assert "Not theirs" not in page
    referrer.post(f"/reports/critical/{told.pk}/acknowledge/")
    assert "Tension pneumothorax" not in referrer.get("/results/").content.decode()


def test_an_addendum_is_news_again(sign: Sign, people: dict[str, User], client_of: Any) -> None:
    study = sign("1.1")
    referrer = client_of("referrer")
    referrer.get("/reports/1.1/")
    assert "All read" in referrer.get("/results/?only=unread").content.decode()
    ReportPart.objects.create(
        report=study.report, kind="addendum", ordinal=2, author=people["radiologist"], signed_at=timezone.now()
    )
    assert "Addended" in referrer.get("/results/?only=unread").content.decode()


def test_what_was_retracted_is_not_told_as_a_result(sign: Sign, people: dict[str, User], client_of: Any) -> None:
    study = sign("1.1", impression="Pulmonary embolism.")
    Retraction.objects.create(
        part=study.report.parts.get(),
        reason="Another patient's.",
        retracted_at=timezone.now(),
        retracted_by=people["radiologist"],
    )
    referrer = client_of("referrer")
    for page in (referrer.get("/results/"), referrer.get(f"/patients/{study.patient_id}/")):
        assert b"withdrawn by its signer" in page.content
        assert b"embolism" not in page.content


def test_words_of_the_report_and_names_find_results(sign: Sign, client_of: Any) -> None:
    sign("1.1", impression="Pulmonary embolism.", PatientName="Abel^Anna")
    sign("1.2", impression="Normal.", PatientName="Berg^Bo")
    referrer = client_of("referrer")
    for words, found, missed in (("embolism", "1.1", "1.2"), ("berg normal", "1.2", "1.1"), ("ABEL", "1.1", "1.2")):
        page = referrer.get("/results/", {"q": words}).content.decode()
        assert f"/studies/{found}/" in page, words
        assert f"/studies/{missed}/" not in page, words


def test_only_their_own_patients_and_never_a_draft(sign: Sign, client_of: Any, ingest_files: Any, north: Any) -> None:
    sign("1.1", ReferringPhysicianName="Else^Someone")
    ingest_files(north, make_instance(StudyInstanceUID="1.2", PatientID="W", PatientName="Waits^Wanda"))
    study = Study.objects.get(study_instance_uid="1.2")
    author = User.objects.get(username="radiologist")
    ReportPart.objects.create(
        report=Report.objects.create(study=study),
        kind="report",
        ordinal=1,
        author=author,
        sections={"impression": "A draft."},
    )
    page = client_of("referrer").get("/results/").content.decode()
    assert "/studies/1.1/" not in page
    assert "A draft." not in page
    assert "Waiting for a report" in page
    assert "Waits" in page.upper() or "WAITS" in page


def test_the_timeline_joins_sites_for_the_same_person_only(
    sign: Sign, south: Any, people: dict[str, User], client_of: Any
) -> None:
    who = {"PatientID": "P1", "PatientName": "Same^Sam", "PatientBirthDate": "19600101", "PatientSex": "M"}
    sign("1.1", StudyDate="20250101", impression="First.", **who)
    sign("1.2", StudyDate="20260101", impression="Second.", site=south, **who)
    sign("1.3", impression="Another's.", **{**who, "PatientID": "P2", "PatientBirthDate": "19910101"}, site=south)
    patient = Patient.objects.get(studies__study_instance_uid="1.1")
    page = client_of("radiologist").get(f"/patients/{patient.pk}/").content.decode()
    assert order_of(page, "1.1", "1.2") == ["1.2", "1.1"]
    assert "Another" not in page
    narrowed = client_of("radiologist").get(f"/patients/{patient.pk}/", {"q": "second"}).content.decode()
    assert "/studies/1.2/" in narrowed
    assert "/studies/1.1/" not in narrowed
    assert "/studies/1.2/" not in client_of("resident").get(f"/patients/{patient.pk}/").content.decode()
