"""Critical results: flag a finding, tell who must know, see it acknowledged in time, and escalate when it isn't.

Deadlines and who is told when one passes are the site's: ``critical_policies``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import Practice, User
from accounts.notifications import mark_key_read, notify
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from studies import events
from studies.access import studies_visible_to
from studies.models import ReferringPhysician, Study
from studies.reports.critical_policies import people_at, policies_of, policy_of
from studies.reports.drafts import cleaned_text, record_on, require, user_of
from studies.reports.errors import NotAllowed, ReasonMissing, ReportError
from studies.reports.models import CriticalRecipient, CriticalResult, CriticalStep, ReportPart

logger = logging.getLogger("atrium.critical")
Category = CriticalResult.Category
MOST_RECIPIENTS = 10


class NobodyToTell(ReportError):
    """A critical result needs someone who must know."""

    text = "Choose who must know."


class AlreadyClosed(ReportError):
    """The critical result was acknowledged or withdrawn already."""

    text = "This was acknowledged or withdrawn already."


@dataclass(frozen=True)
class Recipient:
    """Who must know; one of the three. A ward is told by telephone."""

    user: User | None = None
    practice: Practice | None = None
    ward: str = ""

    @property
    def choice(self) -> str:
        """Give how a form names this recipient."""
        if self.user is not None:
            return f"user:{self.user.pk}"
        return f"practice:{self.practice.pk}" if self.practice is not None else f"ward:{self.ward}"

    def __str__(self) -> str:
        return str(self.user or self.practice or self.ward)


@transaction.atomic
def flag(
    *, study: Study, principal: Principal, category: int, finding: str, recipients: Sequence[Recipient]
) -> CriticalResult:
    """Flag a finding and tell the recipients; the first is told now, with all others of the list.

    Raises NotAllowed, ReasonMissing without a finding, NobodyToTell.
    """
    require(principal, Capability.REPORT_WRITE, study)
    finding = cleaned_text(finding).strip()[:500]
    if not finding:
        raise ReasonMissing
    if not recipients or len(recipients) > MOST_RECIPIENTS:
        raise NobodyToTell
    kind = Category(category)
    now = timezone.now()
    deadline = policy_of(study.site_id, kind).deadline
    result = CriticalResult.objects.create(
        study=study,
        part=ReportPart.objects.filter(report__study=study).order_by("-ordinal").first(),
        category=kind,
        finding=finding,
        flagged_by=user_of(principal),
        flagged_at=now,
        due_at=now + deadline,
        escalates_at=now + deadline,
    )
    CriticalRecipient.objects.bulk_create(
        CriticalRecipient(
            result=result, user=r.user, practice=r.practice, ward=cleaned_text(r.ward)[:120], notified_at=now
        )
        for r in recipients
    )
    names = ", ".join(str(r) for r in recipients)
    _step(result, principal.user, f"Flagged, category {kind.label}; to {names}")
    _tell(result, _people_at(result, level=0), "A critical result waits for your acknowledgement.")
    events.emit("critical.flagged", result=result.pk)
    _record(result, principal, {"step": "flagged", "category": int(kind), "to": names})
    return result


@transaction.atomic
def acknowledge(*, result: CriticalResult, principal: Principal, told_to: str = "") -> CriticalResult:
    """Take note of a critical result, as one who must know it, or, for one told by telephone, as the reporter.

    Raises NotAllowed, AlreadyClosed.
    """
    told_to = cleaned_text(told_to).strip()[:200]
    open_result = _locked_open(result)
    if not (may_acknowledge(principal, open_result) or (told_to and may_report(principal, open_result))):
        raise NotAllowed
    open_result.acknowledged_at = timezone.now()
    open_result.acknowledged_by = user_of(principal)
    open_result.told_to = told_to
    open_result.escalates_at = None
    open_result.save(update_fields=["acknowledged_at", "acknowledged_by", "told_to", "escalates_at"])
    words = f"Told by telephone to {told_to}, read back" if told_to else "Acknowledged"
    _close(open_result, principal, words, {"step": "acknowledged", "told_to": told_to})
    notify(
        [open_result.flagged_by] if open_result.flagged_by_id != user_of(principal).pk else [],
        key=f"critical-acknowledged:{open_result.pk}",
        text="Your critical result was acknowledged.",
        url=reverse("critical_result", args=[open_result.pk]),
    )
    events.emit("critical.acknowledged", result=open_result.pk)
    return open_result


@transaction.atomic
def withdraw(*, result: CriticalResult, principal: Principal, reason: str) -> CriticalResult:
    """Take a flag back that was set by mistake. Raises NotAllowed, ReasonMissing, AlreadyClosed."""
    open_result = _locked_open(result)
    if not may_report(principal, open_result):
        raise NotAllowed
    reason = cleaned_text(reason).strip()[:300]
    if not reason:
        raise ReasonMissing
    open_result.withdrawn_at, open_result.withdrawn_reason = timezone.now(), reason
    open_result.escalates_at = None
    open_result.save(update_fields=["withdrawn_at", "withdrawn_reason", "escalates_at"])
    _close(open_result, principal, f"Withdrawn: {reason}", {"step": "withdrawn", "reason": reason})
    return open_result


def escalate_late() -> int:
    """Tell the next ones of every critical result that's late, and give how many were escalated."""
    count = 0
    due = CriticalResult.objects.filter(escalates_at__lte=timezone.now()).values_list("pk", flat=True)
    for pk in list(due):
        with transaction.atomic():
            result = (
                CriticalResult.objects.select_for_update(skip_locked=True, of=("self",))
                .select_related("study", "flagged_by")
                .filter(pk=pk, escalates_at__lte=timezone.now())
                .first()
            )
            if result is not None and result.is_open:
                _escalate(result)
                count += 1
    return count


def _escalate(result: CriticalResult) -> None:
    policy = policy_of(result.study.site_id, result.category)
    result.level += 1
    result.escalates_at = timezone.now() + policy.step
    result.save(update_fields=["level", "escalates_at"])
    level = policy.level(result.level)
    people = people_at(level, reporter=result.flagged_by, site_id=result.study.site_id)
    known = set(result.recipients.exclude(user=None).values_list("user_id", flat=True))
    CriticalRecipient.objects.bulk_create(
        CriticalRecipient(result=result, level=result.level, user=person, notified_at=timezone.now())
        for person in people
        if person.pk not in known
    )
    text = "A critical result is late: nobody has acknowledged it."
    key = f"critical:{result.pk}:{result.level}"
    address = reverse("critical_result", args=[result.pk])
    told = [*people, *_people_at(result, level=0)]
    notify({p.pk: p for p in told}.values(), key=key, text=text, url=address, is_urgent=True, by_email=True)
    _step(result, None, f"Late; escalated to {', '.join(str(p) for p in people)}")
    events.emit("critical.escalated", result=result.pk)
    _record(result, Principal(), {"step": "escalated", "level": result.level})
    logger.warning("critical result %s is late, level %s", result.pk, result.level)


def open_critical_results(principal: Principal) -> QuerySet[CriticalResult]:
    """Give the open critical results of the principal's studies: those they must acknowledge, or answer for."""
    return critical_results_of(principal).filter(acknowledged_at=None, withdrawn_at=None).order_by("due_at")


def awaiting(principal: Principal) -> QuerySet[CriticalResult]:
    """Give the open critical results that wait for the principal's own acknowledgement, the most urgent first."""
    named = CriticalRecipient.objects.filter(_is(principal)).values("result")
    return open_critical_results(principal).filter(pk__in=named).exclude(flagged_by=principal.user)


def critical_results_of(principal: Principal) -> QuerySet[CriticalResult]:
    """Give all critical results that the principal may see.

    Those are the results of studies they may see, where they may read reports, and those that they were named for: who
    must know a finding is told it, though the rest of the study be closed to them.
    """
    mine = Q(pk__in=[])
    for capability in (Capability.REPORT_READ, Capability.REPORT_WRITE):
        sites = principal.sites_with(capability)
        mine |= Q() if sites is None else Q(study__site_id__in=sorted(sites))
        if sites is None:
            mine = Q()
            break
    named = CriticalRecipient.objects.filter(_is(principal)).values("result")
    seen = (mine & Q(study__in=studies_visible_to(principal))) | Q(pk__in=named)
    return CriticalResult.objects.filter(seen).select_related(
        "study__site", "study__patient", "flagged_by", "acknowledged_by"
    )


def _is(principal: Principal) -> Q:
    practices = Q(practice_id__in=sorted(principal.practice_ids))
    return practices if principal.user is None else practices | Q(user=principal.user)


def may_acknowledge(principal: Principal, result: CriticalResult) -> bool:
    """Say whether the principal is one of those who must know."""
    if principal.user is None:
        return False
    told = result.recipients.filter(_is(principal))
    return told.exclude(user=result.flagged_by).exists()


def may_report(principal: Principal, result: CriticalResult) -> bool:
    """Say whether the principal answers for the result: tells by telephone, withdraws."""
    return principal.user is not None and principal.may(Capability.REPORT_WRITE, result.study.site_id)


def recipients_for(study: Study) -> list[Recipient]:
    """Give who may be chosen: the study's referrer, their practices, and those linked to the site's referrers."""
    first: list[Recipient] = []
    physician = study.referring_physician
    if physician is not None:
        if physician.user is not None:
            first.append(Recipient(user=physician.user))
            first += [Recipient(practice=p) for p in physician.user.practices.all()]
        if physician.practice is not None:
            first.append(Recipient(practice=physician.practice))
    linked = ReferringPhysician.objects.filter(site=study.site_id, user__is_active=True).select_related("user")
    others = [Recipient(user=one.user) for one in linked.order_by("name_search")[:200]]
    return list({one.choice: one for one in [*first, *others]}.values())


def chosen_recipients(study: Study, choices: Iterable[str], ward: str) -> list[Recipient]:
    """Give the recipients that a form names; those who can't be chosen for the study are left out."""
    allowed = {one.choice: one for one in recipients_for(study)}
    chosen = [allowed[choice] for choice in choices if choice in allowed]
    ward = ward.strip()
    return [*chosen, Recipient(ward=ward)] if ward else chosen


def deadlines_of(study: Study) -> list[tuple[int, timedelta]]:
    """Give within what time a result of each category must be acknowledged at the study's site."""
    return [(int(category), policy.deadline) for category, policy in policies_of(study.site_id).items()]


def late_since(result: CriticalResult) -> timedelta:
    """Give by how much the deadline is over, for an open result; negative while there's time."""
    now: datetime = timezone.now()
    return now - result.due_at


def _locked_open(result: CriticalResult) -> CriticalResult:
    current = (
        CriticalResult.objects.select_for_update(of=("self",)).select_related("study", "flagged_by").get(pk=result.pk)
    )
    if not current.is_open:
        raise AlreadyClosed
    return current


def _close(result: CriticalResult, principal: Principal, words: str, details: dict[str, Any]) -> None:
    _step(result, principal.user, words)
    for level in range(result.level + 1):
        mark_key_read(key=f"critical:{result.pk}:{level}")
    _record(result, principal, details)


def _people_at(result: CriticalResult, level: int) -> list[User]:
    people: dict[int, User] = {}
    for recipient in result.recipients.filter(level=level).select_related("user", "practice"):
        if recipient.user is not None:
            people[recipient.user.pk] = recipient.user
        if recipient.practice is not None:
            people.update({member.pk: member for member in recipient.practice.members.filter(is_active=True)})
    return list(people.values())


def _tell(result: CriticalResult, people: Iterable[User], text: str) -> None:
    address = reverse("critical_result", args=[result.pk])
    notify(people, key=f"critical:{result.pk}:0", text=text, url=address, is_urgent=True, by_email=True)


def _step(result: CriticalResult, user: User | None, text: str) -> None:
    CriticalStep.objects.create(result=result, user=user, text=text[:400])


def _record(result: CriticalResult, principal: Principal, details: dict[str, Any]) -> None:
    record_on(AuditEvent.Action.CRITICAL_RESULT, result.study, principal, {"result": result.pk, **details})
