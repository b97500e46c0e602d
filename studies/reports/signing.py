"""Signing as final or as preliminary, retracting, and proving that what was signed is unchanged."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from accounts.reauthentication import Credential, is_proven, is_used_code
from portal.audit.models import AuditEvent
from studies import events
from studies.models import Study
from studies.reading import release_study, set_status
from studies.reports.checks import Level, checks_of
from studies.reports.drafts import cleaned_text, keep_version, locked_draft, record_on, require, user_of
from studies.reports.errors import (
    AlreadyRetracted,
    ChecksFailed,
    CodeUsedAlready,
    DraftChangedElsewhere,
    NothingToSign,
    ReasonMissing,
    ReportNotSigned,
    TooManyAttempts,
    WrongCredential,
)
from studies.reports.models import PreliminarySignature, ReportPart, ReportTemplate, ReportVersion, Retraction

WRONG_ATTEMPTS = 6
WRONG_ATTEMPT_WINDOW = timedelta(minutes=10)
# Of the code by which a print is verified: 100 bits, not to be guessed.
CODE_BYTES = 13


def sign_part(
    *,
    part: ReportPart,
    principal: Principal,
    credential: Credential,
    base_revision: int,
    accepted: Collection[str] = (),
) -> ReportPart:
    """Freeze one's own draft as signed, with its canonical text and hash; give the signed part.

    ``accepted`` holds the codes of the warnings that the signer has seen. Raises NotAllowed, NothingToSign,
    ChecksFailed, DraftIsGone, DraftHeldByOther, DraftChangedElsewhere, TooManyAttempts, WrongCredential.
    """
    study = part.report.study
    require(principal, Capability.REPORT_SIGN, study)
    signer = user_of(principal)
    _check_credential(signer, credential, study, principal)
    with transaction.atomic():
        draft = _draft_to_sign(part, principal, base_revision, accepted)
        draft.signed_at = timezone.now()
        draft.signed_by = signer
        draft.signer_name = _name(signer)
        draft.verification_code = secrets.token_hex(CODE_BYTES)
        draft.canonical_text = _canonical_text(draft, study, signer)
        draft.sha256 = _sha256(draft.canonical_text)
        draft.save()
        keep_version(draft, principal, ReportVersion.Kind.SIGNED)
        is_report = draft.kind == ReportPart.Kind.REPORT
        set_status(study, Study.Status.FINAL if is_report else Study.Status.ADDENDED, signer)
        # It's read: nobody needs to wait for the signer to leave the page.
        release_study(study=study, principal=principal)
        events.emit("report.signed", part=draft.pk)
        details = {"part": draft.ordinal, "sha256": draft.sha256, "by": credential.way}
        if accepted:
            details["accepted"] = sorted(accepted)
        record_on(AuditEvent.Action.REPORT_SIGN, study, principal, details)
    return draft


def sign_as_preliminary(
    *,
    part: ReportPart,
    principal: Principal,
    credential: Credential,
    base_revision: int,
    accepted: Collection[str] = (),
) -> PreliminarySignature:
    """Sign one's own draft so that it can be read before the one who answers for it has signed it as final.

    The draft stays open for correction; what was signed is kept beside it. Raises as ``sign_part``.
    """
    study = part.report.study
    require(principal, Capability.REPORT_WRITE, study)
    signer = user_of(principal)
    _check_credential(signer, credential, study, principal)
    with transaction.atomic():
        draft = _draft_to_sign(part, principal, base_revision, accepted)
        draft.signed_at, draft.signer_name = timezone.now(), _name(signer)
        canonical = _canonical_text(draft, study, signer, stage="preliminary")
        signature = PreliminarySignature.objects.create(
            part=draft,
            revision=draft.revision,
            template=draft.template,
            values=draft.values,
            sections=draft.sections,
            signed_at=draft.signed_at,
            signed_by=signer,
            signer_name=draft.signer_name,
            canonical_text=canonical,
            sha256=_sha256(canonical),
        )
        draft.signed_at, draft.signer_name = None, ""
        keep_version(draft, principal, ReportVersion.Kind.PRELIMINARY)
        if draft.kind == ReportPart.Kind.REPORT:
            set_status(study, Study.Status.PRELIMINARY, signer)
        release_study(study=study, principal=principal)
        events.emit("report.preliminary", signature=signature.pk)
        details = {"part": draft.ordinal, "sha256": signature.sha256, "stage": "preliminary", "by": credential.way}
        record_on(AuditEvent.Action.REPORT_SIGN, study, principal, details)
    return signature


def retract_part(*, part: ReportPart, principal: Principal, credential: Credential, reason: str) -> list[Retraction]:
    """Mark a signed part as no longer holding; with the report its addenda go, too. The texts stay.

    Raises NotAllowed, ReportNotSigned, ReasonMissing, AlreadyRetracted, TooManyAttempts, WrongCredential.
    """
    study = part.report.study
    require(principal, Capability.REPORT_SIGN, study)
    reason = cleaned_text(reason).strip()[:300]
    if not reason:
        raise ReasonMissing
    user = user_of(principal)
    _check_credential(user, credential, study, principal)
    with transaction.atomic():
        Study.objects.select_for_update().get(pk=study.pk)
        parts = list(ReportPart.objects.filter(report=part.report_id, signed_at__isnull=False, retraction=None))
        if not part.is_signed:
            raise ReportNotSigned
        if part.pk not in {p.pk for p in parts}:
            raise AlreadyRetracted
        gone = [p for p in parts if p.ordinal >= part.ordinal] if part.kind == ReportPart.Kind.REPORT else [part]
        now = timezone.now()
        retractions = [
            Retraction.objects.create(
                part=p, reason=reason, retracted_at=now, retracted_by=user, retracter_name=_name(user)
            )
            for p in gone
        ]
        if len(gone) == len(parts):
            set_status(study, Study.Status.ARRIVED, user)
        for retraction in retractions:
            events.emit("report.retracted", retraction=retraction.pk)
        details = {"parts": [p.ordinal for p in gone], "reason": reason, "by": credential.way}
        record_on(AuditEvent.Action.REPORT_RETRACT, study, principal, details)
    return retractions


def verify_part(part: ReportPart) -> bool:
    """Say whether a signed part is still what was signed: its fields, its hash and the trail's record of it agree."""
    if _sha256(part.canonical_text) != part.sha256:
        return False
    study = part.report.study
    try:
        signed = json.loads(part.canonical_text)
        agrees = (
            signed["sections"] == part.sections
            and signed["values"] == part.values
            and signed["template"] == _template_of(part.template)
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


def _draft_to_sign(part: ReportPart, principal: Principal, base_revision: int, accepted: Collection[str]) -> ReportPart:
    draft = locked_draft(part, principal)
    if draft.revision != base_revision:
        raise DraftChangedElsewhere(draft)
    # What a condition hides is no word of the report: it's neither read nor signed.
    draft.values = draft.outline.shown_values(draft.values)
    draft.sections = draft.outline.texts(draft.values)
    sections = draft.outline.sections
    if not any(draft.sections.get(s.id, "").strip() for s in sections if s.role in {"findings", "impression", "other"}):
        raise NothingToSign
    checks = checks_of(draft)
    if any(c.level is Level.ERROR or (c.level is Level.WARNING and c.code not in accepted) for c in checks):
        raise ChecksFailed(checks)
    return draft


def _canonical_text(part: ReportPart, study: Study, signer: User, stage: str = "final") -> str:
    preliminary = part.preliminary if stage == "final" else None
    return json.dumps(
        {
            "format": "atrium report 2",
            "stage": stage,
            "site": study.site.slug,
            "study_instance_uid": study.study_instance_uid,
            "accession_number": study.accession_number,
            "patient_id": study.patient_id_value,
            "patient_name": study.patient_name,
            "patient_birth_date": str(study.patient.patient_birth_date or ""),
            "kind": part.kind,
            "ordinal": part.ordinal,
            "template": _template_of(part.template),
            "values": part.values,
            "sections": part.sections,
            "titles": {text.id: text.title for text in part.section_texts},
            "preliminary": {"signer": preliminary.signer_name, "sha256": preliminary.sha256} if preliminary else None,
            "signer": {"username": signer.username, "name": part.signer_name},
            "signed_at": _moment(part.signed_at),
            "previous_sha256": _previous_sha256(part),
        },
        sort_keys=True,
        ensure_ascii=False,
        indent=1,
    )


def _template_of(template: ReportTemplate | None) -> dict[str, Any] | None:
    if template is None:
        return None
    return {"family": str(template.family), "version": template.version, "name": template.name}


def _name(user: User) -> str:
    return (user.get_full_name() or user.username)[:300]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _moment(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds") if moment else ""


def _previous_sha256(part: ReportPart) -> str:
    previous = ReportPart.objects.filter(report=part.report_id, ordinal=part.ordinal - 1).values_list(
        "sha256", flat=True
    )
    return previous.first() or ""


def _check_credential(signer: User, credential: Credential, study: Study, principal: Principal) -> None:
    """Check who signs; refusals are counted in the trail, which every process shares."""
    refused = AuditEvent.objects.filter(
        username=signer.username,
        action=AuditEvent.Action.REPORT_SIGN,
        outcome=AuditEvent.Outcome.REFUSED,
        occurred_at__gte=timezone.now() - WRONG_ATTEMPT_WINDOW,
    ).count()
    if refused >= WRONG_ATTEMPTS:
        raise TooManyAttempts
    if not is_proven(signer, credential):
        is_used = is_used_code(signer, credential)
        details = {"reason": f"{'used' if is_used else 'wrong'} {credential.way}"}
        record_on(AuditEvent.Action.REPORT_SIGN, study, principal, details, AuditEvent.Outcome.REFUSED)
        raise CodeUsedAlready if is_used else WrongCredential
