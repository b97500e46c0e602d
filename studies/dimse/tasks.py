"""Jobs of the DICOM network; ``work_off`` has workers of its own, so that slow nodes keep nobody else waiting."""

from __future__ import annotations

from celery import current_app, shared_task

from studies.dimse import associations, queue, transfers


@shared_task
def work_off(node_id: int, kind: str) -> None:
    """Work off a node's queue for a while."""
    if queue.work_off(node_id, kind):
        current_app.send_task("studies.dimse.tasks.work_off", [node_id, kind])


@shared_task
def start_due_queues() -> int:
    """Look at every queue that's due."""
    return queue.start_due_queues()


@shared_task
def forget_old() -> int:
    """Forget associations and transfers of long ago."""
    return associations.forget_old() + transfers.forget_old()
