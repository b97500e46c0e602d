"""The daily draw."""

from __future__ import annotations

from celery import shared_task

from studies.peer_review import services


@shared_task
def sample() -> int:
    """Give colleagues the reports that were drawn."""
    return services.sample()
