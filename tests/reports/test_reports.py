"""What the report desk promises."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client

from portal.audit.models import AuditEvent
from studies import events
from studies.archive import objects
from studies.models import Instance, Study
from studies.reports import signing
from studies.reports.distribution import archive_document
from studies.reports.models import ReportPart, SignedPartIsFrozen
from tests.factories import PASSWORD, make_instance
from tests.reports.desk import DESK, UID, sign, write

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def radiologist(north: Any, ingest_files: Any, client_of: Any) -> Client:
    ingest_files(north, make_instance(StudyInstanceUID=UID, PatientName="Müller^Jürgen"))
    browser: Client = client_of("radiologist")
    return browser


def write_and_sign(browser: Client) -> ReportPart:
    browser.post(f"{DESK}/start/")
    write(browser, findings="A 9 mm nodule.", impression="Control in 3 months.")
    sign(browser)
    return ReportPart.objects.get()


def test_what_is_typed_is_kept(radiologist: Client, client_of: Any) -> None:
    radiologist.post(f"{DESK}/start/")
    assert write(radiologist, findings="first words").json()["revision"] == 1
    assert b"first words" in client_of("radiologist").get(f"{DESK}/panel/").content
    assert Study.objects.get().status == "in_reading"


def test_a_second_window_does_not_overwrite_the_first(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="window one")
    answer = write(radiologist, revision=0, findings="window two")
    assert answer.status_code == 409
    assert answer.json()["sections"]["findings"] == "window one"
    assert write(radiologist, revision=1, findings="both").status_code == 200


def test_signing_freezes_the_text(radiologist: Client) -> None:
    part = write_and_sign(radiologist)
    assert part.is_signed
    assert signing.verify_part(part)
    assert Study.objects.get().status == "final"
    assert write(radiologist, revision=1, findings="other").status_code == 404
    part.sections = {"findings": "other"}
    with pytest.raises(SignedPartIsFrozen):
        part.save()
    for statement in ("UPDATE reports_reportpart SET sections = '{}'", "DELETE FROM reports_reportpart"):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


def test_a_change_behind_the_applications_back_is_shown(radiologist: Client) -> None:
    write_and_sign(radiologist)
    on = " ON reports_reportpart" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER report_part_frozen{on}")
        cursor.execute('UPDATE reports_reportpart SET sections = \'{"findings": "nothing"}\'')
    assert not signing.verify_part(ReportPart.objects.get())
    assert b"not what was signed" in radiologist.get(f"{DESK}/").content


def test_without_the_right_password_nothing_is_signed(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="text")
    for _ in range(6):
        page = radiologist.post(f"{DESK}/sign/", {"revision": 1, "password": "wrong"})
        assert b"isn&#x27;t right" in page.content
    locked = radiologist.post(f"{DESK}/sign/", {"revision": 1, "password": PASSWORD})
    assert b"Too many wrong attempts" in locked.content
    assert not ReportPart.objects.get().is_signed
    assert AuditEvent.objects.filter(action="report_sign", outcome="refused").count() == 6


def test_an_empty_report_is_not_signed(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    page = radiologist.post(f"{DESK}/sign/", {"revision": 0, "password": PASSWORD})
    assert b"Write findings or an impression" in page.content


def test_a_resident_writes_but_does_not_sign(radiologist: Client, client_of: Any) -> None:
    resident = client_of("resident")
    resident.post(f"{DESK}/start/")
    write(resident, findings="text")
    assert resident.post(f"{DESK}/sign/", {"revision": 1, "password": PASSWORD}).status_code == 403
    assert b"is writing this report" in radiologist.get(f"{DESK}/panel/").content
    assert write(radiologist, revision=1, findings="mine").status_code == 409
    radiologist.post(f"{DESK}/take-over/")
    assert write(radiologist, revision=2, findings="mine").status_code == 200


def test_an_addendum_is_a_new_signed_part(radiologist: Client) -> None:
    first = write_and_sign(radiologist)
    assert b"Say why" in radiologist.post(f"{DESK}/start/").content
    radiologist.post(f"{DESK}/start/", {"reason_for": "prior seen"})
    write(radiologist, findings="Unchanged since 2025.")
    sign(radiologist)
    parts = list(ReportPart.objects.order_by("ordinal"))
    assert [p.kind for p in parts] == ["report", "addendum"]
    assert parts[0].sha256 == first.sha256
    assert all(signing.verify_part(p) for p in parts)
    assert Study.objects.get().status == "addended"


def test_drafts_are_invisible_to_referrers_and_signed_reports_are_not(radiologist: Client, client_of: Any) -> None:
    referrer = client_of("referrer")
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="not yet for others")
    for path in ("/", "/panel/"):
        page = referrer.get(f"{DESK}{path}")
        assert b"not yet for others" not in page.content
        assert b"No result yet" in page.content
    assert referrer.get(f"{DESK}/report.pdf").status_code == 404
    assert referrer.get(f"{DESK}/preview/").status_code == 403
    sign(radiologist)
    assert b"not yet for others" in referrer.get(f"{DESK}/").content
    assert AuditEvent.objects.filter(action="report_read", username="referrer").exists()


def test_the_pdf_holds_the_words_and_the_signature(radiologist: Client, tmp_path: Path) -> None:
    part = write_and_sign(radiologist)
    answer = radiologist.get(f"{DESK}/report.pdf")
    assert answer.content.startswith(b"%PDF")
    assert AuditEvent.objects.filter(action="report_pdf", username="radiologist").exists()
    tool = shutil.which("pdftotext")
    if tool is None:
        pytest.skip("pdftotext isn't installed")
    (tmp_path / "r.pdf").write_bytes(answer.content)
    text = subprocess.run([tool, tmp_path / "r.pdf", "-"], capture_output=True, text=True, check=True).stdout
    for words in ("MÜLLER, Jürgen", "A 9 mm nodule.", "Control in 3 months.", part.sha256, "North Hospital"):
        assert words in text


def test_the_signed_report_is_archived_once_as_a_valid_encapsulated_pdf(radiologist: Client, tmp_path: Path) -> None:
    part = write_and_sign(radiologist)
    assert events.deliver_due() >= 1
    archive_document({"part": part.pk})
    part.refresh_from_db()
    instance = Instance.objects.get(sop_class_uid="1.2.840.10008.5.1.4.1.1.104.1")
    assert instance.sop_instance_uid == part.sop_instance_uid
    content = objects.read_instance(instance)
    dataset = pydicom.dcmread(BytesIO(content))
    assert dataset.EncapsulatedDocument.startswith(b"%PDF")
    assert (dataset.StudyInstanceUID, dataset.PatientID) == (UID, "P1")
    assert str(dataset.PatientName) == "Müller^Jürgen"
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy isn't installed")
    (tmp_path / "r.dcm").write_bytes(content)
    verdict = subprocess.run([tool, tmp_path / "r.dcm"], capture_output=True, text=True)
    assert [line for line in verdict.stderr.splitlines() if line.startswith("Error")] == []


def test_text_is_text_not_markup(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="</textarea><script>alert(1)</script>", impression="a < b & c\x00")
    assert b"<script>alert" not in radiologist.get(f"{DESK}/panel/").content
    assert ReportPart.objects.get().sections["impression"] == "a < b & c"


@pytest.mark.parametrize("person", ["southradiologist", "technologist", "compliance"])
def test_others_can_neither_read_nor_write(person: str, radiologist: Client, client_of: Any) -> None:
    write_and_sign(radiologist)
    browser = client_of(person)
    for path in ("/", "/panel/", "/desk/", "/report.pdf"):
        assert browser.get(f"{DESK}{path}").status_code in {403, 404}
    for path in ("/start/", "/save/", "/sign/", "/take-over/", "/discard/"):
        assert browser.post(f"{DESK}{path}").status_code in {403, 404}


def test_words_for_one_draft_never_land_in_another(radiologist: Client) -> None:
    first = write_and_sign(radiologist)
    radiologist.post(f"{DESK}/start/", {"reason_for": "prior seen"})
    write(radiologist, findings="the addendum")
    stale = radiologist.post(f"{DESK}/save/", {"part": first.pk, "revision": 1, "findings": "words of the report"})
    assert stale.status_code == 410
    signing = {"part": first.pk, "revision": 1, "password": PASSWORD}
    assert b"signed or discarded elsewhere" in radiologist.post(f"{DESK}/sign/", signing).content
    addendum = ReportPart.objects.get(ordinal=2)
    assert (addendum.sections["findings"], addendum.is_signed) == ("the addendum", False)


def test_who_lost_the_draft_may_take_it_back_with_their_words(radiologist: Client, client_of: Any) -> None:
    resident = client_of("resident")
    resident.post(f"{DESK}/start/")
    radiologist.post(f"{DESK}/take-over/")
    answer = write(resident, findings="the resident's words")
    assert answer.status_code == 409
    assert answer.json()["is_held_by_other"]
    taken = resident.post(f"{DESK}/take-over/", headers={"Accept": "application/json"}).json()
    assert write(resident, revision=taken["revision"], findings="the resident's words").status_code == 200


def test_a_delivery_that_broke_off_leaves_one_document(radiologist: Client) -> None:
    part = write_and_sign(radiologist)
    archive_document({"part": part.pk})
    ReportPart.objects.filter(pk=part.pk).update(sop_instance_uid="")
    archive_document({"part": part.pk})
    part.refresh_from_db()
    documents = Instance.objects.filter(sop_class_uid="1.2.840.10008.5.1.4.1.1.104.1")
    assert [d.sop_instance_uid for d in documents] == [part.sop_instance_uid]
    assert not Study.objects.get().has_conflict


def test_the_pdf_shows_every_script_as_typed(radiologist: Client, tmp_path: Path) -> None:
    tool = shutil.which("pdftotext")
    if tool is None:
        pytest.skip("pdftotext isn't installed")
    radiologist.post(f"{DESK}/start/")
    words = "Łódź Ελληνικά Кириллица ≤ 8 mm ±2 µm"
    write(radiologist, findings=words)
    sign(radiologist)
    (tmp_path / "r.pdf").write_bytes(radiologist.get(f"{DESK}/report.pdf").content)
    text = subprocess.run([tool, tmp_path / "r.pdf", "-"], capture_output=True, text=True, check=True).stdout
    assert words in text
