"""Signed reports as documents: PDF (WeasyPrint, signed by pyHanko) and DICOM Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.urls import reverse
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, generate_uid
from qrcode.main import QRCode

from portal import pdf_libraries
from studies.models import Study
from studies.reports.certificates import sign_pdf, usable_certificate
from studies.reports.models import ReportPart

SERIES_NUMBER = 9000


def report_pdf(study: Study, parts: Sequence[ReportPart]) -> bytes:
    """Give the signed parts as one PDF/A-3 document with the site's signature.

    Nothing but our own stylesheet and fonts is read for it.
    """
    # WeasyPrint loads native libraries; only processes that make a PDF pay for that.
    pdf_libraries.load(settings.PDF_LIBRARIES)
    import weasyprint
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher

    address = verification_address(parts[-1])
    context = {
        "study": study,
        "parts": parts,
        "address": address,
        "qr": _qr_path(address),
        "is_retracted": all(part.is_retracted for part in parts),
        "certificate": usable_certificate(study.site),
    }
    html = render_to_string("reports/report_pdf.html", context)
    stylesheet = finders.find("css/report_pdf.css")
    assert isinstance(stylesheet, str)
    fonts = FontConfiguration()
    style = weasyprint.CSS(filename=stylesheet, url_fetcher=URLFetcher(allowed_protocols=["file"]), font_config=fonts)
    # Key images come inside the document; nothing else is fetched.
    document = weasyprint.HTML(string=html, url_fetcher=URLFetcher(allowed_protocols=["data"]))
    pdf: bytes = document.write_pdf(stylesheets=[style], font_config=fonts, pdf_variant="pdf/a-3u")
    return sign_pdf(pdf, study.site, reason=f"Report signed by {parts[-1].signer_name}")


def verification_address(part: ReportPart) -> str:
    """Give the address at which a print of the part is verified; the report's own where it has no code."""
    if not part.verification_code:
        return f"{settings.ATRIUM.public_url}{reverse('report', args=[part.report.study.study_instance_uid])}"
    return f"{settings.ATRIUM.public_url}{reverse('report_verify', args=[part.verification_code])}"


def _qr_path(text: str) -> dict[str, Any]:
    """Give a QR code as an SVG path of unit squares, with its width."""
    code = QRCode(border=0)
    code.add_data(text)
    matrix = code.get_matrix()
    squares = (f"M{x} {y}h1v1h-1z" for y, row in enumerate(matrix) for x, dark in enumerate(row) if dark)
    return {"size": len(matrix), "path": "".join(squares)}


def document_uid(study: Study, part: ReportPart, kind: str) -> str:
    """Give the SOP Instance UID of a signed part's document of a kind, always the same."""
    return str(generate_uid(entropy_srcs=[*seeds(study), kind, str(part.ordinal), part.sha256]))


def document_dataset(study: Study, sop_class_uid: str, sop_instance_uid: str, moment: datetime) -> Dataset:
    """Give what every document of a study begins with: patient, study, equipment and time of the content."""
    dataset = Dataset.from_json(_patient_and_study(study))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.StudyInstanceUID = study.study_instance_uid
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
        *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
    ):
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    dataset.Manufacturer = "Atrium"
    dataset.ContentDate = f"{moment:%Y%m%d}"
    dataset.ContentTime = f"{moment:%H%M%S}"
    dataset.TimezoneOffsetFromUTC = "+0000"
    return dataset


def part10(dataset: Dataset) -> bytes:
    """Give the data set as a Part 10 file (PS3.10)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, FileDataset("", dataset, file_meta=meta, preamble=b"\0" * 128), enforce_file_format=True)
    return buffer.getvalue()


def encapsulated_pdf(study: Study, part: ReportPart, pdf: bytes, sop_instance_uid: str, moment: datetime) -> bytes:
    """Wrap a PDF as a Part 10 file of the study; ``moment`` is when it came to say what it says."""
    dataset = document_dataset(study, EncapsulatedPDFStorage, sop_instance_uid, moment)
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*seeds(study), "reports"])
    dataset.Modality = "DOC"
    dataset.ConversionType = "WSD"
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SeriesDescription = "Reports"
    dataset.InstanceNumber = part.ordinal
    dataset.AcquisitionDateTime = f"{moment:%Y%m%d%H%M%S}+0000"
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.DocumentTitle = _title(part)
    dataset.VerificationFlag = "UNVERIFIED" if part.is_retracted else "VERIFIED"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "18748-4", "LN", "Diagnostic imaging study"
    dataset.ConceptNameCodeSequence = DicomSequence([code])
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    return part10(dataset)


def _title(part: ReportPart) -> str:
    if part.is_retracted:
        return "Diagnostic imaging report, retracted"
    return "Diagnostic imaging report" if part.kind == ReportPart.Kind.REPORT else "Diagnostic imaging report, addended"


def seeds(study: Study) -> list[str]:
    """Give what the UIDs of a study's documents are made from: never guessed, always the same."""
    return [settings.SECRET_KEY, study.study_instance_uid, study.site.slug]


# What an object of the study repeats of patient and study (PS3.3 C.7.1.1, C.7.2.1).
_REPEATED = {
    *("00080020", "00080030", "00080050", "00080090", "00081030"),
    *("00100010", "00100020", "00100021", "00100030", "00100040", "0020000D", "00200010"),
}


def _patient_and_study(study: Study) -> dict[str, Any]:
    return {tag: element for tag, element in study.attributes.items() if tag in _REPEATED}
