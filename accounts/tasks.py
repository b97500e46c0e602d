"""Jobs of accounts."""

from __future__ import annotations

from celery import shared_task

from accounts import notifications


@shared_task
def send_due_emails() -> int:
    """Send the notices that are to leave by e-mail."""
    return notifications.send_due_emails()
