"""Deleting for good (PS3.18 §10.7, capability study.delete): index first, objects once they are surely unused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, ProtectedError, QuerySet
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive import objects
from studies.archive.errors import DeletionRefused, NotAuthorised
from studies.archive.models import ObjectRemoval
from studies.counting import count_series, count_study
from studies.models import Instance, Series, Study

# Longer than a sender's batch takes from being placed to being indexed.
GRACE = timedelta(minutes=10)
MOST_IN_ONE_EVENT = 1000
REPORTED = {Study.Status.PRELIMINARY, Study.Status.FINAL, Study.Status.ADDENDED}


@transaction.atomic
def delete_instances(*, study: Study, instances: QuerySet[Instance], principal: Principal) -> int:
    """Delete instances of a study, every version of them, and give how many rows that were.

    Series and the study go with their last instance. A crash leaves at most objects that nobody names; they are
    removed later. Raises NotAuthorised, DeletionRefused for a reported study.
    """
    if not principal.may(Capability.STUDY_DELETE, study.site_id):
        raise NotAuthorised
    study = Study.objects.select_for_update().get(pk=study.pk)
    if study.status in REPORTED:
        raise DeletionRefused("The study has a signed report; what it rests on must stay.")
    doomed = Instance.objects.filter(series__study=study, pk__in=instances.values("pk"))
    series_ids = set(doomed.values_list("series_id", flat=True))
    named = list(
        doomed.order_by("series_id", "pk").values_list(
            "object_key", "sop_instance_uid", "sop_class_uid", "series__series_instance_uid"
        )
    )
    count = len(named)
    details: dict[str, Any] = {"what": "deleted", "instances": count, "series": len(series_ids)}
    uid, site_id = study.study_instance_uid, study.site_id
    due_at = timezone.now() + GRACE
    ObjectRemoval.objects.bulk_create(
        (ObjectRemoval(object_key=key, sop_instance_uid=of, due_at=due_at) for key, of, *_ in sorted(named)),
        ignore_conflicts=True,
    )
    doomed.delete()
    Series.objects.filter(pk__in=series_ids).exclude(Exists(Instance.objects.filter(series=OuterRef("pk")))).delete()
    if Series.objects.filter(study=study).exists():
        count_series(series_ids)
        count_study(study)
    else:
        details["what"] = "study deleted"
        try:
            study.delete()
        except ProtectedError as error:
            raise DeletionRefused("A report belongs to the study.") from error
        events.emit("study.deleted", study_instance_uid=uid, site=site_id)
    gone = list(dict.fromkeys((series, sop_class, of) for _, of, sop_class, series in named))
    for start in range(0, len(gone), MOST_IN_ONE_EVENT):
        events.emit(
            "instances.deleted",
            study_instance_uid=uid,
            site=site_id,
            instances=[list(one) for one in gone[start : start + MOST_IN_ONE_EVENT]],
        )
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=site_id,
        patient_id=study.patient_id_value,
        patient_name=study.patient_name,
        study_instance_uid=uid,
        details=details,
    )
    return count


def keep_objects(keys: list[str]) -> None:
    """Take objects that are about to be named again off the list of removals; called before they are placed."""
    listed = ObjectRemoval.objects.filter(object_key__in=keys)
    if listed.exists():
        listed.delete()


def remove_objects(*, now: datetime | None = None) -> int:
    """Remove from storage what deleted instances left and nobody names; give how many objects that were."""
    removed = 0
    due = ObjectRemoval.objects.filter(due_at__lte=now or timezone.now()).order_by("pk").values_list("pk", flat=True)
    for pk in list(due[:1000]):
        # Locked until the commit, so that keep_objects() waits, or comes first.
        with transaction.atomic():
            removal = ObjectRemoval.objects.select_for_update().filter(pk=pk).first()
            if removal is None:
                continue
            same = Instance.objects.filter(sop_instance_uid=removal.sop_instance_uid, object_key=removal.object_key)
            if not same.exists():
                objects.remove(removal.object_key)
                removed += 1
            removal.delete()
    return removed
