"""A study's acquisition: from a modality's first word to its last, a case waits for images and not for a reader."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import Site
from studies import reading
from studies.models import Study
from studies.orders.models import PerformedProcedureStep

Status = PerformedProcedureStep.Status
# A modality that was switched off never says that it has ended: after so long the case is the readers'.
LONGEST = timedelta(hours=12)


@dataclass(frozen=True)
class Acquisition:
    """What a modality is doing for a study, or that it broke off, and why."""

    station: str
    since: datetime
    is_under_way: bool
    reason: str = ""


def steps_under_way(site_ids: Iterable[int] | None = None) -> list[PerformedProcedureStep]:
    """Give the steps that modalities have begun and not ended, at the sites (None: at all of them)."""
    steps = PerformedProcedureStep.objects.filter(
        status=Status.IN_PROGRESS, received_at__gte=timezone.now() - LONGEST
    ).order_by("pk")
    return list(steps if site_ids is None else steps.filter(site__in=sorted(site_ids)))


def is_under_way(site_ids: Iterable[int] | None = None) -> Q:
    """Give the condition that a modality is at work for a study."""
    uids: dict[int, set[str]] = defaultdict(set)
    for step in steps_under_way(site_ids):
        uids[step.site_id].update(step.study_instance_uids)
    condition = Q(pk__in=[])
    for site_id, of_site in uids.items():
        condition |= Q(site=site_id, study_instance_uid__in=sorted(of_site))
    return condition


def follow_steps(*, study_id: int) -> None:
    """Take the study to where its performed steps have brought it; one that somebody reads stays with them.

    A study that is discontinued goes to the readers with the images that it has, and is called off without any.
    """
    study = Study.objects.filter(pk=study_id).first()
    if study is None:
        return
    is_the_readers = study.status == Study.Status.ARRIVED and study.number_of_instances
    # Most are, and need no lock: a step that begins now has the study follow by itself.
    if not (is_the_readers and _step_of(study) is None):
        _follow(study_id)


@transaction.atomic
def _follow(study_id: int) -> None:
    study = Study.objects.select_for_update(of=("self",)).filter(pk=study_id).first()
    if study is None:
        return
    if _step_of(study) is not None:
        reading.begin_acquisition(study=study)
    elif study.number_of_instances:
        reading.end_acquisition(study=study, has_images=True)
    elif study.status == Study.Status.ACQUIRING:
        reading.end_acquisition(study=study, has_images=False)


def follow_step(step: PerformedProcedureStep) -> None:
    """Take the studies that a performed step names along, in the caller's transaction."""
    named = Study.objects.filter(site=step.site_id, study_instance_uid__in=step.study_instance_uids)
    for study_id in named.order_by("pk").values_list("pk", flat=True):
        follow_steps(study_id=study_id)


def end_forgotten() -> int:
    """Hand over the cases whose modality never said that it has ended; give how many."""
    ended = 0
    for site_id in Site.objects.order_by("pk").values_list("pk", flat=True):
        waiting = Study.objects.filter(site=site_id, status=Study.Status.ACQUIRING)
        forgotten = waiting.exclude(is_under_way([site_id]))
        for study_id in list(forgotten.values_list("pk", flat=True)):
            follow_steps(study_id=study_id)
            ended += 1
    return ended


def acquisition_of(study: Study) -> Acquisition | None:
    """Give what a modality does for the study now, or that all it did for its order was broken off; else None."""
    under_way = _step_of(study)
    if under_way is not None:
        return _told(under_way)
    performed = PerformedProcedureStep.objects.filter(scheduled_steps__order__study=study)
    steps = list(performed.distinct().order_by("pk"))
    if steps and all(step.status == Status.DISCONTINUED for step in steps):
        return _told(steps[-1])
    return None


def _step_of(study: Study) -> PerformedProcedureStep | None:
    """Give the step by which a modality is at work for the study."""
    under_way = steps_under_way([study.site_id])
    return next((step for step in under_way if study.study_instance_uid in step.study_instance_uids), None)


def _told(step: PerformedProcedureStep) -> Acquisition:
    is_under_way = step.status == Status.IN_PROGRESS
    # Performed Procedure Step Discontinuation Reason Code Sequence, its Code Meaning.
    (reason,) = step.attributes.get("00400281", {}).get("Value", [])[:1] or [{}]
    meaning = reason.get("00080104", {}).get("Value", [])
    return Acquisition(
        station=step.performed_station_ae_title,
        since=(step.started_at if is_under_way else step.ended_at) or step.received_at,
        is_under_way=is_under_way,
        reason=str(meaning[0]) if meaning else "",
    )
