"""Reading the trail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from django.db.models import Q
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal.audit.models import AuditEvent, AuditEventQuerySet, ChainHead
from portal.audit.services import event_digest, head_seal

MOST_WORDS = 8


def events_visible_to(principal: Principal, capability: Capability = Capability.AUDIT_VIEW) -> AuditEventQuerySet:
    """Give the events of the sites at which the principal holds the capability.

    Events of no site (sign-ins, changes) are seen by all who may review a trail: they concern the whole installation.
    """
    sites = principal.sites_with(capability)
    events: AuditEventQuerySet = AuditEvent.objects.select_related("site")
    if sites is None:
        return events
    return events.filter(Q(site_id__in=sites) | Q(site_id__isnull=True)) if sites else events.none()


def filtered(events: AuditEventQuerySet, criteria: dict[str, Any]) -> AuditEventQuerySet:
    """Narrow events by the filter form's cleaned values; empty ones are left out.

    A user name or patient ID that the trail has means that one alone; other words are looked for within names and IDs.
    """
    for name in ("study_instance_uid", "action", "outcome"):
        if criteria.get(name):
            events = events.filter(**{name: criteria[name]})
    if criteria.get("username"):
        events = _named(events, criteria["username"], "username")
    if criteria.get("patient_id"):
        events = _named(events, criteria["patient_id"], "patient_id", "patient_name")
    if criteria.get("since"):
        events = events.filter(occurred_at__gte=_midnight(criteria["since"]))
    if criteria.get("until"):
        events = events.filter(occurred_at__lte=_midnight(criteria["until"], time.max))
    return events


def _named(events: AuditEventQuerySet, wanted: str, identifier: str, *others: str) -> AuditEventQuerySet:
    same = events.filter(**{identifier: wanted})
    if same.exists():
        return same
    for word in wanted.split()[:MOST_WORDS]:
        parts = Q()
        for column in (identifier, *others):
            parts |= Q(**{f"{column}__icontains": word})
        events = events.filter(parts)
    return events


def _midnight(day: date, clock: time = time.min) -> datetime:
    return timezone.make_aware(datetime.combine(day, clock))


@dataclass(frozen=True)
class Verdict:
    """Whether the trail is whole; ``broken_at`` is the first wrong event's sequence number."""

    events: int
    broken_at: int | None = None
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        return self.broken_at is None


def verify_chain() -> Verdict:
    """Recompute the whole chain, in order, in flat memory."""
    head = ChainHead.objects.get(pk=1)
    previous, expected = "", 0
    for event in _in_order(head.sequence):
        expected += 1
        if event.sequence != expected:
            return Verdict(expected - 1, expected, "an event is missing")
        if event.digest != event_digest(event, previous):
            return Verdict(expected - 1, expected, "the event was changed")
        previous = event.digest
    if expected != head.sequence or previous != head.digest:
        return Verdict(expected, expected + 1, "events at the end are missing")
    if head.seal != head_seal(head.sequence, head.digest):
        return Verdict(expected, expected, "the end of the chain was changed")
    return Verdict(expected)


def _in_order(last: int) -> Iterator[AuditEvent]:
    return AuditEvent.objects.filter(sequence__lte=last).order_by("sequence").iterator(chunk_size=2000)
