"""Deleting for good (PS3.18 §10.7, capability study.delete): index first, objects once they are surely unused."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, ProtectedError, QuerySet
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.credentials import forget_all
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive import objects, packs
from studies.archive.errors import DeletionRefused, NotAuthorised, ObjectMissing
from studies.archive.models import ObjectRemoval
from studies.counting import count_series, count_study
from studies.models import Instance, Series, Study

logger = logging.getLogger("atrium.archive")
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
    remove_later({key: of for key, of, *_ in named})
    doomed.delete()
    # Where their frames lie, too.
    transaction.on_commit(forget_all)
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


def remove_later(objects_of: Mapping[str, str], *, after: timedelta = GRACE) -> None:
    """Have objects, given with the SOP Instance UID of one that lay there, removed once they are surely unused.

    One that's listed already waits anew.
    """
    due_at = timezone.now() + after
    ObjectRemoval.objects.bulk_create(
        (ObjectRemoval(object_key=key, sop_instance_uid=uid, due_at=due_at) for key, uid in sorted(objects_of.items())),
        update_conflicts=True,
        unique_fields=["object_key"],
        update_fields=["due_at"],
    )


def naming(object_key: str, sop_instance_uid: str) -> QuerySet[Instance]:
    """Give the instances that lie in an object, given with the SOP Instance UID of one that lay there."""
    if packs.is_pack(object_key):
        return packs.naming(object_key)
    # Their keys aren't indexed, their UIDs are.
    return Instance.objects.filter(sop_instance_uid=sop_instance_uid, object_key=object_key)


def remove_objects(*, now: datetime | None = None) -> int:
    """Remove from storage what deleted instances left and nobody names; give how many objects that were.

    Of a pack that others still lie in, these are moved out first, and the pack is removed by a later call. Two calls
    may run at a time.
    """
    removed = 0
    due = ObjectRemoval.objects.filter(due_at__lte=now or timezone.now())
    for pk in list(due.order_by("pk").values_list("pk", flat=True)[:1000]):
        # Locked until the commit, so that keep_objects() waits, or comes first.
        with transaction.atomic():
            removal = due.select_for_update().filter(pk=pk).first()
            if removal is None:
                continue
            key = removal.object_key
            is_used = naming(key, removal.sop_instance_uid).exists()
            if not is_used:
                objects.remove(key)
                removed += 1
            if not is_used or not packs.is_pack(key):
                removal.delete()
                continue
            # It's this call's to take apart.
            removal.due_at = timezone.now() + GRACE
            removal.save(update_fields=["due_at"])
        is_empty, ended_at = _unpack(key), timezone.now()
        # Whoever found an instance in the pack a moment ago still reads it there.
        listed = ObjectRemoval.objects.filter(pk=pk)
        listed.update(due_at=ended_at + GRACE, failed_at=None if is_empty else ended_at)
    return removed


def _unpack(pack: str) -> bool:
    """Move the instances that lie in a pack into objects of their own, and say whether all were. The pack stays."""
    is_empty = True
    for row in packs.naming(pack).select_related("series__study__site"):
        try:
            _move_out(row, pack)
        except Exception:  # each storage has errors of its own; it's tried again
            logger.exception("an instance can't be moved out of its pack", extra={"instance": row.pk})
            is_empty = False
    return is_empty


def _move_out(row: Instance, pack: str) -> None:
    """Move an instance out of its pack.

    Raises ObjectMissing when it isn't as it came, its study moves to another tier or its copy was removed, or the
    storage's error.
    """
    study = row.series.study
    uids = (study.study_instance_uid, row.series.series_instance_uid, row.sop_instance_uid)
    key = objects.key_of(study.site.slug, *uids, bytes(row.sha256))
    # Should anything go wrong from here on, nobody names it.
    remove_later({key: row.sop_instance_uid})
    _copy(row, key)
    with transaction.atomic():
        # Who moves the study to the other tier finds this done, or has the pack moved first.
        moves = Study.objects.select_for_update().get(pk=study.pk).tier != study.tier
        # Who would remove the copy finds it named, or has removed it because this took so long.
        if moves or not ObjectRemoval.objects.select_for_update().filter(object_key=key).exists():
            raise ObjectMissing(pack)
        Instance.objects.filter(pk=row.pk, object_key=pack).update(object_key=key, object_offset=0)


def _copy(row: Instance, key: str) -> None:
    """Copy an instance out of its pack, into the tier of its study, and read it there.

    Raises ObjectMissing, or the storage's error.
    """
    path = objects.new_staging_path()
    digest = hashlib.sha256()
    try:
        with path.open("xb") as file:
            for chunk in objects.stream_instance(row, original=True):
                digest.update(chunk)
                file.write(chunk)
        if digest.digest() != bytes(row.sha256):
            raise ObjectMissing(row.sop_instance_uid)
        tier = Study.Tier(row.series.study.tier)
        if tier == Study.Tier.COLD:
            objects.require_cold_tier()
        objects.place_all([(key, path)], tier)
        if objects.digest(key, 0, row.object_length, tier) != bytes(row.sha256):
            raise ObjectMissing(row.sop_instance_uid)
    finally:
        path.unlink(missing_ok=True)
