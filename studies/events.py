"""The outbox: rooms tell others what happened without knowing them."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import current_app
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from studies.models import DomainEvent

logger = logging.getLogger("atrium.events")
Handler = Callable[[dict[str, Any]], None]
_handlers: dict[str, list[Handler]] = defaultdict(list)
FIRST_RETRY = timedelta(seconds=30)
LAST_RETRY = timedelta(hours=6)
LEASE = timedelta(minutes=10)
# Events are leased and marked together: most ask for less than making two commits durable does. Of those that take
# longer than a share, in seconds, each is leased for itself, so that all workers have some.
MOST_TOGETHER = 64
SHARE = 0.5
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


def emit(name: str, **payload: int | str | list[list[str]]) -> DomainEvent:
    """Put an event in the outbox, in the caller's transaction; it's delivered after the commit, also after a crash."""
    event = DomainEvent.objects.create(name=name, payload=payload, due_at=timezone.now())
    transaction.on_commit(_wake, robust=True)
    return event


def _wake() -> None:
    """Have due events delivered: at once, or, where that was asked for a moment ago, in a moment."""
    global _asked_at, _waking
    with _wake_lock:
        wait = _asked_at + BETWEEN_WAKES - time.monotonic()
        if wait <= 0:
            _asked_at = time.monotonic()
        elif _waking is None:
            _waking = threading.Timer(wait, _wake_late)
            _waking.daemon = True
            _waking.start()
    if wait <= 0:
        current_app.send_task(DELIVER)


def _wake_late() -> None:
    global _waking
    with _wake_lock:
        _waking = None
    _wake()


def deliver_due() -> int:
    """Deliver every event that's due and give how many were; failed ones come again later, ever more slowly."""
    delivered, together = 0, 1
    while leased := _lease(together):
        begun = time.monotonic()
        delivered += _deliver(leased)
        together = min(2 * together, MOST_TOGETHER) if time.monotonic() - begun < SHARE else 1
    return delivered


def _deliver(leased: list[DomainEvent]) -> int:
    begun = time.monotonic()
    delivered: list[int] = []
    for number, event in enumerate(leased):
        if number and time.monotonic() - begun > SHARE:
            _give_back(leased[number:])
            break
        try:
            for handler in _handlers[event.name]:
                handler(event.payload)
        except Exception as error:  # a handler's fault must not stop the others' events
            wait = min(FIRST_RETRY * 2 ** min(event.attempts, 12), LAST_RETRY)
            DomainEvent.objects.filter(pk=event.pk).update(
                due_at=timezone.now() + wait, last_error=type(error).__name__
            )
            logger.exception("event %s %s failed, again in %s", event.name, event.pk, wait)
        else:
            delivered.append(event.pk)
    DomainEvent.objects.filter(pk__in=delivered).update(delivered_at=timezone.now(), last_error="")
    return len(delivered)


@transaction.atomic
def _lease(most: int) -> list[DomainEvent]:
    """Take what is due: nobody else delivers it while the lease lasts, and anybody once it's over."""
    now = timezone.now()
    due = DomainEvent.objects.select_for_update(skip_locked=True).filter(delivered_at__isnull=True, due_at__lte=now)
    leased = list(due.order_by("due_at", "pk")[:most])
    DomainEvent.objects.filter(pk__in=[event.pk for event in leased]).update(
        attempts=F("attempts") + 1, due_at=now + LEASE
    )
    for event in leased:
        event.attempts += 1
    return leased


def _give_back(events: list[DomainEvent]) -> None:
    """Leave what wasn't begun to whoever asks next, in its old place."""
    for event in events:
        event.attempts -= 1
    DomainEvent.objects.bulk_update(events, ["attempts", "due_at"])
