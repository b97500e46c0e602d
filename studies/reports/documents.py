"""Signed reports as documents: PDF (WeasyPrint) and DICOM Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, generate_uid

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal import pdf_libraries
from studies import events
from studies.ingest.services import Source, WayIn, ingest, stage
from studies.models import Instance, Study
from studies.reports.models import ReportPart
from studies.reports.selectors import signed_parts

SERIES_NUMBER = 9000


class DocumentNotArchived(RuntimeError):
    """The archive didn't take the document; the outbox tries again."""


def report_pdf(study: Study, parts: Sequence[ReportPart]) -> bytes:
    """Give the signed parts as one PDF/A-3 document. Nothing but our own stylesheet and fonts is read for it."""
    # WeasyPrint loads native libraries; only processes that make a PDF pay for that.
    pdf_libraries.load(settings.PDF_LIBRARIES)
    import weasyprint
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher

    html = render_to_string("reports/report_pdf.html", {"study": study, "parts": parts})
    stylesheet = finders.find("css/report_pdf.css")
    assert isinstance(stylesheet, str)
    fonts = FontConfiguration()
    style = weasyprint.CSS(filename=stylesheet, url_fetcher=URLFetcher(allowed_protocols=["file"]), font_config=fonts)
    document = weasyprint.HTML(string=html, url_fetcher=_refuse_fetching)
    pdf: bytes = document.write_pdf(stylesheets=[style], font_config=fonts, pdf_variant="pdf/a-3u")
    return pdf


def _refuse_fetching(url: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    raise ValueError("a report fetches nothing")


@events.handle("report.signed")
def archive_document(payload: dict[str, Any]) -> None:
    """Store the PDF of a newly signed part into its study; a second delivery finds it there.

    Raises DocumentNotArchived.
    """
    part = ReportPart.objects.select_related("report__study__site", "report__study__patient").get(pk=payload["part"])
    if part.sop_instance_uid:
        return
    study = part.report.study
    sop_instance_uid = document_uid(study, part)
    # Of an earlier delivery that broke off before the part knew: its bytes stand, a second rendering may differ.
    if not Instance.objects.filter(series__study=study, sop_instance_uid=sop_instance_uid).exists():
        _archive(study, part)
    part.sop_instance_uid = sop_instance_uid
    part.save(update_fields=["sop_instance_uid"])


def _archive(study: Study, part: ReportPart) -> None:
    parts = [p for p in signed_parts(study) if p.ordinal <= part.ordinal]
    content = encapsulated_pdf(study, part, report_pdf(study, parts))
    principal = Principal(
        grants=frozenset({(Capability.STUDY_UPLOAD.value, study.site_id)}), user=part.signed_by, user_agent="report"
    )
    (outcome,) = ingest([stage([content], file_name="report.dcm")], Source(WayIn.REPORT, study.site, principal))
    if not outcome.is_in:
        raise DocumentNotArchived(outcome.reason)


def document_uid(study: Study, part: ReportPart) -> str:
    """Give the SOP Instance UID of a signed part's document, always the same."""
    return str(generate_uid(entropy_srcs=[*_seeds(study), "report", str(part.ordinal), part.sha256]))


def encapsulated_pdf(study: Study, part: ReportPart, pdf: bytes) -> bytes:
    """Wrap a PDF as a Part 10 file of the study."""
    assert part.signed_at is not None
    dataset = Dataset.from_json(_patient_and_study(study))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = document_uid(study, part)
    dataset.StudyInstanceUID = study.study_instance_uid
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*_seeds(study), "reports"])
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        _ensure(dataset, keyword)
    for keyword in ("ReferringPhysicianName", "StudyID", "AccessionNumber"):
        _ensure(dataset, keyword)
    dataset.Modality = "DOC"
    dataset.ConversionType = "WSD"
    dataset.Manufacturer = "Atrium"
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SeriesDescription = "Reports"
    dataset.InstanceNumber = part.ordinal
    dataset.ContentDate = f"{part.signed_at:%Y%m%d}"
    dataset.ContentTime = f"{part.signed_at:%H%M%S}"
    dataset.AcquisitionDateTime = f"{part.signed_at:%Y%m%d%H%M%S}+0000"
    dataset.TimezoneOffsetFromUTC = "+0000"
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.DocumentTitle = "Diagnostic imaging report" if part.ordinal == 1 else "Diagnostic imaging report, addended"
    dataset.VerificationFlag = "VERIFIED"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "18748-4", "LN", "Diagnostic imaging study"
    dataset.ConceptNameCodeSequence = DicomSequence([code])
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", dataset, file_meta=meta, preamble=b"\0" * 128)
    buffer = BytesIO()
    dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def _seeds(study: Study) -> list[str]:
    return [settings.SECRET_KEY, study.study_instance_uid, study.site.slug]


# What an object of the study repeats of patient and study (PS3.3 C.7.1.1, C.7.2.1).
_REPEATED = {
    *("00080020", "00080030", "00080050", "00080090", "00081030"),
    *("00100010", "00100020", "00100021", "00100030", "00100040", "0020000D", "00200010"),
}


def _patient_and_study(study: Study) -> dict[str, Any]:
    return {tag: element for tag, element in study.attributes.items() if tag in _REPEATED}


def _ensure(dataset: Dataset, keyword: str) -> None:
    if keyword not in dataset:
        setattr(dataset, keyword, "")
