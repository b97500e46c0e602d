"""Signed reports as DICOM SR: Basic Text SR (PS3.3 A.35.1) by TID 2000 Basic Diagnostic Imaging Report (PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import BasicTextSRStorage, generate_uid

from accounts.models import User
from studies.models import Study
from studies.orders.models import Order
from studies.reports.documents import document_dataset, part10, seeds
from studies.reports.models import ReportPart

SERIES_NUMBER = 9001
Code = tuple[str, str, str]
TITLE: Code = ("18748-4", "LN", "Diagnostic Imaging Report")
ADDENDUM_HEADING: Code = ("55107-7", "LN", "Addendum")
# A section's role: its heading (CID 7001) and the concept of its text (CID 7002).
CONCEPTS: dict[str, tuple[Code, Code]] = {
    "indication": (("121109", "DCM", "Indications for Procedure"), ("121110", "DCM", "Patient Presentation")),
    "technique": (("121064", "DCM", "Current Procedure Descriptions"), ("121065", "DCM", "Procedure Description")),
    "comparison": (("121068", "DCM", "Previous Findings"), ("121069", "DCM", "Previous Finding")),
    "findings": (("121070", "DCM", "Findings"), ("121071", "DCM", "Finding")),
    "impression": (("121072", "DCM", "Impressions"), ("121073", "DCM", "Impression")),
}
_LANGUAGES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "nb": "Norwegian Bokmål"}


def structured_report(
    study: Study,
    parts: Sequence[ReportPart],
    *,
    sop_instance_uid: str,
    predecessor: str,
    moment: datetime,
    retraction_reason: str = "",
) -> bytes:
    """Give the signed parts as one SR document in a Part 10 file.

    ``predecessor`` is the SOP Instance UID of the document that it replaces, if any. A retracted report becomes a
    document that's no longer verified and says so.
    """
    last = parts[-1]
    dataset = document_dataset(study, BasicTextSRStorage, sop_instance_uid, moment)
    dataset.Modality = "SR"
    dataset.SeriesInstanceUID = _series_uid(study)
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SeriesDescription = "Structured reports"
    dataset.ReferencedPerformedProcedureStepSequence = DicomSequence()
    dataset.InstanceNumber = last.ordinal + (1000 if retraction_reason else 0)
    dataset.CompletionFlag = "COMPLETE"
    dataset.PerformedProcedureCodeSequence = DicomSequence()
    dataset.ReferencedRequestSequence = DicomSequence([_request(study)])
    if retraction_reason:
        dataset.CompletionFlag = "PARTIAL"
        dataset.CompletionFlagDescription = "Retracted"
        dataset.VerificationFlag = "UNVERIFIED"
    else:
        dataset.VerificationFlag = "VERIFIED"
        dataset.PreliminaryFlag = "FINAL"
        dataset.VerifyingObserverSequence = DicomSequence([_verifier(study, last)])
    if predecessor:
        dataset.PredecessorDocumentsSequence = DicomSequence([_reference(study, predecessor)])
    dataset.ValueType = "CONTAINER"
    dataset.ContinuityOfContent = "SEPARATE"
    dataset.ConceptNameCodeSequence = DicomSequence([_code(TITLE)])
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2000"
    dataset.ContentTemplateSequence = DicomSequence([template])
    content = [_language(parts[0]), *_observer(last)]
    if retraction_reason:
        words = f"This report was retracted: {retraction_reason}"
        content.append(_container(("121072", "DCM", "Impressions"), [_text(("121073", "DCM", "Impression"), words)]))
    for part in parts:
        content += _part_content(part)
    dataset.ContentSequence = DicomSequence(content)
    return part10(dataset)


def _series_uid(study: Study) -> str:
    return str(generate_uid(entropy_srcs=[*seeds(study), "structured reports"]))


def _part_content(part: ReportPart) -> list[Dataset]:
    texts = part.section_texts
    if part.kind == ReportPart.Kind.ADDENDUM:
        inner = [_text(CONCEPTS.get(t.role, CONCEPTS["findings"])[1], t.text) for t in texts]
        return [_container(ADDENDUM_HEADING, inner)]
    content = []
    for section in texts:
        heading, concept = CONCEPTS.get(section.role, CONCEPTS["findings"])
        text = section.text if section.role in CONCEPTS else f"{section.title}\n{section.text}"
        content.append(_container(heading, [_text(concept, text)]))
    return content


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _item(relationship: str, value_type: str, concept: Code) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    item.ConceptNameCodeSequence = DicomSequence([_code(concept)])
    return item


def _text(concept: Code, text: str) -> Dataset:
    item = _item("CONTAINS", "TEXT", concept)
    item.TextValue = text.replace("\n", "\r\n")
    return item


def _container(concept: Code, content: list[Dataset]) -> Dataset:
    item = _item("CONTAINS", "CONTAINER", concept)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = DicomSequence(content)
    return item


def _language(part: ReportPart) -> Dataset:
    language = part.template.language if part.template is not None else "en"
    item = _item("HAS CONCEPT MOD", "CODE", ("121049", "DCM", "Language of Content Item and Descendants"))
    meaning = _LANGUAGES.get(language.split("-")[0], language)
    item.ConceptCodeSequence = DicomSequence([_code((language, "RFC5646", meaning))])
    return item


def _observer(part: ReportPart) -> list[Dataset]:
    kind = _item("HAS OBS CONTEXT", "CODE", ("121005", "DCM", "Observer Type"))
    kind.ConceptCodeSequence = DicomSequence([_code(("121006", "DCM", "Person"))])
    name = _item("HAS OBS CONTEXT", "PNAME", ("121008", "DCM", "Person Observer Name"))
    name.PersonName = _person_name(part)
    return [kind, name]


def _person_name(part: ReportPart) -> str:
    signer: User | None = part.signed_by
    if signer is not None and signer.last_name:
        # Delimiters of PN (PS3.5 §6.2.1) don't belong into a component.
        family, given = (
            n.translate(str.maketrans("^=\\", "   ")).strip() for n in (signer.last_name, signer.first_name)
        )
        return f"{family}^{given}"[:64]
    return part.signer_name[:64]


def _verifier(study: Study, part: ReportPart) -> Dataset:
    assert part.signed_at is not None
    verifier = Dataset()
    verifier.VerifyingOrganization = study.site.name[:64]
    verifier.VerificationDateTime = f"{part.signed_at.astimezone(UTC):%Y%m%d%H%M%S}+0000"
    verifier.VerifyingObserverName = _person_name(part)
    verifier.VerifyingObserverIdentificationCodeSequence = DicomSequence()
    return verifier


def _request(study: Study) -> Dataset:
    order = Order.objects.filter(study=study).order_by("-pk").first()
    request = Dataset()
    request.StudyInstanceUID = study.study_instance_uid
    request.ReferencedStudySequence = DicomSequence()
    request.AccessionNumber = study.accession_number[:16]
    request.PlacerOrderNumberImagingServiceRequest = order.placer_order_number if order else ""
    request.FillerOrderNumberImagingServiceRequest = order.filler_order_number if order else ""
    request.RequestedProcedureID = order.requested_procedure_id[:16] if order else ""
    request.RequestedProcedureDescription = order.requested_procedure_description[:64] if order else ""
    request.RequestedProcedureCodeSequence = DicomSequence()
    return request


def _reference(study: Study, sop_instance_uid: str) -> Dataset:
    sop = Dataset()
    sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID = BasicTextSRStorage, sop_instance_uid
    series = Dataset()
    series.SeriesInstanceUID = _series_uid(study)
    series.ReferencedSOPSequence = DicomSequence([sop])
    document = Dataset()
    document.StudyInstanceUID = study.study_instance_uid
    document.ReferencedSeriesSequence = DicomSequence([series])
    return document
