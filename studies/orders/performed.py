"""What modalities tell that they did (PS3.4 Annex F): performed steps move scheduled steps, orders and studies.

A performed step may answer one scheduled step, several (group case), one that another performed step answers too
(append case), or none (unscheduled).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from pydicom import Dataset
from pydicom.valuerep import DA, TM

from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.orders.acquisition import follow_step
from studies.orders.errors import OrderRefused
from studies.orders.models import Order, PerformedProcedureStep, ScheduledProcedureStep
from studies.orders.services import OVER, STEPS_OVER, set_order_status

Status = PerformedProcedureStep.Status
StepStatus = ScheduledProcedureStep.Status
FINAL = (Status.COMPLETED, Status.DISCONTINUED)
# Required of N-CREATE (PS3.4 Table F.7.2-1); those of type 1 also need a value.
REQUIRED = (
    *("ScheduledStepAttributesSequence", "PerformedProcedureStepID", "PerformedStationAETitle"),
    *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepStatus", "Modality"),
)
# What an N-SET may not change (PS3.4 Table F.7.2-1).
FIXED = (
    *("ScheduledStepAttributesSequence", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("ReferencedPatientSequence", "PerformedProcedureStepID", "PerformedStationAETitle", "PerformedStationName"),
    *("PerformedLocation", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "Modality", "StudyID"),
)


class StepAlreadyThere(OrderRefused):
    """A performed step of this UID was made before."""

    def __init__(self) -> None:
        super().__init__("A performed procedure step of this UID exists.")


class StepUnknown(OrderRefused):
    """There's no such performed step at the site."""

    def __init__(self) -> None:
        super().__init__("There is no such performed procedure step.")


class StepIsOver(OrderRefused):
    """The performed step is completed or discontinued and takes no change (PS3.4 §F.7.2.2.2)."""

    def __init__(self) -> None:
        super().__init__("Performed Procedure Step Object may no longer be updated")


class AttributeMissing(OrderRefused):
    """An attribute that must be there isn't."""

    def __init__(self, keyword: str) -> None:
        super().__init__(f"{keyword} is missing.")
        self.keyword = keyword


class AttributeNotAllowed(OrderRefused):
    """An attribute has a value that it may not have, or may not be changed."""

    def __init__(self, keyword: str) -> None:
        super().__init__(f"{keyword} has a value that isn't allowed here.")
        self.keyword = keyword


@transaction.atomic
def create_performed_step(
    *, site: Site, sop_instance_uid: str, dataset: Dataset, principal: Principal
) -> PerformedProcedureStep:
    """Note that a modality has begun (N-CREATE, PS3.4 §F.7.2.1).

    Raises StepAlreadyThere, AttributeMissing, AttributeNotAllowed when the status isn't IN PROGRESS.
    """
    for keyword in REQUIRED:
        if keyword not in dataset or dataset[keyword].is_empty:
            raise AttributeMissing(keyword)
    if dataset.PerformedProcedureStepStatus != Status.IN_PROGRESS:
        raise AttributeNotAllowed("PerformedProcedureStepStatus")
    uids = _study_uids(dataset)
    if not uids:
        raise AttributeMissing("StudyInstanceUID")
    try:
        with transaction.atomic():
            step = PerformedProcedureStep.objects.create(
                site=site,
                sop_instance_uid=sop_instance_uid,
                status=Status.IN_PROGRESS,
                study_instance_uids=uids,
                performed_station_ae_title=str(dataset.PerformedStationAETitle)[:16],
                attributes=_json(dataset),
                started_at=_moment(dataset, "Start"),
            )
    except IntegrityError as error:
        raise StepAlreadyThere from error
    step.scheduled_steps.set(_scheduled_steps(site, dataset))
    _move(step)
    follow_step(step)
    _tell(step, principal, "performed step begun")
    return step


@transaction.atomic
def change_performed_step(
    *, site: Site, sop_instance_uid: str, changes: Dataset, principal: Principal
) -> PerformedProcedureStep:
    """Note what a modality adds, or that it has ended (N-SET, PS3.4 §F.7.2.2).

    Raises StepUnknown, StepIsOver, AttributeNotAllowed.
    """
    step = _step(site, sop_instance_uid, for_update=True)
    if step.status in FINAL:
        raise StepIsOver
    for keyword in FIXED:
        if keyword in changes and _json(changes).get(_tag(changes, keyword)) != step.attributes.get(
            _tag(changes, keyword)
        ):
            raise AttributeNotAllowed(keyword)
    status = str(changes.get("PerformedProcedureStepStatus") or step.status)
    if status not in Status.values:
        raise AttributeNotAllowed("PerformedProcedureStepStatus")
    step.status = status
    step.attributes = {**step.attributes, **_json(changes)}
    if status in FINAL:
        step.ended_at = _moment(changes, "End") or timezone.now()
    step.save()
    _move(step)
    if status in FINAL:
        follow_step(step)
    _tell(step, principal, f"performed step {step.get_status_display().lower()}")
    return step


def performed_step(*, site: Site, sop_instance_uid: str) -> PerformedProcedureStep:
    """Give a performed step (N-GET, PS3.4 §F.8.2.1). Raises StepUnknown."""
    return _step(site, sop_instance_uid, for_update=False)


def _step(site: Site, sop_instance_uid: str, *, for_update: bool) -> PerformedProcedureStep:
    steps = PerformedProcedureStep.objects.filter(site=site, sop_instance_uid=sop_instance_uid)
    step = (steps.select_for_update() if for_update else steps).first()
    if step is None:
        raise StepUnknown
    return step


def _items(dataset: Dataset) -> Iterable[Dataset]:
    items: Iterable[Dataset] = dataset.get("ScheduledStepAttributesSequence") or ()
    return items


def _study_uids(dataset: Dataset) -> list[str]:
    return sorted({str(item.StudyInstanceUID) for item in _items(dataset) if item.get("StudyInstanceUID")})


def _scheduled_steps(site: Site, dataset: Dataset) -> list[ScheduledProcedureStep]:
    """Give the scheduled steps that the modality names by their ID and by study UID or accession number."""
    found: dict[int, ScheduledProcedureStep] = {}
    for item in _items(dataset):
        of_site = ScheduledProcedureStep.objects.filter(order__site=site)
        step_id = str(item.get("ScheduledProcedureStepID") or "")
        accession_number = str(item.get("AccessionNumber") or "")
        steps = of_site.filter(order__study_instance_uid=str(item.get("StudyInstanceUID") or ""))
        if not steps.exists() and accession_number and step_id:
            steps = of_site.filter(order__accession_number=accession_number)
        if step_id:
            steps = steps.filter(scheduled_procedure_step_id=step_id)
        found.update((step.pk, step) for step in steps)
    return list(found.values())


def _move(performed: PerformedProcedureStep) -> None:
    """Take the scheduled steps, and with them their orders, to where all their performed steps have brought them."""
    orders: set[int] = set()
    for step in performed.scheduled_steps.select_for_update():
        statuses = set(step.performed_steps.values_list("status", flat=True))
        if Status.IN_PROGRESS in statuses:
            step.status = StepStatus.STARTED
        elif Status.COMPLETED in statuses:
            step.status = StepStatus.COMPLETED
        else:
            step.status = StepStatus.DISCONTINUED
        step.save(update_fields=["status"])
        orders.add(step.order_id)
    for order in Order.objects.select_for_update(of=("self",)).filter(pk__in=orders).order_by("pk"):
        steps = set(order.scheduled_steps.values_list("status", flat=True))
        if not steps <= set(STEPS_OVER):
            status = Order.Status.IN_PROGRESS
        elif StepStatus.COMPLETED in steps:
            status = Order.Status.COMPLETED
        else:
            status = Order.Status.DISCONTINUED
        if order.status not in OVER or order.status != status:
            set_order_status(order=order, status=status, station_ae_title=performed.performed_station_ae_title)
        events.emit("order.changed", order=order.pk)


def _tell(step: PerformedProcedureStep, principal: Principal, what: str) -> None:
    events.emit("performed_step.changed", performed_step=step.pk)
    patient_id, patient_name = (step.attributes.get(tag, {}).get("Value", [""])[0] for tag in ("00100020", "00100010"))
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=step.site_id,
        patient_id=str(patient_id),
        patient_name=patient_name.get("Alphabetic", "") if isinstance(patient_name, dict) else str(patient_name),
        study_instance_uid=step.study_instance_uids[0],
        details={"what": what, "performed_step": step.sop_instance_uid, "station": step.performed_station_ae_title},
    )


def _json(dataset: Dataset) -> dict[str, Any]:
    content: dict[str, Any] = dataset.to_json_dict(suppress_invalid_tags=True)
    content.pop("00080005", None)
    return content


def _tag(dataset: Dataset, keyword: str) -> str:
    return f"{dataset[keyword].tag:08X}"


def _moment(dataset: Dataset, which: str) -> datetime | None:
    try:
        day = DA(str(dataset.get(f"PerformedProcedureStep{which}Date") or ""))
        time = TM(str(dataset.get(f"PerformedProcedureStep{which}Time") or ""))
    except ValueError:
        return None
    if not day or not time:
        return None
    return timezone.make_aware(datetime.combine(day, time))
