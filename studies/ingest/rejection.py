"""Rejecting by hand: a note of our own goes the one way in, has its effect there, and can be sent on."""

from __future__ import annotations

from collections.abc import Iterable

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.archive.errors import NotAuthorised
from studies.archive.rejection import Reason, write_note
from studies.ingest.services import Outcome, Source, WayIn, ingest, stage
from studies.models import Instance, Study


def reject_instances(
    *, study: Study, instances: Iterable[Instance], reason: Reason, principal: Principal
) -> Outcome | None:
    """Reject current instances of a study and give what became of the note; None when there's nothing to reject.

    Raises NotAuthorised.
    """
    if not principal.may(Capability.STUDY_REJECT, study.site_id):
        raise NotAuthorised
    current = Instance.objects.filter(
        series__study=study, is_current=True, pk__in=[instance.pk for instance in instances]
    ).select_related("series")
    chosen = list(current.order_by("series_id", "instance_number", "pk"))
    if not chosen:
        return None
    note = write_note(study=study, instances=chosen, reason=reason, observer=_observer(principal))
    (outcome,) = ingest([stage([note])], Source(WayIn.REJECTION, study.site, principal))
    return outcome


def _observer(principal: Principal) -> str:
    """Give who rejects as a person name (PS3.5 §6.2)."""
    user = principal.user
    if user is None or not user.last_name:
        return principal.name[:64]
    return f"{user.last_name}^{user.first_name}"[:64]
