"""What the orders' room does when something happens elsewhere."""

from __future__ import annotations

from typing import Any

from studies.events import handle
from studies.orders.matching import match_study, rematch_open_studies


@handle("study.arrived")
def meet_order(payload: dict[str, Any]) -> None:
    """Link the study to its order."""
    match_study(study_id=payload["study"])


@handle("order.placed")
def meet_waiting_studies(payload: dict[str, Any]) -> None:
    """Look among the studies that came before their order."""
    rematch_open_studies(order_id=payload["order"])
