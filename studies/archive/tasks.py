"""Jobs of the archive."""

from __future__ import annotations

from celery import shared_task

from studies.archive import deletion
from studies.archive.metadata import build_due_metadata


@shared_task
def remove_objects() -> int:
    """Remove the objects of deleted instances that are due."""
    return deletion.remove_objects()


@shared_task
def build_metadata() -> int:
    """Build the metadata of series that don't grow any more."""
    return build_due_metadata()
