"""Jobs of the trail."""

from __future__ import annotations

from celery import shared_task

from portal.audit.services import close_viewing_windows


@shared_task
def close_viewing() -> int:
    """Put the counts of bulk viewing that is over into the trail."""
    return close_viewing_windows()
