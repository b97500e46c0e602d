"""Every write on reports. The study's row is locked first, so that two people never open two drafts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.models import Study
from studies.reading import set_status
from studies.reports.errors import (
    DraftChangedElsewhere,
    DraftHeldByOther,
    DraftIsGone,
    NotAllowed,
    NothingToSign,
    ReasonMissing,
    ReportAlreadySigned,
    ReportNotSigned,
    TextTooLong,
    TooManyAttempts,
    WrongPassword,
)
from studies.reports.models import Report, ReportPart

LONGEST_SECTION = 50_000
WRONG_PASSWORDS = 6
WRONG_PASSWORD_WINDOW = timedelta(minutes=10)
# Control characters but tab and line feed: no text needs them, and PostgreSQL keeps no NUL.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@transaction.atomic
def open_draft(*, study: Study, principal: Principal) -> ReportPart:
    """Give the study's open draft of its report, made for the principal if there is none.

    Raises NotAllowed, ReportAlreadySigned. The draft given may be another person's.
    """
    _require(principal, Capability.REPORT_WRITE, study)
    report = _locked_report(study)
    draft = report.parts.filter(signed_at=None).select_related("author").first()
    if draft is not None:
        return draft
    if report.parts.exists():
        raise ReportAlreadySigned
    return _new_draft(report, study, principal, kind=ReportPart.Kind.REPORT, ordinal=1, sections={})


@transaction.atomic
def start_addendum(*, study: Study, principal: Principal, reason: str) -> ReportPart:
    """Open the draft of an addendum to the signed report.

    Raises NotAllowed, ReportNotSigned, ReasonMissing, DraftChangedElsewhere when an addendum is being written already.
    """
    _require(principal, Capability.REPORT_WRITE, study)
    reason = _cleaned(reason).strip()
    if not reason:
        raise ReasonMissing
    report = _locked_report(study)
    parts = list(report.parts.select_related("author"))
    if not parts or not parts[0].is_signed:
        raise ReportNotSigned
    if not parts[-1].is_signed:
        raise DraftChangedElsewhere(parts[-1])
    return _new_draft(
        report,
        study,
        principal,
        kind=ReportPart.Kind.ADDENDUM,
        ordinal=parts[-1].ordinal + 1,
        sections={"reason": reason},
    )


@transaction.atomic
def save_draft(
    *, part: ReportPart, principal: Principal, sections: Mapping[str, str], base_revision: int
) -> ReportPart:
    """Keep what was typed and give the draft with its new revision. Sections that aren't named stay.

    Raises NotAllowed, TextTooLong, DraftIsGone, DraftHeldByOther, and DraftChangedElsewhere when ``base_revision``
    isn't the newest: then nothing is overwritten, and the newer text comes with the error.
    """
    _require(principal, Capability.REPORT_WRITE, part.report.study)
    draft = _locked_draft(part, principal)
    if draft.revision != base_revision:
        raise DraftChangedElsewhere(draft)
    cleaned = {name: _cleaned(text) for name, text in sections.items() if name in draft.section_names}
    draft.sections = {**draft.sections, **cleaned}
    draft.revision += 1
    draft.save(update_fields=["sections", "revision", "updated_at"])
    return draft


@transaction.atomic
def take_over_draft(*, part: ReportPart, principal: Principal) -> ReportPart:
    """Make the principal the draft's author; whoever wrote it is told when their window saves next.

    Raises NotAllowed, DraftIsGone.
    """
    study = part.report.study
    _require(principal, Capability.REPORT_WRITE, study)
    draft = _locked_draft(part, None)
    if draft.author_id == _user(principal).pk:
        return draft
    previous = draft.author.username
    draft.author = _user(principal)
    draft.revision += 1
    draft.save(update_fields=["author", "revision", "updated_at"])
    _record(
        AuditEvent.Action.REPORT_DRAFT,
        study,
        principal,
        {"step": "taken over", "from": previous, "part": draft.ordinal},
    )
    return draft


@transaction.atomic
def discard_draft(*, part: ReportPart, principal: Principal) -> None:
    """Delete one's own draft. Raises NotAllowed, DraftIsGone, DraftHeldByOther."""
    study = part.report.study
    _require(principal, Capability.REPORT_WRITE, study)
    draft = _locked_draft(part, principal)
    ordinal = draft.ordinal
    draft.delete()
    if ordinal == 1:
        set_status(study, Study.Status.ARRIVED, _user(principal))
    _record(AuditEvent.Action.REPORT_DRAFT, study, principal, {"step": "discarded", "part": ordinal})


def sign_part(*, part: ReportPart, principal: Principal, password: str, base_revision: int) -> ReportPart:
    """Freeze one's own draft as signed, with its canonical text and hash; give the signed part.

    The password is asked for again. Raises NotAllowed, NothingToSign, DraftIsGone, DraftHeldByOther,
    DraftChangedElsewhere, TooManyAttempts, WrongPassword.
    """
    study = part.report.study
    _require(principal, Capability.REPORT_SIGN, study)
    signer = _user(principal)
    _check_password(signer, password, study, principal)
    with transaction.atomic():
        draft = _locked_draft(part, principal)
        if draft.revision != base_revision:
            raise DraftChangedElsewhere(draft)
        if not any(str(draft.sections.get(name, "")).strip() for name in ("findings", "impression")):
            raise NothingToSign
        draft.sections = {name: str(draft.sections.get(name, "")).strip() for name in draft.section_names}
        draft.signed_at = timezone.now()
        draft.signed_by = signer
        draft.signer_name = (signer.get_full_name() or signer.username)[:300]
        draft.canonical_text = _canonical_text(draft, study, signer)
        draft.sha256 = hashlib.sha256(draft.canonical_text.encode()).hexdigest()
        draft.save()
        set_status(study, Study.Status.FINAL if draft.ordinal == 1 else Study.Status.ADDENDED, signer)
        events.emit("report.signed", part=draft.pk)
        _record(AuditEvent.Action.REPORT_SIGN, study, principal, {"part": draft.ordinal, "sha256": draft.sha256})
    return draft


def verify_part(part: ReportPart) -> bool:
    """Say whether a signed part is still what was signed: its fields, its hash and the trail's record of it agree."""
    if hashlib.sha256(part.canonical_text.encode("utf-8", "replace")).hexdigest() != part.sha256:
        return False
    study = part.report.study
    try:
        signed = json.loads(part.canonical_text)
        agrees = (
            signed["sections"] == part.sections
            and signed["kind"] == part.kind
            and signed["ordinal"] == part.ordinal
            and signed["study_instance_uid"] == study.study_instance_uid
            and signed["signer"]["name"] == part.signer_name
            and signed["signed_at"] == _moment(part.signed_at)
            and signed["previous_sha256"] == _previous_sha256(part)
        )
    except (ValueError, KeyError, TypeError):
        return False
    recorded = AuditEvent.objects.filter(
        study_instance_uid=study.study_instance_uid,
        site_id=study.site_id,
        action=AuditEvent.Action.REPORT_SIGN,
        outcome=AuditEvent.Outcome.SUCCESS,
    )
    return agrees and any(event.details.get("sha256") == part.sha256 for event in recorded)


def _canonical_text(part: ReportPart, study: Study, signer: User) -> str:
    return json.dumps(
        {
            "format": "atrium report 1",
            "site": study.site.slug,
            "study_instance_uid": study.study_instance_uid,
            "accession_number": study.accession_number,
            "patient_id": study.patient_id_value,
            "patient_name": study.patient_name,
            "patient_birth_date": str(study.patient.patient_birth_date or ""),
            "kind": part.kind,
            "ordinal": part.ordinal,
            "sections": part.sections,
            "signer": {"username": signer.username, "name": part.signer_name},
            "signed_at": _moment(part.signed_at),
            "previous_sha256": _previous_sha256(part),
        },
        sort_keys=True,
        ensure_ascii=False,
        indent=1,
    )


def _moment(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds") if moment else ""


def _previous_sha256(part: ReportPart) -> str:
    previous = ReportPart.objects.filter(report=part.report_id, ordinal=part.ordinal - 1).values_list(
        "sha256", flat=True
    )
    return previous.first() or ""


def _check_password(signer: User, password: str, study: Study, principal: Principal) -> None:
    """Check the signer's password; refusals are counted in the trail, which every process shares."""
    refused = AuditEvent.objects.filter(
        username=signer.username,
        action=AuditEvent.Action.REPORT_SIGN,
        outcome=AuditEvent.Outcome.REFUSED,
        occurred_at__gte=timezone.now() - WRONG_PASSWORD_WINDOW,
    ).count()
    if refused >= WRONG_PASSWORDS:
        raise TooManyAttempts
    if not signer.check_password(password):
        details = {"reason": "wrong password"}
        _record(AuditEvent.Action.REPORT_SIGN, study, principal, details, AuditEvent.Outcome.REFUSED)
        raise WrongPassword


def _require(principal: Principal, capability: Capability, study: Study) -> None:
    if principal.user is None or not principal.may(capability, study.site_id):
        raise NotAllowed


def _user(principal: Principal) -> User:
    if principal.user is None:
        raise NotAllowed
    return principal.user


def _locked_report(study: Study) -> Report:
    Study.objects.select_for_update().get(pk=study.pk)
    report, _ = Report.objects.get_or_create(study=study)
    return report


def _locked_draft(part: ReportPart, principal: Principal | None) -> ReportPart:
    """Give the draft as it is now, locked until the commit; with a principal, theirs only."""
    Study.objects.select_for_update().get(pk=part.report.study_id)
    draft = ReportPart.objects.filter(pk=part.pk, signed_at=None).select_related("author", "report").first()
    if draft is None:
        raise DraftIsGone
    if principal is not None and draft.author_id != _user(principal).pk:
        raise DraftHeldByOther(draft)
    return draft


def _new_draft(
    report: Report, study: Study, principal: Principal, *, kind: str, ordinal: int, sections: dict[str, str]
) -> ReportPart:
    draft = ReportPart.objects.create(
        report=report, kind=kind, ordinal=ordinal, sections=sections, author=_user(principal)
    )
    if ordinal == 1:
        set_status(study, Study.Status.IN_READING, _user(principal))
    _record(AuditEvent.Action.REPORT_DRAFT, study, principal, {"step": "opened", "part": ordinal})
    return draft


def _cleaned(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()
    if len(text) > LONGEST_SECTION:
        raise TextTooLong
    return _CONTROL.sub("", text)


def _record(
    action: AuditEvent.Action,
    study: Study,
    principal: Principal,
    details: dict[str, Any],
    outcome: AuditEvent.Outcome = AuditEvent.Outcome.SUCCESS,
) -> None:
    record(
        action,
        principal=principal,
        outcome=outcome,
        site_id=study.site_id,
        patient_id=study.patient_id_value,
        patient_name=study.patient_name,
        study_instance_uid=study.study_instance_uid,
        details=details,
    )
