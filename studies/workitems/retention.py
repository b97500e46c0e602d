"""How long workitems are kept when they're done (PS3.4 CC.2.3.3: not while an AE holds a deletion lock)."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.workitems.models import Subscription, Workitem

MOST_AT_ONCE = 1000
State = Workitem.State


def remove_done_workitems(*, now: datetime | None = None) -> int:
    """Remove workitems that have been completed or canceled for ``ATRIUM_WORKITEM_DAYS``; give how many those were.

    One that a subscriber has locked stays until the subscription or its lock ends. With them go their keys,
    subscriptions and event reports.
    """
    ended_before = (now or timezone.now()) - timedelta(days=settings.ATRIUM.workitem_days)
    locks = Subscription.objects.filter(workitem=OuterRef("pk"), deletion_lock=True)
    due = Workitem.objects.filter(~Exists(locks), state__in=[State.COMPLETED, State.CANCELED])
    due = due.filter(modified_at__lt=ended_before).order_by("modified_at")
    return sum(_removed(pk) for pk in list(due.values_list("pk", flat=True)[:MOST_AT_ONCE]))


@transaction.atomic
def _removed(pk: int) -> bool:
    # Locked, so that a lock asked for at this moment comes before, or finds nothing.
    workitem = Workitem.objects.select_for_update().filter(pk=pk).first()
    if workitem is None or workitem.subscriptions.filter(deletion_lock=True).exists():
        return False
    workitem.delete()
    record(
        AuditEvent.Action.CHANGE,
        principal=Principal(),
        site_id=workitem.site_id,
        patient_id=workitem.patient_id,
        patient_name=workitem.patient_name,
        study_instance_uid=workitem.study_instance_uid,
        details={"what": "workitem removed", "workitem": workitem.sop_instance_uid, "by": "retention"},
    )
    return True
