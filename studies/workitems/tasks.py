"""Jobs of the unified worklist."""

from __future__ import annotations

from celery import shared_task

from studies.workitems import retention


@shared_task
def remove_done() -> int:
    """Remove workitems that have been done for longer than they're kept."""
    return retention.remove_done_workitems()
