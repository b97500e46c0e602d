"""Every write on orders. Each is an event for the modality worklist, for interfaces and for lists that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone
from pydicom.uid import generate_uid

from accounts.capabilities import Capability
from accounts.models import Site, User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.models import Patient, Priority
from studies.orders.errors import (
    AccessionNumberTaken,
    NotAllowed,
    NotTheSameSite,
    OrderHasStudy,
    OrderIsOver,
)
from studies.orders.models import AccessionSeries, Order, OrderStatusChange, ScheduledProcedureStep
from studies.orders.patients import PatientIdentity, find_or_make_patient, find_or_make_physician
from studies.person_names import searchable

OVER = (Order.Status.COMPLETED, Order.Status.DISCONTINUED, Order.Status.CANCELLED)
STEPS_OVER = (ScheduledProcedureStep.Status.COMPLETED, ScheduledProcedureStep.Status.DISCONTINUED)


@dataclass(frozen=True)
class OrderDetails:
    """What is asked for and when. An empty accession number, ID or UID is given by Atrium."""

    description: str
    modality: str
    scheduled_at: datetime
    accession_number: str = ""
    priority: str = Priority.ROUTINE
    indication: str = ""
    referring_physician_name: str = ""
    patient_class: str = Order.PatientClass.UNKNOWN
    patient_location: str = ""
    admission_id: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""
    requested_procedure_id: str = ""
    study_instance_uid: str = ""
    station_ae_title: str = ""
    station_name: str = ""
    performing_physician_name: str = ""


# The columns of Order that OrderDetails fills under the same name.
_ORDER_COLUMNS = (
    *("priority", "indication", "referring_physician_name", "patient_class", "patient_location", "admission_id"),
    *("placer_order_number", "filler_order_number"),
)
_STEP_COLUMNS = {
    "modality": "modality",
    "scheduled_at": "scheduled_at",
    "station_ae_title": "scheduled_station_ae_title",
    "station_name": "scheduled_station_name",
    "performing_physician_name": "scheduled_performing_physician_name",
}


@transaction.atomic
def place_order(
    *, site: Site, patient: Patient | PatientIdentity, details: OrderDetails, principal: Principal
) -> Order:
    """Place an order with one scheduled step.

    Raises NotAllowed without order.manage at the site, NotTheSameSite for another site's patient,
    AccessionNumberTaken when the number is in use for this procedure or for another patient.
    """
    _require(principal, site.pk)
    if isinstance(patient, PatientIdentity):
        patient = find_or_make_patient(site=site, identity=patient)
    elif patient.site_id != site.pk:
        raise NotTheSameSite
    accession_number = details.accession_number.strip() or next_accession_number(site=site)
    procedure_id = details.requested_procedure_id or accession_number
    same = Order.objects.filter(site=site, accession_number=accession_number)
    if same.exclude(patient=patient).exists() or same.filter(requested_procedure_id=procedure_id).exists():
        raise AccessionNumberTaken(accession_number)
    order = Order.objects.create(
        site=site,
        patient=patient,
        patient_name_search=searchable(patient.patient_name),
        accession_number=accession_number,
        study_instance_uid=details.study_instance_uid or generate_uid(),
        requested_procedure_id=procedure_id,
        requested_procedure_description=details.description[:256],
        referring_physician=find_or_make_physician(site=site, name=details.referring_physician_name),
        scheduled_at=details.scheduled_at,
        modality=details.modality,
        placed_by=principal.user,
        **{name: getattr(details, name) for name in _ORDER_COLUMNS},
    )
    ScheduledProcedureStep.objects.create(
        order=order,
        scheduled_procedure_step_id=f"S{order.pk}"[:16],
        scheduled_procedure_step_description=details.description[:64],
        **{column: getattr(details, name) for name, column in _STEP_COLUMNS.items()},
    )
    events.emit("order.placed", order=order.pk)
    _record(order, principal, {"what": "order placed"})
    return order


@transaction.atomic
def next_accession_number(*, site: Site) -> str:
    """Give the site's next unused accession number, at most 16 characters (VR SH)."""
    AccessionSeries.objects.get_or_create(site=site, defaults={"prefix": site.slug[:2].upper()})
    series = AccessionSeries.objects.select_for_update().get(site=site)
    while True:
        series.last_number += 1
        number = f"{series.prefix}{timezone.now():%y}{series.last_number:06d}"
        if not Order.objects.filter(site=site, accession_number=number).exists():
            series.save(update_fields=["last_number"])
            return number


@transaction.atomic
def change_order(*, order: Order, changes: Mapping[str, Any], principal: Principal) -> Order:
    """Change what an order says; ``changes`` has names of :class:`OrderDetails` (not numbers and UIDs).

    Raises NotAllowed, OrderIsOver, KeyError for a name that can't be changed.
    """
    held = _open_order(order, principal)
    step = held.scheduled_steps.order_by("pk").first()
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, value in changes.items():
        target, column = _place_of(name, held, step)
        old = getattr(target, column)
        if old != value:
            before[name], after[name] = str(old), str(value)
            setattr(target, column, value)
    if not after:
        return held
    if "referring_physician_name" in after:
        held.referring_physician = find_or_make_physician(site=held.site, name=held.referring_physician_name)
    if "description" in after and step is not None:
        step.scheduled_procedure_step_description = held.requested_procedure_description[:64]
    if step is not None:
        held.scheduled_at, held.modality = step.scheduled_at, step.modality
    held.save()
    if step is not None:
        step.save()
    events.emit("order.changed", order=held.pk)
    _record(held, principal, {"what": "order changed", "before": before, "after": after})
    return held


def _place_of(name: str, order: Order, step: ScheduledProcedureStep | None) -> tuple[Any, str]:
    if name == "description":
        return order, "requested_procedure_description"
    if name in _ORDER_COLUMNS:
        return order, name
    if name in _STEP_COLUMNS and step is not None:
        return step, _STEP_COLUMNS[name]
    raise KeyError(name)


def changeable_details() -> tuple[str, ...]:
    """Give the names of :class:`OrderDetails` that :func:`change_order` takes."""
    names = {"description", *_ORDER_COLUMNS, *_STEP_COLUMNS}
    return tuple(field.name for field in fields(OrderDetails) if field.name in names)


@transaction.atomic
def reschedule_order(
    *, order: Order, scheduled_at: datetime, station_ae_title: str | None = None, principal: Principal
) -> Order:
    """Move the order to another time and, if given, station. Raises NotAllowed, OrderIsOver."""
    changes: dict[str, Any] = {"scheduled_at": scheduled_at}
    if station_ae_title is not None:
        changes["station_ae_title"] = station_ae_title
    return change_order(order=order, changes=changes, principal=principal)


@transaction.atomic
def arrive_order(*, order: Order, principal: Principal) -> Order:
    """Say that the patient is here. Raises NotAllowed, OrderIsOver."""
    held = _open_order(order, principal)
    if held.status == Order.Status.SCHEDULED:
        set_order_status(order=held, status=Order.Status.ARRIVED, user=principal.user)
        held.scheduled_steps.filter(status=ScheduledProcedureStep.Status.SCHEDULED).update(
            status=ScheduledProcedureStep.Status.ARRIVED
        )
        events.emit("order.changed", order=held.pk)
        _record(held, principal, {"what": "patient arrived"})
    return held


@transaction.atomic
def cancel_order(*, order: Order, principal: Principal, reason: str = "") -> Order:
    """Cancel the order. Raises NotAllowed, OrderIsOver, OrderHasStudy when images have come for it."""
    held = _open_order(order, principal)
    if held.study_id is not None:
        raise OrderHasStudy
    set_order_status(order=held, status=Order.Status.CANCELLED, user=principal.user, reason=reason)
    held.scheduled_steps.exclude(status__in=STEPS_OVER).update(status=ScheduledProcedureStep.Status.DISCONTINUED)
    events.emit("order.cancelled", order=held.pk)
    _record(held, principal, {"what": "order cancelled", "reason": reason})
    return held


def set_order_status(
    *, order: Order, status: str, user: User | None = None, station_ae_title: str = "", reason: str = ""
) -> None:
    """Take the order to another status, in the caller's transaction, and remember who did that and when.

    The same status changes nothing.
    """
    if order.status != status:
        order.status, order.status_at = status, timezone.now()
        order.save(update_fields=["status", "status_at"])
        OrderStatusChange.objects.create(
            order=order, status=status, user=user, station_ae_title=station_ae_title, reason=reason[:200]
        )


def _open_order(order: Order, principal: Principal) -> Order:
    held = Order.objects.select_for_update(of=("self",)).select_related("site", "patient").get(pk=order.pk)
    _require(principal, held.site_id)
    if held.status in OVER:
        raise OrderIsOver(held.get_status_display().lower())
    return held


def _require(principal: Principal, site_id: int) -> None:
    if not principal.may(Capability.ORDER_MANAGE, site_id):
        raise NotAllowed


def _record(order: Order, principal: Principal, details: dict[str, Any]) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=order.site_id,
        patient_id=order.patient.patient_id,
        patient_name=order.patient.patient_name,
        study_instance_uid=order.study_instance_uid,
        details={**details, "accession_number": order.accession_number},
    )
