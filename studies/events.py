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
from django.utils import timezone

from studies.models import DomainEvent

logger = logging.getLogger("atrium.events")
Handler = Callable[[dict[str, Any]], None]
_handlers: dict[str, list[Handler]] = defaultdict(list)
FIRST_RETRY = timedelta(seconds=30)
LAST_RETRY = timedelta(hours=6)
LEASE = timedelta(minutes=10)
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
    delivered = 0
    while (event := _lease()) is not None:
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
            DomainEvent.objects.filter(pk=event.pk).update(delivered_at=timezone.now(), last_error="")
            delivered += 1
    return delivered


@transaction.atomic
def _lease() -> DomainEvent | None:
    now = timezone.now()
    event = (
        DomainEvent.objects.select_for_update(skip_locked=True)
        .filter(delivered_at__isnull=True, due_at__lte=now)
        .order_by("due_at")
        .first()
    )
    if event is not None:
        event.attempts += 1
        event.due_at = now + LEASE
        event.save(update_fields=["attempts", "due_at"])
    return event
