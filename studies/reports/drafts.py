"""Writing drafts. The study's row is locked first, so that two people never open two drafts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.models import Study
from studies.orders.models import Order
from studies.reading import set_status
from studies.reports.errors import (
    DraftChangedElsewhere,
    DraftHeldByOther,
    DraftIsGone,
    DraftIsSignedAsPreliminary,
    NoSuchTemplate,
    NoSuchVersion,
    NotAllowed,
    ReasonMissing,
    ReportAlreadySigned,
    ReportNotSigned,
    TextTooLong,
)
from studies.reports.models import OpenedPrior, Report, ReportPart, ReportTemplate, ReportVersion
from studies.reports.outline import Value
from studies.reports.templates import template_for, templates_for
from studies.trail import subject_of

LONGEST_TEXT = 50_000
# Saves within one window share a version: a history of minutes can be read, one of seconds can't.
VERSION_WINDOW = timedelta(minutes=5)
# Control characters but tab and line feed: no text needs them, and PostgreSQL keeps no NUL.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@transaction.atomic
def open_draft(*, study: Study, principal: Principal) -> ReportPart:
    """Give the study's open draft of its report, made for the principal if there is none.

    A new one gets the template that fits the study, its defaults, and the order's indication.
    Raises NotAllowed, ReportAlreadySigned. The draft given may be another person's.
    """
    require(principal, Capability.REPORT_WRITE, study)
    report = _locked_report(study)
    draft = report.parts.filter(signed_at=None).select_related("author").first()
    if draft is not None:
        return draft
    parts = list(report.parts.select_related("retraction"))
    if any(not part.is_retracted for part in parts):
        raise ReportAlreadySigned
    draft = _blank(study, report, principal)
    draft.ordinal = len(parts) + 1
    set_status(study, Study.Status.IN_READING, user_of(principal))
    return _new_draft(draft, principal, draft.values)


def blank_draft(*, study: Study, principal: Principal) -> ReportPart:
    """Give what ``open_draft`` would begin with, unsaved: the desk is there before a case is taken."""
    return _blank(study, Report(study=study), principal)


def _blank(study: Study, report: Report, principal: Principal) -> ReportPart:
    template = template_for(study, principal)
    draft = ReportPart(
        report=report, kind=ReportPart.Kind.REPORT, ordinal=1, template=template, author=user_of(principal)
    )
    draft.values = draft.outline.defaults()
    order = Order.objects.filter(study=study).exclude(indication="").order_by("-pk").first()
    section = draft.outline.section_of_role("indication")
    if order is not None and section is not None and section.running_text is not None:
        draft.values[section.running_text.id] = cleaned_text(order.indication)
    return draft


@transaction.atomic
def start_addendum(*, study: Study, principal: Principal, reason: str) -> ReportPart:
    """Open the draft of an addendum to the signed report.

    Raises NotAllowed, ReportNotSigned, ReasonMissing, DraftChangedElsewhere when an addendum is being written already.
    """
    require(principal, Capability.REPORT_WRITE, study)
    reason = cleaned_text(reason).strip()
    if not reason:
        raise ReasonMissing
    report = _locked_report(study)
    parts = list(report.parts.select_related("author", "retraction"))
    if not any(part.is_signed and not part.is_retracted for part in parts):
        raise ReportNotSigned
    if not parts[-1].is_signed:
        raise DraftChangedElsewhere(parts[-1])
    draft = ReportPart(report=report, kind=ReportPart.Kind.ADDENDUM, ordinal=parts[-1].ordinal + 1)
    return _new_draft(draft, principal, {"reason": reason})


@transaction.atomic
def save_draft(
    *, part: ReportPart, principal: Principal, values: Mapping[str, Value], base_revision: int
) -> ReportPart:
    """Keep what was entered and give the draft with its new revision. Fields that aren't named stay.

    What others changed since ``base_revision`` in other fields stays too. Raises NotAllowed, TextTooLong, DraftIsGone,
    DraftHeldByOther, and DraftChangedElsewhere when a field was changed on both sides to different values: then nothing
    is overwritten, and the newer draft comes with the error.
    """
    require(principal, Capability.REPORT_WRITE, part.report.study)
    draft = locked_draft(part, principal)
    known = draft.outline.fields
    entered = {name: _cleaned(value) for name, value in values.items() if name in known}
    conflicting = [
        name
        for name, value in entered.items()
        if draft.value_revisions.get(name, 0) > base_revision and draft.values.get(name, known[name].empty()) != value
    ]
    if conflicting:
        raise DraftChangedElsewhere(draft, conflicting)
    _write(draft, {**draft.values, **entered}, principal, ReportVersion.Kind.SAVED)
    return draft


def end_sitting(part: ReportPart) -> None:
    """Keep the draft's last version as it is: what comes next may overwrite its words after a conflict."""
    last = ReportVersion.objects.filter(report=part.report_id, ordinal=part.ordinal).order_by("-pk").first()
    if last is not None:
        ReportVersion.objects.filter(pk=last.pk).update(began_at=F("began_at") - VERSION_WINDOW)


def changed_since(draft: ReportPart, revision: int) -> dict[str, Value]:
    """Give the fields of a draft that were changed after the revision."""
    return {name: draft.values.get(name, "") for name, last in draft.value_revisions.items() if last > revision}


@transaction.atomic
def change_template(*, part: ReportPart, principal: Principal, template_id: int | None) -> ReportPart:
    """Write the draft with another template; what was entered goes along. Without an id, the plain outline.

    Raises NotAllowed, NoSuchTemplate, DraftIsGone, DraftHeldByOther.
    """
    study = part.report.study
    require(principal, Capability.REPORT_WRITE, study)
    draft = locked_draft(part, principal)
    template: ReportTemplate | None = None
    if template_id is not None:
        template = templates_for(study, principal).filter(pk=template_id).first()
        if template is None:
            raise NoSuchTemplate
    if draft.kind == ReportPart.Kind.ADDENDUM or template == draft.template:
        return draft
    previous = draft.outline
    draft.template = template
    values = draft.outline.carried_over(draft.values, previous)
    _write(draft, values, principal, ReportVersion.Kind.TEMPLATE, "template")
    return draft


@transaction.atomic
def restore_version(*, part: ReportPart, principal: Principal, version_id: int) -> ReportPart:
    """Bring an earlier version's words back into the draft; what's there now stays a version of its own.

    Raises NotAllowed, NoSuchVersion, DraftIsGone, DraftHeldByOther.
    """
    require(principal, Capability.REPORT_WRITE, part.report.study)
    draft = locked_draft(part, principal)
    version = ReportVersion.objects.filter(pk=version_id, report=draft.report_id, part_kind=draft.kind).first()
    if version is None:
        raise NoSuchVersion
    draft.template = version.template
    _write(draft, version.values, principal, ReportVersion.Kind.RESTORED, "template")
    return draft


@transaction.atomic
def take_over_draft(*, part: ReportPart, principal: Principal) -> ReportPart:
    """Make the principal the draft's author; whoever wrote it is told when their window saves next.

    Raises NotAllowed, DraftIsGone.
    """
    study = part.report.study
    require(principal, Capability.REPORT_WRITE, study)
    draft = locked_draft(part, None)
    if draft.author_id == user_of(principal).pk:
        return draft
    previous = draft.author.username
    draft.author = user_of(principal)
    _write(draft, draft.values, principal, ReportVersion.Kind.TAKEN_OVER, "author")
    record_on(
        AuditEvent.Action.REPORT_DRAFT,
        study,
        principal,
        {"step": "taken over", "from": previous, "part": draft.ordinal},
    )
    return draft


@transaction.atomic
def discard_draft(*, part: ReportPart, principal: Principal) -> None:
    """Delete one's own draft; its versions stay, so that it can be brought back into another.

    Raises NotAllowed, DraftIsGone, DraftHeldByOther, DraftIsSignedAsPreliminary.
    """
    study = part.report.study
    require(principal, Capability.REPORT_WRITE, study)
    draft = locked_draft(part, principal)
    if draft.preliminary_signatures.exists():
        raise DraftIsSignedAsPreliminary
    keep_version(draft, principal, ReportVersion.Kind.DISCARDED)
    ordinal, is_report = draft.ordinal, draft.kind == ReportPart.Kind.REPORT
    draft.delete()
    if is_report:
        set_status(study, Study.Status.ARRIVED, user_of(principal))
    record_on(AuditEvent.Action.REPORT_DRAFT, study, principal, {"step": "discarded", "part": ordinal})


@transaction.atomic
def note_opened_prior(*, study: Study, prior: Study, principal: Principal) -> None:
    """Remember that the principal looked at an earlier study of the same patient. Raises NotAllowed."""
    require(principal, Capability.REPORT_WRITE, study)
    if prior.pk != study.pk and prior.patient_id == study.patient_id:
        OpenedPrior.objects.update_or_create(study=study, prior=prior, user=user_of(principal))


def keep_version(draft: ReportPart, principal: Principal, kind: ReportVersion.Kind) -> None:
    """Keep the draft as it is; a save soon after the same person's last one replaces it."""
    now = timezone.now()
    state = {
        "revision": draft.revision,
        "template_id": draft.template_id,
        "values": draft.values,
        "sections": draft.sections,
        "saved_at": now,
    }
    author = user_of(principal)
    if kind == ReportVersion.Kind.SAVED:
        last = ReportVersion.objects.filter(report=draft.report_id, ordinal=draft.ordinal).order_by("-pk").first()
        is_same_sitting = (
            last is not None
            and last.kind == ReportVersion.Kind.SAVED
            and last.author_id == author.pk
            and last.template_id == draft.template_id
            and last.began_at > now - VERSION_WINDOW
        )
        if last is not None and is_same_sitting:
            ReportVersion.objects.filter(pk=last.pk).update(**state)
            return
    ReportVersion.objects.create(
        report_id=draft.report_id,
        ordinal=draft.ordinal,
        part_kind=draft.kind,
        kind=kind,
        author=author,
        began_at=now,
        **state,
    )


def require(principal: Principal, capability: Capability, study: Study) -> None:
    """Raise NotAllowed unless a person acts who holds the capability at the study's site."""
    if principal.user is None or not principal.may(capability, study.site_id):
        raise NotAllowed


def user_of(principal: Principal) -> User:
    """Give the person who acts. Raises NotAllowed."""
    if principal.user is None:
        raise NotAllowed
    return principal.user


def locked_draft(part: ReportPart, principal: Principal | None) -> ReportPart:
    """Give the draft as it is now, locked until the commit; with a principal, theirs only.

    Raises DraftIsGone, DraftHeldByOther.
    """
    Study.objects.select_for_update().get(pk=part.report.study_id)
    draft = ReportPart.objects.filter(pk=part.pk, signed_at=None).select_related("author", "report", "template").first()
    if draft is None:
        raise DraftIsGone
    if principal is not None and draft.author_id != user_of(principal).pk:
        raise DraftHeldByOther(draft)
    return draft


def cleaned_text(text: str) -> str:
    """Give the text with plain line feeds and without control characters. Raises TextTooLong."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()
    if len(text) > LONGEST_TEXT:
        raise TextTooLong
    return _CONTROL.sub("", text)


def record_on(
    action: AuditEvent.Action,
    study: Study,
    principal: Principal,
    details: dict[str, Any],
    outcome: AuditEvent.Outcome = AuditEvent.Outcome.SUCCESS,
) -> None:
    """Record what was done to a study's report."""
    record(
        action,
        principal=principal,
        outcome=outcome,
        **subject_of(study),
        details=details,
    )


def _locked_report(study: Study) -> Report:
    Study.objects.select_for_update().get(pk=study.pk)
    report, _ = Report.objects.get_or_create(study=study)
    return report


def _new_draft(draft: ReportPart, principal: Principal, values: dict[str, Value]) -> ReportPart:
    study = draft.report.study
    draft.author = user_of(principal)
    draft.values = values
    draft.sections = draft.outline.texts(values)
    draft.save()
    keep_version(draft, principal, ReportVersion.Kind.SAVED)
    events.emit("report.begun", part=draft.pk)
    details = {"step": "opened", "part": draft.ordinal, "template": draft.template.name if draft.template else ""}
    record_on(AuditEvent.Action.REPORT_DRAFT, study, principal, details)
    return draft


def _write(
    draft: ReportPart, values: dict[str, Value], principal: Principal, kind: ReportVersion.Kind, *more: str
) -> None:
    draft.revision += 1
    changed = {name for name in {*values, *draft.values} if values.get(name) != draft.values.get(name)}
    draft.value_revisions = {**draft.value_revisions, **dict.fromkeys(sorted(changed), draft.revision)}
    draft.values = values
    draft.sections = draft.outline.texts(values)
    draft.save(update_fields=["values", "sections", "value_revisions", "revision", "updated_at", *more])
    keep_version(draft, principal, kind)


def _cleaned(value: Value) -> Value:
    if isinstance(value, list):
        return [cleaned_text(one) for one in value]
    return cleaned_text(value) if isinstance(value, str) else value
