"""A study's way through reading: its status, with who and when."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from accounts.models import User
from studies.models import StatusChange, Study


@transaction.atomic
def set_status(study: Study, status: str, user: User | None) -> None:
    """Take the study to another status and remember who did that and when; the same status changes nothing."""
    now = timezone.now()
    changed = (
        Study.objects.filter(pk=study.pk).exclude(status=status).update(status=status, status_at=now, updated_at=now)
    )
    if changed:
        StatusChange.objects.create(study=study, status=status, user=user)
