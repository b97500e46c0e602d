"""Jobs of the core."""

from __future__ import annotations

from celery import shared_task

from studies import arrival, events


@shared_task
def deliver_due_events() -> int:
    """Deliver the outbox's events that are due."""
    return events.deliver_due()


@shared_task
def settle_studies() -> int:
    """Tell of the studies that have come in."""
    return arrival.settle_studies()
