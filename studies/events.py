"""The outbox: rooms tell others what happened without knowing them."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from itertools import takewhile
from typing import Any

from celery import current_app
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from portal.insertion import Insertion
from studies.models import DomainEvent

logger = logging.getLogger("atrium.events")
Handler = Callable[[dict[str, Any]], None]
_insert = Insertion(DomainEvent)
_handlers: dict[str, list[Handler]] = defaultdict(list)
FIRST_RETRY = timedelta(seconds=30)
LAST_RETRY = timedelta(hours=6)
LEASE = timedelta(minutes=10)
# What is handled by a few statements is gathered for a moment, leased and marked together: making commits durable would
# take longer, and who sends many studies has the machine alone meanwhile. All else is leased alone, for it may
# wait for a node or make a document.
BRIEF = frozenset({"study.arrived"})
MOST_TOGETHER = 64
DELIVER = "studies.tasks.deliver_due_events"
# A message to the worker costs more than most events; one of them has all that are due delivered.
BETWEEN_WAKES = 0.5
_wake_lock = threading.Lock()
_asked_at = -BETWEEN_WAKES
_waking: threading.Timer | None = None


def handle(name: str) -> Callable[[Handler], Handler]:
    """Register a handler of the event. It may be called more than once for one event and must bear that."""

    def register(handler: Handler) -> Handler:
        _handlers[name].append(handler)
        return handler

    return register


def emit(name: str, **payload: int | str | list[list[str]]) -> int:
    """Put an event in the outbox, in the caller's transaction, and give its key.

    It's delivered after the commit, also after a crash.
    """
    (pk,) = _insert.few([{"name": name, "payload": payload, "due_at": timezone.now()}])
    transaction.on_commit(_wake_soon if name in BRIEF else _wake, robust=True)
    return pk


def _wake() -> None:
    """Have due events delivered: at once, or, where that was asked for a moment ago, in a moment."""
    global _asked_at
    with _wake_lock:
        is_early = time.monotonic() - _asked_at < BETWEEN_WAKES
        if not is_early:
            _asked_at = time.monotonic()
    if is_early:
        _wake_soon()
    else:
        current_app.send_task(DELIVER)


def _wake_soon() -> None:
    """Have due events delivered in a moment, together with those that come until then."""
    global _waking
    with _wake_lock:
        if _waking is None:
            _waking = threading.Timer(BETWEEN_WAKES, _wake_late)
            _waking.daemon = True
            _waking.start()


def _wake_late() -> None:
    global _asked_at, _waking
    with _wake_lock:
        _waking, _asked_at = None, time.monotonic()
    current_app.send_task(DELIVER)


def deliver_due() -> int:
    """Deliver every event that's due and give how many were; failed ones come again later, ever more slowly."""
    delivered = 0
    while leased := _lease():
        delivered += _deliver(leased)
    return delivered


def _deliver(leased: list[DomainEvent]) -> int:
    delivered: list[int] = []
    try:
        for event in leased:
            try:
                for handler in _handlers[event.name]:
                    handler(event.payload)
            except Exception as error:  # a handler's fault must not stop the others' events
                _postpone(event, error)
            else:
                delivered.append(event.pk)
    finally:
        with transaction.atomic():
            DomainEvent.objects.filter(pk__in=delivered).update(delivered_at=timezone.now(), last_error="")
    return len(delivered)


def _postpone(event: DomainEvent, error: Exception) -> None:
    wait = min(FIRST_RETRY * 2 ** min(event.attempts, 12), LAST_RETRY)
    logger.exception("event %s %s failed, again in %s", event.name, event.pk, wait)
    with transaction.atomic():
        DomainEvent.objects.filter(pk=event.pk).update(due_at=timezone.now() + wait, last_error=type(error).__name__)


@transaction.atomic
def _lease() -> list[DomainEvent]:
    """Take what is due first: nobody else delivers it while the lease lasts, and anybody once it's over."""
    now = timezone.now()
    due = DomainEvent.objects.select_for_update(skip_locked=True).filter(delivered_at__isnull=True, due_at__lte=now)
    first = list(due.order_by("due_at", "pk")[:MOST_TOGETHER])
    leased = list(takewhile(lambda event: event.name in BRIEF, first)) or first[:1]
    DomainEvent.objects.filter(pk__in=[event.pk for event in leased]).update(
        attempts=F("attempts") + 1, due_at=now + LEASE
    )
    for event in leased:
        event.attempts += 1
    return leased
