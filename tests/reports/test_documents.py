"""What leaves when a report is signed, addended or retracted: PDF, Encapsulated PDF and SR, valid to outside tools."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from django.test import Client
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage, EncapsulatedPDFStorage
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation import validate_pdf_signature
from pyhanko_certvalidator import ValidationContext

from studies import events
from studies.archive import objects
from studies.models import Instance, Study
from studies.reports import certificates
from studies.reports.documents import report_pdf
from studies.reports.models import ReportPart, SiteCertificate
from studies.reports.selectors import signed_parts
from tests.factories import PASSWORD, make_instance
from tests.reports.desk import DESK, UID, sign, write

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def signed(north: Any, ingest_files: Any, client_of: Any) -> Client:
    ingest_files(north, make_instance(StudyInstanceUID=UID, PatientName="Müller^Jürgen", PatientSex="M"))
    browser: Client = client_of("radiologist")
    browser.post(f"{DESK}/start/")
    write(browser, lungs="A 9 mm nodule, ≥ 2024.", findings="Otherwise clear.", impression="Control in 3 months.")
    sign(browser)
    events.deliver_due()
    return browser


def documents(sop_class_uid: str) -> list[tuple[Dataset, bytes]]:
    """Give the study's documents of a class in the order in which they came."""
    instances = Instance.objects.filter(sop_class_uid=sop_class_uid, is_current=True).order_by("pk")
    return [(pydicom.dcmread(BytesIO(content)), content) for content in map(objects.read_instance, instances)]


def errors_of(content: bytes, tmp_path: Path) -> list[str]:
    """Give what dicom3tools' validator holds against a file."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy isn't installed")
    (tmp_path / "document.dcm").write_bytes(content)
    verdict = subprocess.run([tool, tmp_path / "document.dcm"], capture_output=True, text=True)
    return [line for line in verdict.stderr.splitlines() if line.startswith("Error")]


def texts_of(dataset: Dataset) -> list[str]:
    found = [dataset.TextValue] if "TextValue" in dataset else []
    for item in dataset.get("ContentSequence", []):
        found += texts_of(item)
    return found


def pdf_status(pdf: bytes, site: Any) -> Any:
    """Validate the last signature of a PDF with pyHanko, trusting the site's root."""
    reader = PdfFileReader(BytesIO(pdf))
    root = certificates.asn1_certificates(certificates.certificate_of(site))[-1]
    context = ValidationContext(trust_roots=[root], allow_fetching=False)
    return validate_pdf_signature(reader.embedded_signatures[-1], context)


def test_the_pdf_is_signed_by_the_site(signed: Client, north: Any, tmp_path: Path) -> None:
    pdf = signed.get(f"{DESK}/report.pdf").content
    status = pdf_status(pdf, north)
    assert status.bottom_line
    assert status.intact
    assert status.valid
    assert status.trusted
    assert PdfFileReader(BytesIO(pdf)).embedded_signatures[0].sig_object["/SubFilter"] == "/ETSI.CAdES.detached"
    tool = shutil.which("pdfsig")
    if tool is None:
        pytest.skip("pdfsig isn't installed")
    (tmp_path / "r.pdf").write_bytes(pdf)
    said = subprocess.run([tool, "-nocert", tmp_path / "r.pdf"], capture_output=True, text=True, check=True).stdout
    assert "Signature is Valid." in said
    assert "Total document signed" in said


def pages_of(pdf: bytes, tmp_path: Path) -> list[str]:
    tool = shutil.which("pdftotext")
    if tool is None:
        pytest.skip("pdftotext isn't installed")
    (tmp_path / "pages.pdf").write_bytes(pdf)
    said = subprocess.run([tool, "-layout", tmp_path / "pages.pdf", "-"], capture_output=True, text=True, check=True)
    return said.stdout.split("\f")[:-1]


def test_the_print_says_who_signed_when_with_what_and_where_to_verify(
    signed: Client, north: Any, tmp_path: Path
) -> None:
    words = " ".join(pages_of(signed.get(f"{DESK}/report.pdf").content, tmp_path)[-1].split())
    part = ReportPart.objects.get()
    assert part.signed_at is not None
    kept = certificates.certificate_of(north)
    for said in (
        f"Signed electronically by {part.signer_name}",
        f"{part.signed_at:%Y-%m-%d %H:%M:%S} UTC",
        part.sha256,
        f"/reports/verify/{part.verification_code}/",
        kept.subject,
        kept.sha256,
    ):
        assert said in words


def test_every_page_of_a_retracted_report_says_so(
    north: Any, ingest_files: Any, client_of: Any, tmp_path: Path
) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID))
    browser: Client = client_of("radiologist")
    browser.post(f"{DESK}/start/")
    write(browser, findings="\n".join(f"Line {n} of a long report." for n in range(150)), impression="Long.")
    sign(browser)
    browser.post(f"{DESK}/retract/", {"ordinal": 1, "password": PASSWORD, "reason_for": "wrong patient"})
    events.deliver_due()
    pdf = browser.get(f"{DESK}/report.pdf").content
    pages = pages_of(pdf, tmp_path)
    assert len(pages) > 2
    assert all("RETRACTED" in page for page in pages)
    assert pdf_status(pdf, north).bottom_line


def test_a_changed_pdf_is_found_out(signed: Client, north: Any) -> None:
    pdf = bytearray(signed.get(f"{DESK}/report.pdf").content)
    at = pdf.index(b"/Producer") if b"/Producer" in pdf else len(pdf) // 3
    pdf[at + 12] ^= 1
    assert not pdf_status(bytes(pdf), north).intact


def test_the_pdf_that_is_shown_is_the_one_that_is_archived(signed: Client) -> None:
    ((dataset, _),) = documents(EncapsulatedPDFStorage)
    shown = signed.get(f"{DESK}/report.pdf").content
    assert shown == dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]


def test_the_sites_key_is_never_kept_in_clear(signed: Client) -> None:
    kept = SiteCertificate.objects.get()
    assert "ENCRYPTED PRIVATE KEY" in kept.encrypted_key


def test_after_a_change_of_the_secret_key_the_site_signs_with_a_new_certificate(
    signed: Client, north: Any, settings: Any
) -> None:
    settings.SECRET_KEY = "another"
    study = Study.objects.get()
    assert pdf_status(report_pdf(study, signed_parts(study)), north).bottom_line
    assert SiteCertificate.objects.filter(site=north).count() == 2


def test_an_uploaded_certificate_signs_from_now_on(signed: Client, client_of: Any, north: Any, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12
    from cryptography.x509 import load_pem_x509_certificates

    made = certificates._make(north)
    key = serialization.load_pem_private_key(made.encrypted_key.encode(), certificates._passphrase())
    leaf, root = load_pem_x509_certificates((made.certificate + made.chain).encode())
    protection = serialization.BestAvailableEncryption(b"word")
    content = pkcs12.serialize_key_and_certificates(b"n", key, leaf, [root], protection)  # type: ignore[arg-type]
    admin = client_of("admin")

    def send(password: str) -> Any:
        file = BytesIO(content)
        file.name = "site.p12"
        return admin.post("/reports/certificates/", {"site": north.pk, "password": password, "file": file})

    assert send("wrong").status_code == 422
    assert send("word").status_code == 302
    newest = SiteCertificate.objects.filter(site=north).latest("pk")
    assert newest.origin == "uploaded"
    assert certificates.certificate_of(north) == newest


def test_the_structured_report_is_valid_and_says_what_was_signed(signed: Client, tmp_path: Path) -> None:
    ((dataset, content),) = documents(BasicTextSRStorage)
    assert errors_of(content, tmp_path) == []
    assert (dataset.CompletionFlag, dataset.VerificationFlag, dataset.StudyInstanceUID) == ("COMPLETE", "VERIFIED", UID)
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "2000"
    said = "\n".join(texts_of(dataset))
    for words in ("Lungs: A 9 mm nodule, ≥ 2024.", "Otherwise clear.", "Control in 3 months."):
        assert words in said
    assert str(dataset.PatientName) == "Müller^Jürgen"


def test_an_addendum_brings_a_successor(signed: Client, tmp_path: Path) -> None:
    signed.post(f"{DESK}/start/", {"reason_for": "prior seen"})
    write(signed, findings="Unchanged since 2025.")
    sign(signed)
    events.deliver_due()
    (first, _), (second, content) = documents(BasicTextSRStorage)
    assert errors_of(content, tmp_path) == []
    predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    said = "\n".join(texts_of(second))
    assert "Control in 3 months." in said
    assert "Unchanged since 2025." in said


def test_a_retraction_is_shown_everywhere_and_the_text_stays(
    signed: Client, client_of: Any, north: Any, tmp_path: Path
) -> None:
    referrer = client_of("referrer")
    assert b"Control in 3 months." in referrer.get(f"{DESK}/").content
    part = ReportPart.objects.get()
    before = (part.sections, part.sha256)
    reasonless = signed.post(f"{DESK}/retract/", {"ordinal": 1, "password": PASSWORD, "reason_for": " "})
    assert b"Say why" in reasonless.content
    mistyped = signed.post(f"{DESK}/retract/", {"ordinal": 1, "password": "x", "reason_for": "wrong patient"})
    assert b'value="wrong patient"' in mistyped.content
    assert b"retract-form is-open" in mistyped.content
    signed.post(f"{DESK}/retract/", {"ordinal": 1, "password": PASSWORD, "reason_for": "wrong patient"})
    events.deliver_due()
    part = ReportPart.objects.get()
    assert (part.sections, part.sha256) == before
    assert Study.objects.get().status == "arrived"
    page = referrer.get(f"{DESK}/").content
    assert b"Retracted" in page
    assert b"wrong patient" in page
    assert b"Control in 3 months." in page
    assert b"was retracted" in referrer.get("/notifications/").content
    answer = signed.get(f"/api/v1/reports/{UID}/").json()
    assert answer[0]["retracted_reason"] == "wrong patient"
    (_, _), (sr, sr_content) = documents(BasicTextSRStorage)
    assert errors_of(sr_content, tmp_path) == []
    assert (sr.VerificationFlag, sr.CompletionFlagDescription) == ("UNVERIFIED", "Retracted")
    (_, _), (_, pdf_content) = documents(EncapsulatedPDFStorage)
    assert errors_of(pdf_content, tmp_path) == []
    pdf = referrer.get(f"{DESK}/report.pdf").content
    assert pdf_status(pdf, north).bottom_line
    if tool := shutil.which("pdftotext"):
        (tmp_path / "r.pdf").write_bytes(pdf)
        said = subprocess.run([tool, tmp_path / "r.pdf", "-"], capture_output=True, text=True, check=True).stdout
        assert "RETRACTED: wrong patient" in said
    assert b"retracted" in Client().get(f"/reports/verify/{part.verification_code}/").content
    signed.post(f"{DESK}/start/")
    assert ReportPart.objects.filter(kind="report", signed_at=None).exists()


def test_a_print_is_verified_by_strangers_without_naming_the_patient(signed: Client) -> None:
    part = ReportPart.objects.get()
    page = Client().get(f"/reports/verify/{part.verification_code}/")
    assert b"Valid." in page.content
    assert part.sha256[:12].encode() in page.content
    for secret in ("MÜLLER", "Jürgen", part.sha256, UID, "thorax"):
        assert secret.encode() not in page.content
    assert "MÜLLER".encode() in signed.get(f"/reports/verify/{part.verification_code}/").content
    unknown = Client().get("/reports/verify/0000/")
    assert unknown.status_code == 404
    assert b"No report with this code was signed here" in unknown.content


def test_an_addendum_is_told_to_those_who_read_the_report(signed: Client, client_of: Any) -> None:
    referrer = client_of("referrer")
    referrer.get(f"{DESK}/")
    signed.post(f"{DESK}/start/", {"reason_for": "prior seen"})
    write(signed, findings="Unchanged.")
    sign(signed)
    events.deliver_due()
    assert b"has an addendum" in referrer.get("/notifications/").content
    assert b"has an addendum" not in signed.get("/notifications/").content
    signed.post(f"{DESK}/retract/", {"ordinal": 1, "password": PASSWORD, "reason_for": "wrong patient"})
    events.deliver_due()
    assert ReportPart.objects.exclude(retraction=None).count() == 2, "its addendum goes with the report"
    assert referrer.get("/notifications/").content.count(b"was retracted") == 1
