"""Jobs of the report room."""

from __future__ import annotations

from celery import shared_task

from studies.reports import critical


@shared_task
def escalate_critical_results() -> int:
    """Tell the next ones of critical results that nobody acknowledged in time."""
    return critical.escalate_late()
