"""Jobs of the core."""

from __future__ import annotations

from celery import shared_task

from studies import events


@shared_task
def deliver_due_events() -> int:
    """Deliver the outbox's events that are due."""
    return events.deliver_due()
