"""A study's way through reading: its status, who has it open to write, whose it is and how soon it's wanted.

Every step is an event of the outbox (``study.changed``), so that lists follow it without reload, and a claim's
steps are in the trail.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.errors import ClaimHeldByOther, NotAllowed
from studies.models import Priority, StatusChange, Study
from studies.trail import subject_of

CLAIM_LASTS = timedelta(minutes=20)
# Waiting for a reader, in the order in which a case passes through them.
OPEN_STATUSES = (Study.Status.ARRIVED, Study.Status.IN_READING, Study.Status.PRELIMINARY)
# With those whose images are still being made: they have a reader and a clock, but wait for nobody yet.
UNFINISHED_STATUSES = (Study.Status.ACQUIRING, *OPEN_STATUSES)


@dataclass(frozen=True)
class Claim:
    """Who has a case open to write it, and until when unless renewed."""

    holder: User
    until: datetime


@transaction.atomic
def set_status(study: Study, status: str, user: User | None, *, only_from: Collection[str] | None = None) -> bool:
    """Take the study to another status and remember who did that and when; say whether that changed anything.

    With ``only_from`` a study that has another status than these by now stays as it is.
    """
    now = timezone.now()
    held = Study.objects.filter(pk=study.pk).exclude(status=status)
    if only_from is not None:
        held = held.filter(status__in=only_from)
    changed = held.update(status=status, status_at=now, updated_at=now)
    if changed:
        StatusChange.objects.create(study=study, status=status, user=user)
        events.emit("study.changed", study=study.pk)
    return bool(changed)


def begin_acquisition(*, study: Study) -> bool:
    """Hold a case back from readers while a modality makes its images; one that somebody reads stays with them."""
    return set_status(study, Study.Status.ACQUIRING, None, only_from=(Study.Status.ARRIVED, Study.Status.CANCELLED))


def end_acquisition(*, study: Study, has_images: bool) -> bool:
    """Hand a case whose acquisition has ended to the readers; one without images is called off."""
    if has_images:
        return set_status(study, Study.Status.ARRIVED, None, only_from=(Study.Status.ACQUIRING, Study.Status.CANCELLED))
    return set_status(study, Study.Status.CANCELLED, None, only_from=(Study.Status.ACQUIRING, Study.Status.ARRIVED))


def claim_of(study: Study) -> Claim | None:
    """Give the study's claim as it is in the database now; None when nobody holds it or the time is over."""
    held = Study.objects.select_related("claimed_by").only("claimed_by", "claimed_until").get(pk=study.pk)
    return _claim(held)


def _claim(study: Study) -> Claim | None:
    if study.claimed_by is None or study.claimed_until is None or study.claimed_until <= timezone.now():
        return None
    return Claim(study.claimed_by, study.claimed_until)


@transaction.atomic
def claim_study(*, study: Study, principal: Principal, take_over: bool = False) -> Claim:
    """Take the case to write it, or renew one's own claim; give the claim.

    Raises NotAllowed without report.write at the site; ClaimHeldByOther while another holds it, unless ``take_over``.
    """
    user = _writer(principal, study)
    held = _locked(study)
    now = timezone.now()
    claim = Claim(user, now + CLAIM_LASTS)
    before = _claim(held)
    if before is not None and before.holder.pk != user.pk and not take_over:
        raise ClaimHeldByOther(before.holder, before.until)
    Study.objects.filter(pk=study.pk).update(claimed_by=user, claimed_until=claim.until)
    if before is None or before.holder.pk != user.pk:
        events.emit("study.changed", study=study.pk)
        details = (
            {"what": "case claimed"} if before is None else {"what": "case taken over", "from": str(before.holder)}
        )
        _record(held, principal, details)
    return claim


@transaction.atomic
def release_study(*, study: Study, principal: Principal) -> None:
    """Give the case back; nothing happens when it isn't the principal's. Raises NotAllowed."""
    user = _writer(principal, study)
    held = _locked(study)
    if held.claimed_by_id == user.pk:
        Study.objects.filter(pk=study.pk).update(claimed_by=None, claimed_until=None)
        events.emit("study.changed", study=study.pk)
        _record(held, principal, {"what": "case released"})


@transaction.atomic
def assign_study(*, study: Study, reader: User | None, principal: Principal, reason: str = "by hand") -> None:
    """Make the case a reader's to read, or nobody's; the same reader changes nothing.

    Raises NotAllowed without case.assign at the site, unless readers take a case for themselves or give theirs back.
    """
    held = _locked(study)
    is_own = principal.user is not None and {held.assigned_to_id, reader.pk if reader else None} <= {
        None,
        principal.user.pk,
    }
    if not principal.may(Capability.CASE_ASSIGN, study.site_id) and not (
        is_own and principal.may(Capability.REPORT_WRITE, study.site_id)
    ):
        raise NotAllowed
    if assign_by_rule(study=held, reader=reader):
        _record(held, principal, {"what": "case assigned", "to": reader.username if reader else "", "why": reason})


@transaction.atomic
def assign_by_rule(*, study: Study, reader: User | None) -> bool:
    """Make the case a reader's without a person's doing; say whether that changed anything."""
    changed = (
        Study.objects.filter(pk=study.pk)
        .exclude(**({"assigned_to": reader} if reader else {"assigned_to__isnull": True}))
        .update(assigned_to=reader, updated_at=timezone.now())
    )
    if changed:
        events.emit("study.changed", study=study.pk)
    return bool(changed)


@transaction.atomic
def set_priority(*, study: Study, priority: str, principal: Principal) -> None:
    """Say how soon the study is wanted; the same priority changes nothing.

    Raises NotAllowed without case.assign or order.manage at the site, ValueError for an unknown priority.
    """
    if not any(principal.may(c, study.site_id) for c in (Capability.CASE_ASSIGN, Capability.ORDER_MANAGE)):
        raise NotAllowed
    if priority not in Priority.values:
        raise ValueError(priority)
    held = _locked(study)
    if held.priority != priority:
        Study.objects.filter(pk=study.pk).update(priority=priority, updated_at=timezone.now())
        events.emit("study.changed", study=study.pk)
        _record(held, principal, {"what": "priority changed", "from": held.priority, "to": priority})


def _writer(principal: Principal, study: Study) -> User:
    if principal.user is None or not principal.may(Capability.REPORT_WRITE, study.site_id):
        raise NotAllowed
    return principal.user


def _locked(study: Study) -> Study:
    return Study.objects.select_for_update(of=("self",)).select_related("claimed_by").get(pk=study.pk)


def _record(study: Study, principal: Principal, details: dict[str, Any]) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details=details,
    )
