"""What the orders' room does when something happens elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studies.archive import tiers
from studies.events import handle
from studies.models import Patient
from studies.orders.acquisition import follow_steps
from studies.orders.identity import follow_merge
from studies.orders.matching import match_study, rematch_open_studies
from studies.orders.models import Order
from studies.orders.patients import name_orders

OPEN = (Order.Status.SCHEDULED, Order.Status.ARRIVED, Order.Status.IN_PROGRESS)


@handle("study.arrived")
def meet_order(payload: dict[str, Any]) -> None:
    """Give the study to the surviving record of its patient, link it to its order, see if more images are to come."""
    follow_merge(study_id=payload["study"])
    match_study(study_id=payload["study"])
    follow_steps(study_id=payload["study"])


@handle("study.settled")
def see_what_became_of_it(payload: dict[str, Any]) -> None:
    """Take up again a study that was called off and has images now."""
    follow_steps(study_id=payload["study"])


@handle("study.corrected")
def follow_name(payload: dict[str, Any]) -> None:
    """Let orders be found by the name that a correction gave their patient."""
    for patient in Patient.objects.filter(studies=payload["study"]):
        name_orders(patient)


@handle("order.placed")
def meet_waiting_studies(payload: dict[str, Any]) -> None:
    """Look among the studies that came before their order."""
    rematch_open_studies(order_id=payload["order"])


@tiers.keeps_hot
def with_open_order(study_ids: Sequence[int]) -> set[int]:
    """Give those of the studies whose order is open: they stay in the hot tier."""
    orders = Order.objects.filter(study__in=study_ids, status__in=OPEN)
    return {pk for pk in orders.values_list("study_id", flat=True) if pk is not None}
