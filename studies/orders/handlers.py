"""What the orders' room does when something happens elsewhere."""

from __future__ import annotations

from typing import Any

from studies.events import handle
from studies.orders.identity import follow_merge
from studies.orders.matching import match_study, rematch_open_studies


@handle("study.arrived")
def meet_order(payload: dict[str, Any]) -> None:
    """Give the study to the surviving record of its patient, and link it to its order."""
    follow_merge(study_id=payload["study"])
    match_study(study_id=payload["study"])


@handle("order.placed")
def meet_waiting_studies(payload: dict[str, Any]) -> None:
    """Look among the studies that came before their order."""
    rematch_open_studies(order_id=payload["order"])
