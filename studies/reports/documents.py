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
from studies import events
from studies.ingest.services import Source, WayIn, ingest, stage
from studies.models import Study
from studies.reports.models import ReportPart
from studies.reports.selectors import signed_parts

SERIES_NUMBER = 9000


class DocumentNotArchived(RuntimeError):
    """The archive didn't take the document; the outbox tries again."""


def report_pdf(study: Study, parts: Sequence[ReportPart]) -> bytes:
    """Give the signed parts as one PDF/A-3 document. Nothing is fetched while it's made."""
    # WeasyPrint loads native libraries; only processes that make a PDF pay for that.
    import weasyprint

    html = render_to_string("reports/report_pdf.html", {"study": study, "parts": parts})
    stylesheet = finders.find("css/report_pdf.css")
    assert isinstance(stylesheet, str)
    document = weasyprint.HTML(string=html, url_fetcher=_refuse_fetching)
    pdf: bytes = document.write_pdf(
        stylesheets=[weasyprint.CSS(filename=stylesheet, url_fetcher=_refuse_fetching)], pdf_variant="pdf/a-3u"
    )
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
    parts = [p for p in signed_parts(study) if p.ordinal <= part.ordinal]
    content, sop_instance_uid = encapsulated_pdf(study, part, report_pdf(study, parts))
    principal = Principal(
        grants=frozenset({(Capability.STUDY_UPLOAD.value, study.site_id)}), user=part.signed_by, user_agent="report"
    )
    (outcome,) = ingest([stage([content], file_name="report.dcm")], Source(WayIn.REPORT, study.site, principal))
    if not outcome.is_in:
        raise DocumentNotArchived(outcome.reason)
    part.sop_instance_uid = sop_instance_uid
    part.save(update_fields=["sop_instance_uid"])


def encapsulated_pdf(study: Study, part: ReportPart, pdf: bytes) -> tuple[bytes, str]:
    """Wrap a PDF as a Part 10 file of the study; give it and its SOP Instance UID, the same for the same part."""
    assert part.signed_at is not None
    seeds = [settings.SECRET_KEY, study.study_instance_uid, study.site.slug]
    dataset = Dataset.from_json(_patient_and_study(study))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*seeds, "report", str(part.ordinal), part.sha256])
    dataset.StudyInstanceUID = study.study_instance_uid
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*seeds, "reports"])
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
    return buffer.getvalue(), str(dataset.SOPInstanceUID)


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
