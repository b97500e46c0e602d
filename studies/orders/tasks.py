"""Jobs of the orders."""

from __future__ import annotations

from celery import shared_task

from studies.orders import acquisition


@shared_task
def end_forgotten_acquisitions() -> int:
    """Hand over the cases whose modality fell silent."""
    return acquisition.end_forgotten()
