"""Jobs of the archive."""

from __future__ import annotations

from celery import current_app, shared_task

from studies.archive import deletion, objects, tier_policies, tiers
from studies.archive.metadata import build_due_metadata


@shared_task
def remove_objects() -> int:
    """Remove the objects of deleted instances that are due."""
    return deletion.remove_objects()


@shared_task
def build_metadata() -> int:
    """Build the metadata of series that don't grow any more."""
    return build_due_metadata()


@shared_task
def propose_moves() -> int:
    """Ask for the moves that sites' policies want, and have those that are due worked off."""
    asked = tier_policies.propose_moves()
    if objects.has_cold_tier():
        current_app.send_task(tiers.WORK_OFF)
    return asked


@shared_task
def work_off_moves() -> None:
    """Move studies between the tiers for a while."""
    if tiers.work_off():
        current_app.send_task(tiers.WORK_OFF)


@shared_task
def count_tiers() -> None:
    """Count what lies in which tier; without a cold one nobody needs to know it that often."""
    if objects.has_cold_tier():
        tier_policies.count_tiers()
