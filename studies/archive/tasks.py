"""Jobs of the archive."""

from __future__ import annotations

from celery import shared_task

from studies.archive import deletion


@shared_task
def remove_objects() -> int:
    """Remove the objects of deleted instances that are due."""
    return deletion.remove_objects()
