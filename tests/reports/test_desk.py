"""Writing and signing at the desk: merging, versions, checks, co-signing, and who proves what."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.db import DatabaseError, connection, transaction
from django.test import Client

from portal.audit.models import AuditEvent
from studies.models import Study
from studies.reading import claim_of
from studies.reports import signing
from studies.reports.checks import checks_of
from studies.reports.models import PreliminarySignature, ReportPart, ReportTemplate, ReportVersion
from tests.factories import PASSWORD, make_instance, one_time_code
from tests.reports.desk import DESK, UID, sign, write

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def radiologist(north: Any, ingest_files: Any, client_of: Any) -> Client:
    ingest_files(north, make_instance(StudyInstanceUID=UID, StudyDescription="CT thorax right", PatientSex="M"))
    browser: Client = client_of("radiologist")
    return browser


def test_windows_that_write_different_fields_both_win(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, revision=0, findings="of the first")
    answer = write(radiologist, revision=0, impression="of the second")
    assert answer.status_code == 200
    assert answer.json()["merged"]["findings"] == "of the first"
    conflict = write(radiologist, revision=1, impression="of the third")
    assert conflict.status_code == 409
    assert conflict.json()["fields"] == ["impression"]
    assert write(radiologist, revision=1, impression="of the second").status_code == 200
    # What is overwritten knowingly stays a version, however soon after it.
    write(radiologist, revision=3, impression="of the third")
    assert [v.sections["impression"] for v in ReportVersion.objects.order_by("pk")] == ["of the second", "of the third"]


def test_every_version_is_kept_and_can_be_brought_back(radiologist: Client, client_of: Any) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="first words")
    resident = client_of("resident")
    resident.post(f"{DESK}/take-over/")
    write(resident, revision=2, findings="other words")
    versions = list(ReportVersion.objects.order_by("pk"))
    assert [(v.kind, v.sections.get("findings")) for v in versions] == [
        ("saved", "first words"),
        ("taken_over", "first words"),
        ("saved", "other words"),
    ]
    page = resident.get(f"{DESK}/history/{versions[-1].pk}/").content
    assert b"<del>first</del>" in page
    assert b"<ins>other</ins>" in page
    resident.post(f"{DESK}/history/{versions[0].pk}/restore/")
    assert ReportPart.objects.get().sections["findings"] == "first words"


def test_a_discarded_draft_can_be_brought_back(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="precious words")
    radiologist.post(f"{DESK}/discard/")
    assert not ReportPart.objects.exists()
    radiologist.post(f"{DESK}/start/")
    kept = ReportVersion.objects.get(kind="discarded")
    radiologist.post(f"{DESK}/history/{kept.pk}/restore/")
    assert ReportPart.objects.get().sections["findings"] == "precious words"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"findings": "Effusion of the left side."}, "laterality:findings:left"),
        ({"findings": "The uterus is normal."}, "sex:findings:uterus"),
        ({"findings": "Heart [size] mm."}, "place:findings"),
        ({"nodule": "Solid", "nodule_size": "900"}, "range:nodule_size:900"),
        ({"nodule": "Solid", "nodule_size": "big"}, "number:nodule_size"),
        ({"findings": "Clear."}, "impression"),
    ],
)
def test_a_second_readers_eye(values: dict[str, str], code: str, radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, **values)
    assert code in [check.code for check in checks_of(ReportPart.objects.get())]


@pytest.mark.parametrize("text", ["The right lung.", "The lungs are bright.", "Prostate enlarged."])
def test_what_fits_the_study_is_not_found_fault_with(text: str, radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings=text, impression="Normal.")
    assert checks_of(ReportPart.objects.get()) == []


def test_a_field_that_is_not_shown_is_not_missed(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, nodule="None", nodule_size="900", findings="x", impression="y")
    part = ReportPart.objects.get()
    assert checks_of(part) == []
    assert "900" not in part.sections["findings"]
    sign(radiologist)
    part.refresh_from_db()
    assert part.is_signed
    signed = json.loads(part.canonical_text)
    assert signed["values"]["nodule"] == "None"
    assert "nodule_size" not in signed["values"]


def test_what_was_hidden_stays_hidden_under_another_template(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, nodule="None", nodule_size="900", lungs="Clear.", findings="x", impression="y")
    radiologist.post(f"{DESK}/template/", {"template": ""})
    part = ReportPart.objects.get()
    assert "Clear." in part.sections["findings"]
    assert "900" not in part.sections["findings"]


def test_nothing_is_signed_with_a_warning_unseen(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="Left.", impression="Normal.")
    page = radiologist.post(f"{DESK}/sign/", {"revision": 1, "password": PASSWORD})
    assert b"the study is of the right side" in page.content
    assert not ReportPart.objects.get().is_signed
    sign(radiologist)
    assert ReportPart.objects.get().is_signed
    assert AuditEvent.objects.get(action="report_sign", outcome="success").details["accepted"]


def test_the_resident_signs_as_preliminary_and_the_attending_as_final(radiologist: Client, client_of: Any) -> None:
    resident, referrer = client_of("resident"), client_of("referrer")
    resident.post(f"{DESK}/start/")
    write(resident, findings="A nodule of 8 mm.", impression="Benign.")
    assert resident.post(f"{DESK}/preliminary/", {"revision": 1, "password": "wrong"}).status_code == 200
    assert not PreliminarySignature.objects.exists()
    sign(resident, step="preliminary")
    assert (Study.objects.get().status, Study.objects.get().claimed_by) == ("preliminary", None)
    assert b"You signed this as preliminary" in resident.get(f"{DESK}/panel/").content
    page = referrer.get(f"{DESK}/").content
    assert b"Preliminary" in page
    assert b"Benign." in page
    write(resident, revision=1, impression="Not yet shown.")
    assert b"Not yet shown." not in referrer.get(f"{DESK}/").content
    assert b"may have been read" in resident.post(f"{DESK}/discard/").content
    radiologist.post(f"{DESK}/take-over/")
    write(radiologist, revision=3, impression="Malignant.")
    assert b"<del>Benign</del>" in radiologist.get(f"{DESK}/panel/").content
    assert b"<del>Benign</del>" in radiologist.get(f"{DESK}/checks/").content, "seen once more on signing"
    sign(radiologist, revision=4)
    part = ReportPart.objects.get()
    assert signing.verify_part(part)
    assert PreliminarySignature.objects.get().sha256 in part.canonical_text
    assert Study.objects.get().status == "final"
    assert b"<ins>Malignant</ins>" in resident.get(f"{DESK}/history/").content
    panel = resident.get(f"{DESK}/panel/").content
    assert b"<ins>Malignant</ins>" in panel, "who wrote it learns without looking for it"
    assert b'id="show-signed-history"' in panel
    assert b"<ins>" not in referrer.get(f"{DESK}/panel/").content
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM reports_preliminarysignature")


def test_a_one_time_code_signs_once(radiologist: Client, people: Any) -> None:
    secret = generate_totp_secret()
    TOTP.activate(people["radiologist"], secret)
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="x", impression="y")
    assert b'name="code"' in radiologist.get(f"{DESK}/panel/").content
    wrong = sign(radiologist, password="", code="000000")
    assert b"isn&#x27;t right" in wrong.content
    code = one_time_code(secret)
    sign(radiologist, password="", code=code)
    assert ReportPart.objects.get().is_signed
    assert AuditEvent.objects.get(action="report_sign", outcome="success").details["by"] == "one-time code"
    radiologist.post(f"{DESK}/start/", {"reason_for": "again"})
    write(radiologist, findings="x")
    assert b"was used already" in sign(radiologist, password="", code=code).content
    assert not ReportPart.objects.get(ordinal=2).is_signed


def test_a_passkey_that_answers_nothing_signs_nothing(radiologist: Client) -> None:
    radiologist.post(f"{DESK}/start/")
    write(radiologist, findings="x", impression="y")
    for forged in ("{}", "null", '{"id": "x"}', "no json"):
        sign(radiologist, password="", passkey=forged)
    assert not ReportPart.objects.get().is_signed


def test_priors_that_were_opened_are_offered_as_comparison(radiologist: Client, north: Any, ingest_files: Any) -> None:
    ingest_files(
        north,
        make_instance(StudyInstanceUID="1.2.1", StudyDate="20250302", StudyDescription="CT thorax"),
        make_instance(StudyInstanceUID="1.2.9", PatientID="OTHER"),
    )
    radiologist.post(f"{DESK}/start/")
    said = radiologist.post(f"{DESK}/priors/", {"prior": ["1.2.1", "1.2.9", "9.9"]}).json()
    assert said == {"comparison": "CT thorax of 2025-03-02."}
    assert b"CT thorax of 2025-03-02." in radiologist.get(f"{DESK}/panel/").content


def test_anothers_case_is_taken_over_knowingly(radiologist: Client, client_of: Any) -> None:
    resident = client_of("resident")
    resident.post(f"{DESK}/start/")
    resident.post(f"{DESK}/discard/")
    page = radiologist.post(f"{DESK}/start/")
    assert b"has this case until" in page.content
    assert not ReportPart.objects.exists()
    radiologist.post(f"{DESK}/start/", {"take_over": "1"})
    assert ReportPart.objects.get().author.username == "radiologist"


def test_the_browser_spells_in_the_templates_language(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID))
    ReportTemplate.objects.update(language="de-CH")
    browser = client_of("radiologist")
    browser.post(f"{DESK}/start/")
    page = browser.get(f"{DESK}/desk/").content.decode()
    areas = re.findall(r'<textarea class="form-control section entry"[^>]*>', page)
    assert areas
    assert all('spellcheck="true"' in area and 'lang="de-CH"' in area for area in areas)


@pytest.fixture
def study(north: Any, ingest_files: Any) -> Study:
    ingest_files(north, make_instance(StudyInstanceUID=UID))
    return Study.objects.get()


def test_the_desk_is_there_before_its_draft_and_looking_begins_none(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    page = browser.get(f"{DESK}/panel/").content.decode()
    assert 'data-begin-url="' in page
    assert 'id="section-findings"' in page
    assert not ReportPart.objects.exists()
    study.refresh_from_db()
    assert (study.status, study.claimed_by) == (Study.Status.ARRIVED, None)


def test_the_first_word_begins_the_draft_and_claims_the_case(study: Study, client_of: Any) -> None:
    headers = {"Accept": "application/json"}
    browser = client_of("radiologist")
    answer = browser.post(f"{DESK}/start/", headers=headers)
    assert answer.status_code == 201
    part = ReportPart.objects.get()
    assert answer.json()["part"] == part.pk
    assert "In reading" in answer.json()["status"]
    assert write(browser, findings="typed", part=part.pk).status_code == 200
    # Another window that was open meanwhile goes on with the same draft, and overwrites nothing unknowingly.
    assert browser.post(f"{DESK}/start/", headers=headers).json()["part"] == part.pk
    assert write(browser, findings="otherwise", part=part.pk).status_code == 409
    refused = client_of("resident").post(f"{DESK}/start/", headers=headers)
    assert refused.status_code == 409
    assert "has this case open" in refused.json()["error"]


def test_a_signed_case_is_nobodys_any_more(study: Study, client_of: Any) -> None:
    browser = client_of("radiologist")
    browser.post(f"{DESK}/start/")
    write(browser, findings="Clear.", impression="Normal.")
    assert claim_of(study) is not None
    sign(browser)
    assert claim_of(study) is None
