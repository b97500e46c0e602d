"""Studies meet their orders on arrival."""

from __future__ import annotations

from typing import Any

import pytest

from studies import events
from studies.models import Study
from studies.orders.models import Mismatch, Order, Reconciliation
from studies.orders.reconciliation import link_study, undo
from tests.factories import make_instance, principal_of
from tests.orders.test_orders import place

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def arrive(ingest_files: Any, site: Any, **values: Any) -> Study:
    ingest_files(site, make_instance(**values))
    events.deliver_due()
    return Study.objects.latest("pk")


def test_by_study_instance_uid(north: Any, people: Any, ingest_files: Any) -> None:
    order = place(people, north, priority="STAT", referring_physician_name="Berg^Lars")
    study = arrive(ingest_files, north, StudyInstanceUID=order.study_instance_uid, AccessionNumber="other")
    order.refresh_from_db()
    assert order.study == study
    assert order.status == Order.Status.COMPLETED
    assert study.priority == "STAT"
    assert study.referring_physician_name == "Berg^Lars"
    assert study.referring_physician == order.referring_physician
    kept = Reconciliation.objects.get()
    assert kept.before["study"]["referring_physician_name"] == "Okafor^Ada^^Dr"
    assert kept.made_by is None


def test_by_accession_number_and_patient(north: Any, people: Any, ingest_files: Any) -> None:
    order = place(people, north, accession_number="A1")
    study = arrive(ingest_files, north)
    assert study.orders.get() == order


def test_by_patient_day_and_modality_where_only_one_fits(north: Any, people: Any, ingest_files: Any) -> None:
    order = place(people, north, accession_number="X1")
    place(people, north, accession_number="X2", modality="MR")
    study = arrive(ingest_files, north, AccessionNumber="")
    assert study.orders.get() == order


def test_another_patients_accession_number_waits_for_a_technologist(north: Any, people: Any, ingest_files: Any) -> None:
    place(people, north, accession_number="A1", patient_id="OTHER")
    study = arrive(ingest_files, north)
    assert not study.orders.exists()
    assert study.mismatch.reason == Mismatch.Reason.PATIENT_DIFFERS


def test_two_that_fit_wait_and_none_is_said_so(north: Any, people: Any, ingest_files: Any) -> None:
    place(people, north, accession_number="X1")
    place(people, north, accession_number="X2")
    assert arrive(ingest_files, north, AccessionNumber="").mismatch.reason == Mismatch.Reason.SEVERAL
    assert arrive(ingest_files, north, PatientID="P3").mismatch.reason == Mismatch.Reason.NO_ORDER


def test_an_order_of_another_site_never_fits(south: Any, north: Any, people: Any, ingest_files: Any) -> None:
    order = place(people, south, accession_number="A1", by="southradiologist")
    study = arrive(ingest_files, north, StudyInstanceUID=order.study_instance_uid)
    assert study.mismatch.reason == Mismatch.Reason.NO_ORDER


def test_a_study_that_came_first_meets_its_order_later(north: Any, people: Any, ingest_files: Any) -> None:
    study = arrive(ingest_files, north)
    assert study.mismatch.settled_at is None
    order = place(people, north, accession_number="A1")
    events.deliver_due()
    study.mismatch.refresh_from_db()
    assert study.mismatch.settled_at is not None
    assert study.orders.get() == order


def test_a_link_by_hand_can_be_undone(north: Any, people: Any, ingest_files: Any) -> None:
    order = place(people, north, accession_number="A1", patient_id="OTHER", priority="STAT")
    study = arrive(ingest_files, north)
    technologist = principal_of(people["technologist"])
    step = link_study(study=study, order=order, principal=technologist)
    study.refresh_from_db()
    assert (study.priority, study.orders.get()) == ("STAT", order)
    undo(reconciliation=step, principal=technologist)
    study.refresh_from_db()
    order.refresh_from_db()
    assert (study.priority, order.study, order.status) == ("ROUTINE", None, Order.Status.SCHEDULED)
    assert study.mismatch.settled_at is None
