"""Studies meet their orders: by Study Instance UID, by accession number and patient, by patient, day and modality."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from studies.models import Study
from studies.orders.models import Mismatch, Order
from studies.orders.reconciliation import link_by_rule
from studies.person_names import searchable

# A schedule's hour is local and a study's date has no zone: a day on each side counts as the same day.
LEEWAY = timedelta(hours=14)


@dataclass(frozen=True)
class Match:
    """The one order that fits, or why none can be chosen by rule."""

    order: Order | None = None
    reason: str = ""


@transaction.atomic
def match_study(*, study_id: int) -> Match | None:
    """Link a study that has no order yet to the one that fits, or put it on the technologists' list.

    Gives None for a study that is gone, linked already or settled by a person.
    """
    study = Study.objects.select_for_update(of=("self",)).select_related("patient", "site").filter(pk=study_id).first()
    if study is None:
        return None
    is_settled = Q(orders__isnull=False) | Q(mismatch__settled_at__isnull=False)
    if Study.objects.filter(is_settled, pk=study_id).exists():
        return None
    found = find_order(study)
    if found.order is not None:
        link_by_rule(study=study, order=found.order)
    else:
        Mismatch.objects.bulk_create(
            [Mismatch(study=study, reason=found.reason)],
            update_conflicts=True,
            unique_fields=["study"],
            update_fields=["reason"],
        )
    return found


def find_order(study: Study) -> Match:
    """Say which order the study answers."""
    # One by one: asked together, SQLite walks all of a site's orders.
    by_uid = _free(study).filter(study_instance_uid=study.study_instance_uid).first()
    if by_uid is not None:
        return _of_same_patient(study, [by_uid])
    if study.accession_number:
        by_accession = list(_free(study).filter(accession_number=study.accession_number))
        if by_accession:
            return _of_same_patient(study, by_accession)
    candidates = list(same_day_orders(study))
    if len(candidates) == 1:
        return Match(candidates[0])
    return Match(reason=Mismatch.Reason.SEVERAL if candidates else Mismatch.Reason.NO_ORDER)


def same_day_orders(study: Study) -> QuerySet[Order]:
    """Give the patient's orders that wait for a study of that day and modality."""
    if study.study_date is None or not study.modalities_in_study:
        return Order.objects.none()
    start = datetime.combine(study.study_date, time.min, tzinfo=UTC)
    return (
        _free(study)
        .filter(
            patient_id=study.patient_id,
            scheduled_steps__modality__in=study.modalities,
            scheduled_steps__scheduled_at__range=(start - LEEWAY, start + timedelta(days=1) + LEEWAY),
        )
        .distinct()
    )


def _of_same_patient(study: Study, orders: list[Order]) -> Match:
    own = [order for order in orders if order.patient_id == study.patient_id]
    if not own:
        return Match(reason=Mismatch.Reason.PATIENT_DIFFERS)
    if len(own) > 1:
        own = [o for o in own if o.scheduled_steps.filter(modality__in=study.modalities).exists()]
    return Match(own[0]) if len(own) == 1 else Match(reason=Mismatch.Reason.SEVERAL)


def _free(study: Study) -> QuerySet[Order]:
    return (
        Order.objects.filter(site=study.site_id, study__isnull=True)
        .exclude(status=Order.Status.CANCELLED)
        .select_related("patient")
    )


def candidates_for(study: Study, text: str = "") -> QuerySet[Order]:
    """Give the orders that a technologist may want for the study: those that fit in part, or those found by text."""
    free = _free(study).prefetch_related("scheduled_steps")
    text = text.strip()
    if text:
        wanted = (
            Q(accession_number__iexact=text)
            | Q(patient__patient_id__iexact=text)
            | Q(patient_name_search__contains=searchable(text.replace(", ", "^").replace(",", "^")))
        )
    else:
        wanted = Q(patient_id=study.patient_id) | Q(study_instance_uid=study.study_instance_uid)
        if study.accession_number:
            wanted |= Q(accession_number=study.accession_number)
    return free.filter(wanted).order_by("-placed_at")[:20]


def rematch_open_studies(*, order_id: int) -> None:
    """Try the studies that wait for an order once more, now that this one is there."""
    order = Order.objects.select_related("patient").filter(pk=order_id, study__isnull=True).first()
    if order is None:
        return
    waiting = Mismatch.objects.filter(settled_at__isnull=True, study__site=order.site_id).filter(
        Q(study__study_instance_uid=order.study_instance_uid)
        | Q(study__accession_number=order.accession_number)
        | Q(study__patient=order.patient_id)
    )
    for study_id in list(waiting.values_list("study_id", flat=True)[:50]):
        match_study(study_id=study_id)
