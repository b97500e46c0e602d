"""When a study that was coming in has come: the event ``study.settled``, for all who wait for whole studies."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from studies import events
from studies.models import Study

QUIET = timedelta(seconds=10)
LONGEST = timedelta(minutes=2)
AT_ONCE = 500
# Studies that settle in one commit: who stores waits for it.
TOGETHER = 50


def settle_studies() -> int:
    """Emit ``study.settled`` for each study that got instances and is quiet now, or kept busy long enough.

    What arrives later makes it settle again. Gives how many settled.
    """
    now = timezone.now()
    quiet = Q(updated_at__lte=now - QUIET) | Q(unsettled_since__lte=now - LONGEST)
    waiting = Study.objects.filter(quiet, unsettled_since__isnull=False).order_by("unsettled_since")
    due = list(waiting.values_list("pk", flat=True)[:AT_ONCE])
    return sum(_settle(waiting, due[begin : begin + TOGETHER]) for begin in range(0, len(due), TOGETHER))


@transaction.atomic
def _settle(waiting: QuerySet[Study], due: list[int]) -> int:
    # One that's held is stored to at this moment, or changed: it isn't waited for, with others held, but comes later.
    locked = waiting.select_for_update(skip_locked=True).filter(pk__in=due)
    settled = list(locked.values_list("pk", flat=True))
    Study.objects.filter(pk__in=settled).update(unsettled_since=None)
    for pk in settled:
        events.emit("study.settled", study=pk)
    return len(settled)
