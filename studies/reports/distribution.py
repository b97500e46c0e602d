"""Signed reports leave: into the study as Encapsulated PDF and SR, and as notices. All by the outbox."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from typing import Any

import pydicom
from django.urls import reverse

from accounts.capabilities import Capability
from accounts.models import User
from accounts.notifications import notify
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from studies import events
from studies.archive import objects
from studies.ingest.services import Source, WayIn, ingest, stage
from studies.models import Instance, Study
from studies.reports.documents import document_uid, encapsulated_pdf, report_pdf
from studies.reports.models import ReportPart, Retraction
from studies.reports.selectors import signed_parts
from studies.reports.structured import structured_report


class DocumentNotArchived(RuntimeError):
    """The archive didn't take the document; the outbox tries again."""


@events.handle("report.signed")
def archive_document(payload: dict[str, Any]) -> None:
    """Store the PDF of a newly signed part into its study; a second delivery finds it there.

    Raises DocumentNotArchived.
    """
    part = _part(payload["part"])
    if part.sop_instance_uid:
        return
    study = part.report.study
    uid = document_uid(study, part, "report")
    moment = _signed_at(part)
    parts = _standing(study, part.ordinal)
    _archive(study, part.signed_by, uid, lambda: encapsulated_pdf(study, part, report_pdf(study, parts), uid, moment))
    part.sop_instance_uid = uid
    part.save(update_fields=["sop_instance_uid"])


@events.handle("report.signed")
def archive_structured_report(payload: dict[str, Any]) -> None:
    """Store the SR of a newly signed part into its study, as successor of the one before.

    Raises DocumentNotArchived.
    """
    part = _part(payload["part"])
    if part.sr_instance_uid:
        return
    study = part.report.study
    uid = document_uid(study, part, "structured report")
    parts = _standing(study, part.ordinal)
    predecessor = _latest_structured_report(study, before=part.ordinal)
    _archive(
        study,
        part.signed_by,
        uid,
        lambda: structured_report(study, parts, sop_instance_uid=uid, predecessor=predecessor, moment=_signed_at(part)),
    )
    part.sr_instance_uid = uid
    part.save(update_fields=["sr_instance_uid"])


@events.handle("report.retracted")
def archive_retraction(payload: dict[str, Any]) -> None:
    """Store the marked PDF and SR of a retracted part into its study. Raises DocumentNotArchived."""
    retraction = Retraction.objects.select_related("retracted_by").get(pk=payload["retraction"])
    part = _part(retraction.part_id)
    study = part.report.study
    moment = retraction.retracted_at
    uids = {kind: document_uid(study, part, f"retracted {kind}") for kind in ("report", "structured report")}
    if not retraction.sop_instance_uid:
        uid = uids["report"]
        parts = [p for p in signed_parts(study) if p.ordinal <= part.ordinal]
        pdf_of = lambda: encapsulated_pdf(study, part, report_pdf(study, parts), uid, moment)  # noqa: E731
        _archive(study, retraction.retracted_by, uid, pdf_of)
    if not retraction.sr_instance_uid:
        uid_of_sr = uids["structured report"]
        _archive(
            study,
            retraction.retracted_by,
            uid_of_sr,
            lambda: structured_report(
                study,
                [part],
                sop_instance_uid=uid_of_sr,
                predecessor=part.sr_instance_uid,
                moment=moment,
                retraction_reason=retraction.reason,
            ),
        )
    Retraction.objects.filter(pk=retraction.pk).update(
        sop_instance_uid=uids["report"], sr_instance_uid=uids["structured report"]
    )


@events.handle("report.signed")
def tell_earlier_readers(payload: dict[str, Any]) -> None:
    """Tell those who read the report before that there's an addendum."""
    part = _part(payload["part"])
    if part.kind == ReportPart.Kind.ADDENDUM:
        _tell_readers(part, part.signed_by, f"addendum:{part.pk}", "A report that you read has an addendum.")


@events.handle("report.retracted")
def tell_readers_of_retraction(payload: dict[str, Any]) -> None:
    """Tell those who read the report that it no longer holds; once, also where its addenda went with it."""
    retraction = Retraction.objects.select_related("retracted_by").get(pk=payload["retraction"])
    part = _part(retraction.part_id)
    key = f"retraction:{part.report_id}:{retraction.retracted_at.timestamp():.6f}"
    _tell_readers(part, retraction.retracted_by, key, "A report that you read was retracted.", is_urgent=True)


def current_pdf(study: Study) -> bytes | None:
    """Give the PDF of the report as it stands now, as archived; made at once while it isn't archived yet.

    None while nothing is signed.
    """
    parts = signed_parts(study)
    if not parts:
        return None
    states: list[tuple[datetime, str]] = [(_signed_at(p), p.sop_instance_uid) for p in parts]
    states += [(p.retraction.retracted_at, p.retraction.sop_instance_uid) for p in parts if p.is_retracted]
    _, uid = max(states)
    instance = Instance.objects.filter(series__study=study, sop_instance_uid=uid, is_current=True).first()
    if instance is None:
        return report_pdf(study, parts)
    dataset = pydicom.dcmread(BytesIO(objects.read_instance(instance)))
    return bytes(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength])


def _part(pk: int) -> ReportPart:
    related = ("report__study__site", "report__study__patient", "signed_by", "template", "retraction")
    return ReportPart.objects.select_related(*related).get(pk=pk)


def _signed_at(part: ReportPart) -> datetime:
    assert part.signed_at is not None
    return part.signed_at


def _standing(study: Study, ordinal: int) -> list[ReportPart]:
    return [p for p in signed_parts(study) if p.ordinal <= ordinal and (p.ordinal == ordinal or not p.is_retracted)]


def _latest_structured_report(study: Study, *, before: int) -> str:
    for part in reversed(signed_parts(study)):
        if part.ordinal < before:
            retraction_uid = part.retraction.sr_instance_uid if part.is_retracted else ""
            return retraction_uid or part.sr_instance_uid
    return ""


def _archive(study: Study, signer: User | None, sop_instance_uid: str, content: Callable[[], bytes]) -> None:
    # Of an earlier delivery that broke off before the part knew: its bytes stand, a second rendering may differ.
    if Instance.objects.filter(series__study=study, sop_instance_uid=sop_instance_uid).exists():
        return
    principal = Principal(
        grants=frozenset({(Capability.STUDY_UPLOAD.value, study.site_id)}), user=signer, user_agent="report"
    )
    staged = stage([content()], file_name="report.dcm")
    (outcome,) = ingest([staged], Source(WayIn.REPORT, study.site, principal))
    if not outcome.is_in:
        raise DocumentNotArchived(outcome.reason)


def _tell_readers(part: ReportPart, doer: User | None, key: str, text: str, *, is_urgent: bool = False) -> None:
    study = part.report.study
    readers = AuditEvent.objects.filter(
        study_instance_uid=study.study_instance_uid,
        site_id=study.site_id,
        action__in=[AuditEvent.Action.REPORT_READ, AuditEvent.Action.REPORT_PDF],
        outcome=AuditEvent.Outcome.SUCCESS,
    ).values_list("user_id", flat=True)
    people = User.objects.filter(pk__in={pk for pk in readers if pk}, is_active=True)
    if doer is not None:
        people = people.exclude(pk=doer.pk)
    notify(
        people,
        key=key,
        text=text,
        url=reverse("report", args=[study.study_instance_uid]),
        is_urgent=is_urgent,
        by_email=True,
    )
