"""A study given its order's or another patient's identity, and two records of one person made one.

The DICOM originals stay as they came; what leaves carries the corrected values (:mod:`studies.archive.corrections`).
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive.corrections import correct_study
from studies.models import Patient, Study
from studies.orders.errors import NotAllowed, NotTheSameSite, OrderHasStudy
from studies.orders.models import Order, Reconciliation
from studies.orders.patients import name_orders, surviving
from studies.orders.reconciliation import (
    locked,
    require_corrector,
    settle,
    snapshot,
    take_over_from_order,
)


def identity_of(patient: Patient) -> dict[str, Any]:
    """Give the patient's identity by DICOM keyword."""
    return {
        "PatientID": patient.patient_id,
        "IssuerOfPatientID": patient.issuer_of_patient_id,
        "PatientName": patient.patient_name,
        "PatientBirthDate": patient.patient_birth_date or "",
        "PatientSex": patient.patient_sex,
    }


def wanted_by(order: Order) -> dict[str, Any]:
    """Give what an order says of its study, by DICOM keyword."""
    wanted = {**identity_of(order.patient), "AccessionNumber": order.accession_number}
    if order.referring_physician_name:
        wanted["ReferringPhysicianName"] = order.referring_physician_name
    return wanted


def _now(study: Study) -> dict[str, Any]:
    return {
        **identity_of(study.patient),
        "PatientID": study.patient_id_value,
        "PatientName": study.patient_name,
        "AccessionNumber": study.accession_number,
        "ReferringPhysicianName": study.referring_physician_name,
    }


@transaction.atomic
def link_and_correct(*, study: Study, order: Order, principal: Principal) -> Reconciliation:
    """Link a study to an order and correct the study's identity, accession number and referrer after it.

    Raises NotAllowed without study.correct at the site, NotTheSameSite, OrderHasStudy, NotCorrectable.
    """
    require_corrector(principal, study)
    study = locked(study)
    order = Order.objects.select_for_update(of=("self",)).select_related("patient").get(pk=order.pk)
    if order.site_id != study.site_id:
        raise NotTheSameSite
    if order.study_id is not None or study.orders.exists():
        raise OrderHasStudy
    before = snapshot(study, order)
    wanted = _differing(study, wanted_by(order))
    take_over_from_order(study, order, user=principal.user)
    if wanted:
        correct_study(
            study=study,
            attributes=wanted,
            reason=f"Reconciled with order {order.accession_number}",
            principal=principal,
        )
    settle(study, principal.user)
    return _kept(study, order, Reconciliation.Kind.CORRECTED, before, principal)


@transaction.atomic
def move_study(*, study: Study, patient: Patient, principal: Principal) -> Reconciliation:
    """Give a study to another patient of the site.

    Raises NotAllowed without study.correct at the site, NotTheSameSite, NotCorrectable.
    """
    require_corrector(principal, study)
    if patient.site_id != study.site_id:
        raise NotTheSameSite
    return _move(study, surviving(patient), Reconciliation.Kind.MOVED, principal, "Moved to the right patient")


def _move(
    study: Study, patient: Patient, kind: str, principal: Principal, reason: str, orders: list[int] | None = None
) -> Reconciliation:
    study = locked(study)
    before = snapshot(study, None)
    if orders is not None:
        before["orders"] = orders
    # Each word of the identity is set, also where it's the same: it is the new patient's from now on.
    correct_study(study=study, attributes=identity_of(patient), reason=reason, principal=principal)
    Study.objects.filter(pk=study.pk).update(patient=patient)
    events.emit("study.changed", study=study.pk)
    return _kept(study, None, kind, before, principal)


@transaction.atomic
def merge_patients(*, surviving_patient: Patient, merged: Patient, principal: Principal) -> list[Reconciliation]:
    """Make two records of one person one (as HL7 ADT^A40 asks): studies and orders go to the surviving record.

    What comes later under the merged ID follows. Gives one step per study; undoing one parts the records again.
    Raises NotAllowed without study.correct at the site, NotTheSameSite (also for a record and itself).
    """
    surviving_patient = surviving(surviving_patient)
    if not principal.may(Capability.STUDY_CORRECT, surviving_patient.site_id):
        raise NotAllowed
    if merged.site_id != surviving_patient.site_id or merged.pk == surviving_patient.pk:
        raise NotTheSameSite
    Patient.objects.select_for_update().filter(pk__in=[merged.pk, surviving_patient.pk]).count()
    studies = list(Study.objects.filter(patient=merged).order_by("pk"))
    orders = list(Order.objects.filter(patient=merged).values_list("pk", flat=True))
    Patient.objects.filter(pk=merged.pk).update(merged_into=surviving_patient)
    Patient.objects.filter(merged_into=merged).update(merged_into=surviving_patient)
    reason = f"Patient {merged.patient_id} merged into {surviving_patient.patient_id}"
    steps = [
        _move(study, surviving_patient, Reconciliation.Kind.MERGED, principal, reason, orders) for study in studies
    ]
    Order.objects.filter(pk__in=orders).update(patient=surviving_patient)
    name_orders(surviving_patient)
    for pk in orders:
        events.emit("order.changed", order=pk)
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=merged.site_id,
        patient_id=surviving_patient.patient_id,
        patient_name=surviving_patient.patient_name,
        details={"what": "patients merged", "merged": merged.patient_id, "studies": len(studies)},
    )
    return steps


def follow_merge(*, study_id: int) -> None:
    """Give a study that came under a merged ID to the surviving record."""
    merged = Study.objects.select_related("patient__merged_into").filter(patient__merged_into__isnull=False)
    study = merged.filter(pk=study_id).first()
    if study is None:
        return
    principal = Principal(ae_title="patient merge")
    with transaction.atomic():
        _move(study, surviving(study.patient), Reconciliation.Kind.MERGED, principal, "Came under a merged patient ID")


def _differing(study: Study, wanted: dict[str, Any]) -> dict[str, Any]:
    now = _now(study)
    return {keyword: value for keyword, value in wanted.items() if (now[keyword] or "") != (value or "")}


def _kept(study: Study, order: Order | None, kind: str, before: dict[str, Any], principal: Principal) -> Reconciliation:
    study.refresh_from_db()
    return Reconciliation.objects.create(
        study=study, order=order, kind=kind, before=before, after=snapshot(study, order), made_by=principal.user
    )
