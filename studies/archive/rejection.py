"""Imaging Object Change Management (IHE RAD TF-2 4.66): rejection notes, their effect, and their undoing.

A note is a Key Object Selection Document whose title says why. What it names vanishes from queries, retrievals, views
and counts, stays in the archive, and can be restored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO

import pydicom
from django.db import transaction
from django.utils import timezone
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage, generate_uid

from accounts.capabilities import Capability
from accounts.credentials import forget_all
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive.errors import NotAuthorised
from studies.archive.models import Rejection
from studies.counting import count_series, count_study
from studies.models import Instance, Study
from studies.trail import subject_of


class Reason(StrEnum):
    """Title code of a rejection note (PS3.16 CID 7011)."""

    QUALITY = "113001"
    PATIENT_SAFETY = "113037"
    WRONG_WORKLIST_ENTRY = "113038"
    RETENTION_EXPIRED = "113039"


TITLES: dict[Reason, Code] = {
    Reason.QUALITY: codes.DCM.RejectedForQualityReasons,
    Reason.PATIENT_SAFETY: codes.DCM.RejectedForPatientSafetyReasons,
    Reason.WRONG_WORKLIST_ENTRY: codes.DCM.IncorrectModalityWorklistEntry,
    Reason.RETENTION_EXPIRED: codes.DCM.DataRetentionPolicyExpired,
}
# When a rejected instance is sent again: refused, or taken as wanted again; for quality it stays hidden in silence.
REFUSED_AGAIN = frozenset({Reason.PATIENT_SAFETY, Reason.WRONG_WORKLIST_ENTRY})
WANTED_AGAIN = frozenset({Reason.RETENTION_EXPIRED})
# Such a note is shown like any key object selection; the others vanish with what they reject.
SHOWN_NOTES = frozenset({Reason.QUALITY})


@dataclass(frozen=True)
class RejectionNote:
    """What a note rejects: why, and (Study Instance UID, SOP Instance UID) of each instance."""

    sop_instance_uid: str
    reason: Reason
    references: tuple[tuple[str, str], ...]


def read_note(dataset: Dataset) -> RejectionNote | None:
    """Give the rejection note in a key object selection; None for one that is no rejection."""
    titles = dataset.get("ConceptNameCodeSequence") or []
    title = titles[0] if titles else Dataset()
    if title.get("CodingSchemeDesignator") != "DCM" or title.get("CodeValue") not in list(Reason):
        return None
    references = dict.fromkeys(
        (str(study.get("StudyInstanceUID", "")), str(reference.get("ReferencedSOPInstanceUID", "")))
        for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []
        for series in study.get("ReferencedSeriesSequence") or []
        for reference in series.get("ReferencedSOPSequence") or []
    )
    return RejectionNote(str(dataset.get("SOPInstanceUID", "")), Reason(title.CodeValue), tuple(references))


def write_note(*, study: Study, instances: Sequence[Instance], reason: Reason, observer: str) -> bytes:
    """Give a rejection note of instances of one study as a Part 10 file (PS3.3 A.35.4, PS3.16 TID 2010)."""
    note = Dataset()
    for keyword in (
        *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
        *("AccessionNumber", "ReferringPhysicianName", "StudyID", "StudyDescription"),
    ):
        setattr(note, keyword, "")
    note.update(Dataset.from_json({**study.attributes, **study.corrections}))
    note.SpecificCharacterSet = "ISO_IR 192"
    now = timezone.now()
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SOPInstanceUID = generate_uid()
    note.StudyInstanceUID = study.study_instance_uid
    note.SeriesInstanceUID = generate_uid()
    note.Modality = "KO"
    note.SeriesNumber, note.InstanceNumber = 9000, 1
    note.SeriesDescription = TITLES[reason].meaning
    note.ContentDate, note.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    note.TimezoneOffsetFromUTC = "+0000"
    note.Manufacturer = "Atrium"
    note.ReferencedPerformedProcedureStepSequence = []
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = [_coded(TITLES[reason])]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    note.ContentTemplateSequence = [template]
    note.ContentSequence = [_observer(observer), *(_image(instance) for instance in instances)]
    note.CurrentRequestedProcedureEvidenceSequence = [_evidence(study, instances)]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = note.SOPClassUID, note.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    file = FileDataset(None, note, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _observer(name: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "HAS OBS CONTEXT", "PNAME"
    item.ConceptNameCodeSequence = [_coded(codes.DCM.PersonObserverName)]
    item.PersonName = name
    return item


def _reference(instance: Instance) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = instance.sop_class_uid
    reference.ReferencedSOPInstanceUID = instance.sop_instance_uid
    return reference


def _image(instance: Instance) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "IMAGE" if instance.number_of_frames else "COMPOSITE"
    item.ReferencedSOPSequence = [_reference(instance)]
    return item


def _evidence(study: Study, instances: Sequence[Instance]) -> Dataset:
    by_series: dict[str, list[Dataset]] = defaultdict(list)
    for instance in instances:
        by_series[instance.series.series_instance_uid].append(_reference(instance))
    evidence = Dataset()
    evidence.StudyInstanceUID = study.study_instance_uid
    evidence.ReferencedSeriesSequence = []
    for series_instance_uid, references in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_instance_uid
        series.ReferencedSOPSequence = references
        evidence.ReferencedSeriesSequence.append(series)
    return evidence


def standing(site: Site, sop_instance_uids: Iterable[str]) -> dict[tuple[str, str], Reason]:
    """Give why instances are rejected at a site, by (Study Instance UID, SOP Instance UID); one query."""
    rows = Rejection.objects.filter(site=site, sop_instance_uid__in=list(sop_instance_uids), lifted_at__isnull=True)
    return {
        (study, instance): Reason(code)
        for study, instance, code in rows.values_list("study_instance_uid", "sop_instance_uid", "code")
    }


def apply_note(note: RejectionNote, *, site: Site, principal: Principal) -> None:
    """Reject what a note names, in the caller's transaction; its effect is seen when that commits.

    The note itself must be indexed already. What another note rejected before stays with that note's reason.
    """
    known = standing(site, (uid for _, uid in note.references))
    fresh = [reference for reference in note.references if reference not in known and all(reference)]
    Rejection.objects.bulk_create(
        (
            Rejection(
                site=site,
                study_instance_uid=study_uid[:64],
                sop_instance_uid=uid[:64],
                code=note.reason,
                note_sop_instance_uid=note.sop_instance_uid,
                rejected_by=principal.name,
            )
            for study_uid, uid in fresh
        ),
        ignore_conflicts=True,
    )
    by_study: dict[str, list[str]] = defaultdict(list)
    for study_uid, uid in fresh:
        by_study[study_uid].append(uid)
    if note.reason not in SHOWN_NOTES:
        _hide_note(note, site)
    for study_uid in sorted(by_study):
        study = Study.objects.select_for_update().filter(site=site, study_instance_uid=study_uid).first()
        if study is not None:
            _hide(study, by_study[study_uid], note.reason)
            _record("instances rejected", study, principal, len(by_study[study_uid]), note.reason)
            events.emit("instances.rejected", study=study.pk, note=note.sop_instance_uid)


def _hide_note(note: RejectionNote, site: Site) -> None:
    notes = Instance.objects.filter(
        series__study__site=site, sop_instance_uid=note.sop_instance_uid, is_current=True
    ).select_related("series__study")
    for one in notes:
        _hide(one.series.study, [note.sop_instance_uid], note.reason)


def _hide(study: Study, sop_instance_uids: list[str], reason: Reason) -> None:
    hidden = Instance.objects.filter(series__study=study, sop_instance_uid__in=sop_instance_uids, is_current=True)
    series_ids = set(hidden.values_list("series_id", flat=True))
    hidden.update(is_current=False, rejection_code=reason)
    # Where their frames lie, too.
    transaction.on_commit(forget_all)
    count_series(series_ids)
    count_study(study)


def show_again(study: Study, sop_instance_uids: Iterable[str], *, lifted_by: str) -> int:
    """Undo rejections of a study's instances, in the caller's transaction, the study locked; give how many."""
    uids = list(sop_instance_uids)
    Rejection.objects.filter(
        site_id=study.site_id,
        study_instance_uid=study.study_instance_uid,
        sop_instance_uid__in=uids,
        lifted_at__isnull=True,
    ).update(lifted_at=timezone.now(), lifted_by=lifted_by)
    shown = Instance.objects.filter(series__study=study, sop_instance_uid__in=uids).exclude(rejection_code="")
    series_ids = set(shown.values_list("series_id", flat=True))
    count = shown.update(is_current=True, rejection_code="")
    count_series(series_ids)
    count_study(study)
    return count


@transaction.atomic
def restore_instances(*, study: Study, sop_instance_uids: Iterable[str], principal: Principal) -> int:
    """Take back the rejection of a study's instances and give how many are seen again. Raises NotAuthorised."""
    if not principal.may(Capability.STUDY_REJECT, study.site_id):
        raise NotAuthorised
    study = Study.objects.select_for_update().get(pk=study.pk)
    count = show_again(study, sop_instance_uids, lifted_by=principal.name)
    if count:
        events.emit("instances.restored", study=study.pk)
        _record("instances restored", study, principal, count)
    return count


def _record(what: str, study: Study, principal: Principal, count: int, reason: str = "") -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details={"what": what, "instances": count, **({"code": str(reason)} if reason else {})},
    )
