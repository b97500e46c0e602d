"""Patients as orders name them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from accounts.models import Site
from studies.models import Patient, ReferringPhysician
from studies.orders.models import Order
from studies.person_names import identifying, searchable


@dataclass(frozen=True)
class PatientIdentity:
    """What an order says of its patient: the ID with its issuer says who, the rest describes."""

    patient_id: str
    patient_name: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: date | None = None
    patient_sex: str = ""


def find_or_make_patient(*, site: Site, identity: PatientIdentity) -> Patient:
    """Give the site's patient of that ID, the surviving one where two were merged; made when there's none.

    What is known of a patient already isn't changed by an order; what is missing is filled in.
    """
    described = {
        "patient_name": identity.patient_name,
        "patient_birth_date": identity.patient_birth_date,
        "patient_sex": identity.patient_sex,
    }
    patient, is_new = Patient.objects.get_or_create(
        site=site,
        identity=f"{identity.issuer_of_patient_id}|{identity.patient_id}",
        defaults={
            "patient_id": identity.patient_id,
            "issuer_of_patient_id": identity.issuer_of_patient_id,
            **described,
        },
    )
    patient = surviving(patient)
    missing = {name: value for name, value in described.items() if value and not getattr(patient, name)}
    if missing and not is_new:
        for name, value in missing.items():
            setattr(patient, name, value)
        patient.save(update_fields=list(missing))
        name_orders(patient)
    return patient


def name_orders(patient: Patient) -> None:
    """Let the patient's orders be found by the name that the record has now."""
    Order.objects.filter(patient=patient).update(patient_name_search=searchable(patient.patient_name))


def surviving(patient: Patient) -> Patient:
    """Give the record that stands for the person after all merges."""
    while patient.merged_into is not None:
        patient = patient.merged_into
    return patient


def find_or_make_physician(*, site: Site, name: str) -> ReferringPhysician | None:
    """Give the site's referring physician of that name, made when there's none; None for an empty name."""
    name_search = identifying(name)
    if not name_search:
        return None
    physician, _ = ReferringPhysician.objects.get_or_create(site=site, name_search=name_search, defaults={"name": name})
    return physician
