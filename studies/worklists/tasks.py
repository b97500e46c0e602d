"""Jobs of the worklist."""

from __future__ import annotations

from celery import shared_task

from studies.worklists import turnaround


@shared_task
def escalate_overdue() -> int:
    """Say of cases that have become late that they are."""
    return turnaround.escalate_overdue()
