"""Studies and their orders brought together, by rule or by a technologist; every step keeps what was there before."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive.corrections import restate
from studies.models import Patient, Study
from studies.orders.errors import CannotUndo, NotAllowed, NotTheSameSite, OrderHasStudy
from studies.orders.models import Mismatch, Order, PerformedProcedureStep, Reconciliation, ScheduledProcedureStep
from studies.orders.patients import name_orders
from studies.orders.services import STEPS_OVER, set_order_status
from studies.trail import subject_of

# What a study takes over from its order, and what a correction changes.
STUDY_COLUMNS = (
    *("patient_id", "patient_id_value", "patient_name", "patient_name_search", "accession_number", "priority"),
    *("referring_physician_id", "referring_physician_name", "corrections"),
)
PATIENT_COLUMNS = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")


def link_by_rule(*, study: Study, order: Order) -> Reconciliation:
    """Link a study to the order that fits it, in the caller's transaction."""
    return _link(study, order, user=None)


@transaction.atomic
def link_study(*, study: Study, order: Order, principal: Principal) -> Reconciliation:
    """Link a study to an order by hand; nothing on the images changes.

    Raises NotAllowed without study.correct at the site, NotTheSameSite, OrderHasStudy.
    """
    require_corrector(principal, study)
    made = _link(study, order, user=principal.user)
    trace(study, principal, {"what": "study linked to order", "accession_number": order.accession_number})
    return made


def _link(study: Study, order: Order, *, user: User | None) -> Reconciliation:
    study = locked(study)
    order = Order.objects.select_for_update(of=("self",)).get(pk=order.pk)
    if order.site_id != study.site_id:
        raise NotTheSameSite
    if order.study_id is not None or study.orders.exists():
        raise OrderHasStudy
    before = snapshot(study, order)
    take_over_from_order(study, order, user=user)
    settle(study, user)
    return Reconciliation.objects.create(
        study=study,
        order=order,
        kind=Reconciliation.Kind.LINKED,
        before=before,
        after=snapshot(study, order),
        made_by=user,
    )


def take_over_from_order(study: Study, order: Order, *, user: User | None) -> None:
    """Give the study its order's priority and referring physician, and let the order's state follow."""
    study.priority = order.priority
    if order.referring_physician_id is not None:
        study.referring_physician_id = order.referring_physician_id
        study.referring_physician_name = order.referring_physician_name
    study.save(update_fields=["priority", "referring_physician", "referring_physician_name", "updated_at"])
    order.study = study
    order.save(update_fields=["study"])
    is_running = PerformedProcedureStep.objects.filter(
        scheduled_steps__order=order, status=PerformedProcedureStep.Status.IN_PROGRESS
    ).exists()
    status = Order.Status.IN_PROGRESS if is_running else Order.Status.COMPLETED
    set_order_status(order=order, status=status, user=user)
    if not is_running:
        order.scheduled_steps.exclude(status__in=STEPS_OVER).update(status=ScheduledProcedureStep.Status.COMPLETED)
    events.emit("order.changed", order=order.pk)
    events.emit("study.changed", study=study.pk)


@transaction.atomic
def settle_without_order(*, study: Study, principal: Principal) -> None:
    """Say that the study needs no order. Raises NotAllowed."""
    require_corrector(principal, study)
    settle(study, principal.user)
    trace(study, principal, {"what": "study needs no order"})


@transaction.atomic
def list_again(*, study: Study, principal: Principal) -> None:
    """Put a study that was said to need no order on the technologists' list again. Raises NotAllowed."""
    require_corrector(principal, study)
    settled = Mismatch.objects.filter(study=study, settled_at__isnull=False)
    if study.orders.exists() or not settled.update(settled_at=None, settled_by=None, found_at=timezone.now()):
        return
    trace(study, principal, {"what": "study waits for its order again"})


@transaction.atomic
def undo(*, reconciliation: Reconciliation, principal: Principal) -> None:
    """Put the study and the order back to what they were before the step.

    Raises NotAllowed; CannotUndo when it was undone already or a later step lies on top of it.
    """
    require_corrector(principal, reconciliation.study)
    study = locked(reconciliation.study)
    step = Reconciliation.objects.select_for_update(of=("self",)).get(pk=reconciliation.pk)
    later = Reconciliation.objects.filter(study=study, pk__gt=step.pk, undone_at__isnull=True)
    if step.undone_at is not None or later.exists():
        raise CannotUndo
    before = step.before
    for column in STUDY_COLUMNS:
        setattr(study, column, before["study"][column])
    study.save()
    _restore_patient(step)
    if study.corrections != step.after["study"]["corrections"]:
        restate(study=study)
    if step.order is not None:
        step.order.study = None
        step.order.save(update_fields=["study"])
        set_order_status(order=step.order, status=before["order"]["status"], user=principal.user)
        if before["order"]["status"] in {Order.Status.SCHEDULED, Order.Status.ARRIVED}:
            step.order.scheduled_steps.update(status=before["order"]["status"].upper())
        events.emit("order.changed", order=step.order.pk)
        reopen(study, Mismatch.Reason.TAKEN_BACK)
    step.undone_at, step.undone_by = timezone.now(), principal.user
    step.save(update_fields=["undone_at", "undone_by"])
    events.emit("study.changed", study=study.pk)
    trace(study, principal, {"what": "reconciliation undone", "kind": step.kind})


def _restore_patient(step: Reconciliation) -> None:
    """Put the patient's row back where the step rewrote it, and part what a merge had joined."""
    before, after = step.before["patient"], step.after["patient"]
    if before != after and before["id"] == after["id"]:
        Patient.objects.filter(pk=before["id"]).update(**{name: before[name] for name in PATIENT_COLUMNS})
    if step.kind == Reconciliation.Kind.MERGED:
        Patient.objects.filter(pk=before["id"]).update(merged_into=None)
        for order in Order.objects.filter(pk__in=step.before.get("orders", []), patient=after["id"]):
            Order.objects.filter(pk=order.pk).update(patient=before["id"])
            events.emit("order.changed", order=order.pk)
    name_orders(Patient.objects.get(pk=before["id"]))


def snapshot(study: Study, order: Order | None) -> dict[str, Any]:
    """Give the values that a step may change, as JSON."""
    patient = Patient.objects.get(pk=study.patient_id)
    born = patient.patient_birth_date
    kept: dict[str, Any] = {
        "study": {column: getattr(study, column) for column in STUDY_COLUMNS},
        "patient": {
            "id": patient.pk,
            **{column: getattr(patient, column) for column in PATIENT_COLUMNS},
            "patient_birth_date": born.isoformat() if born else None,
        },
    }
    if order is not None:
        kept["order"] = {
            "accession_number": order.accession_number,
            "status": order.status,
            "patient_id": order.patient_id,
        }
    return kept


def settle(study: Study, user: User | None) -> None:
    """Take the study off the technologists' list."""
    Mismatch.objects.filter(study=study, settled_at__isnull=True).update(settled_at=timezone.now(), settled_by=user)


def reopen(study: Study, reason: str) -> None:
    """Put the study on the technologists' list again."""
    Mismatch.objects.update_or_create(
        study=study, defaults={"reason": reason, "settled_at": None, "settled_by": None, "found_at": timezone.now()}
    )


def require_corrector(principal: Principal, study: Study) -> None:
    """Raise NotAllowed for one who may not correct identities at the study's site."""
    if not principal.may(Capability.STUDY_CORRECT, study.site_id):
        raise NotAllowed


def locked(study: Study) -> Study:
    """Give the study as it is now, locked until the commit."""
    return Study.objects.select_for_update(of=("self",)).get(pk=study.pk)


def trace(study: Study, principal: Principal, details: dict[str, Any]) -> None:
    """Record the step in the trail."""
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details=details,
    )
