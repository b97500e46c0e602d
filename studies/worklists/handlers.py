"""What the worklist does when something happens elsewhere."""

from __future__ import annotations

from typing import Any

from studies.events import handle
from studies.worklists.assignment import assign_on_arrival, assign_to_group
from studies.worklists.turnaround import set_clock, tell_of_late_case


@handle("study.arrived")
def begin(payload: dict[str, Any]) -> None:
    """Start the new case's clock and find its reader."""
    set_clock(study_id=payload["study"])
    assign_on_arrival(study_id=payload["study"])


@handle("study.changed")
def follow(payload: dict[str, Any]) -> None:
    """Correct the clock after another priority."""
    set_clock(study_id=payload["study"])


@handle("study.routed_to_group")
def give_to_group(payload: dict[str, Any]) -> None:
    """Find a reader in the group that a routing rule named."""
    assign_to_group(study_id=payload["study"], name=payload["group"])


@handle("case.overdue")
def escalate(payload: dict[str, Any]) -> None:
    """Tell those who must know that the case is late."""
    tell_of_late_case(study_id=payload["study"])
