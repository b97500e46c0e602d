"""Studies made to agree with orders and patients; the originals stay, what leaves is corrected."""

from __future__ import annotations

from datetime import date
from io import BytesIO
from typing import Any

import pydicom
import pytest

from portal.audit.models import AuditEvent
from studies import events
from studies.archive import objects
from studies.archive.corrections import correct_study
from studies.models import Instance, Patient, Study
from studies.orders.identity import merge_patients, move_study
from studies.orders.models import Order, Reconciliation
from studies.orders.reconciliation import undo
from tests.factories import make_instance, principal_of
from tests.orders.test_matching import arrive
from tests.orders.test_orders import place

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def left(client: Any, study: Study) -> pydicom.Dataset:
    """Give the study's first instance as WADO-RS sends it."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    answer = client.get(f"/dicom-web/studies/{study.study_instance_uid}", HTTP_ACCEPT=accept)
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    start = body.index(b"DICM") - 128
    return pydicom.dcmread(BytesIO(body[start:]), stop_before_pixels=True)


def original() -> pydicom.Dataset:
    instance = Instance.objects.select_related("series__study").earliest("pk")
    content = b"".join(objects.stream_instance(instance, original=True))
    return pydicom.dcmread(BytesIO(content), stop_before_pixels=True)


def test_from_a_wrong_patient_to_the_corrected_image_and_back(
    north: Any, people: Any, ingest_files: Any, client_of: Any
) -> None:
    order = place(people, north, accession_number="A1", patient_id="RIGHT", priority="HIGH")
    Patient.objects.filter(pk=order.patient_id).update(patient_birth_date=date(1990, 4, 25))
    study = arrive(ingest_files, north)
    desk = client_of("technologist")
    address = f"/reconciliation/{study.study_instance_uid}/"
    assert study.patient_id_value.encode() in desk.get("/reconciliation/?reason=patient").content
    assert b'class="differs"><bdi>RIGHT' in desk.get(address).content
    desk.post(f"{address}link/", {"order": order.pk, "correct": "1"})
    study.refresh_from_db()
    assert (study.patient.patient_id, study.patient_id_value, study.priority) == ("RIGHT", "RIGHT", "HIGH")
    reader = client_of("radiologist")
    assert left(reader, study).PatientID == "RIGHT"
    assert left(reader, study).PatientBirthDate == "19900425"
    (kept,) = left(reader, study).OriginalAttributesSequence[0].ModifiedAttributesSequence
    assert kept.PatientID == "P1"
    assert original().PatientID == "P1"
    (found,) = reader.get("/dicom-web/studies?PatientID=RIGHT").json()
    assert found["0020000D"]["Value"] == [study.study_instance_uid]
    assert AuditEvent.objects.filter(details__what="study corrected", username="technologist").exists()
    step = Reconciliation.objects.get()
    desk.post(f"{address}undo/{step.pk}/")
    study.refresh_from_db()
    order.refresh_from_db()
    assert (study.patient_id_value, study.patient.patient_id, study.corrections) == ("P1", "P1", {})
    assert (order.study, order.status) == (None, Order.Status.SCHEDULED)
    assert left(reader, study).PatientID == "P1"
    assert b"taken back" in desk.get(address).content


def test_a_study_is_given_to_another_patient(north: Any, people: Any, ingest_files: Any, client_of: Any) -> None:
    study = arrive(ingest_files, north)
    other = Patient.objects.create(site=north, identity="|P2", patient_id="P2", patient_name="Roe^Ann")
    step = move_study(study=study, patient=other, principal=principal_of(people["technologist"]))
    study.refresh_from_db()
    assert (study.patient, study.patient_name) == (other, "Roe^Ann")
    assert left(client_of("radiologist"), study).PatientName == "Roe^Ann"
    undo(reconciliation=step, principal=principal_of(people["technologist"]))
    study.refresh_from_db()
    assert (study.patient.patient_id, study.patient_name) == ("P1", "Doe^Jane")


def test_two_records_of_one_person_become_one_also_for_what_comes_later(
    north: Any, people: Any, ingest_files: Any
) -> None:
    study = arrive(ingest_files, north, PatientID="OLD")
    order = place(people, north, patient_id="OLD", accession_number="X9", modality="MR")
    new = Patient.objects.create(site=north, identity="|NEW", patient_id="NEW", patient_name="Doe^Jane^Ann")
    (step,) = merge_patients(
        surviving_patient=new, merged=study.patient, principal=principal_of(people["technologist"])
    )
    order.refresh_from_db()
    later = arrive(ingest_files, north, PatientID="OLD", StudyInstanceUID="1.2.3.4")
    events.deliver_due()
    later.refresh_from_db()
    assert {s.patient for s in Study.objects.all()} == {new}
    assert {s.patient_id_value for s in Study.objects.all()} == {"NEW"}
    assert order.patient == new
    undo(reconciliation=step, principal=principal_of(people["technologist"]))
    study.refresh_from_db()
    order.refresh_from_db()
    assert (study.patient.patient_id, order.patient.patient_id) == ("OLD", "OLD")


def test_only_the_newest_step_is_undone(north: Any, people: Any, ingest_files: Any, client_of: Any) -> None:
    order = place(people, north, accession_number="A1", patient_id="RIGHT")
    study = arrive(ingest_files, north)
    desk = client_of("technologist")
    address = f"/reconciliation/{study.study_instance_uid}/"
    other = Patient.objects.create(site=north, identity="|P2", patient_id="P2", patient_name="Roe^Ann")
    desk.post(f"{address}link/", {"order": order.pk})
    desk.post(f"{address}patient/", {"patient": other.pk})
    first = Reconciliation.objects.earliest("pk")
    page = desk.post(f"{address}undo/{first.pk}/", follow=True).content
    assert b"undo that first" in page
    first.refresh_from_db()
    assert first.undone_at is None


def test_others_find_orders_and_patients_by_search(north: Any, people: Any, ingest_files: Any, client_of: Any) -> None:
    place(people, north, accession_number="FAR1", patient_id="FARAWAY")
    study = arrive(ingest_files, north, AccessionNumber="Z")
    page = client_of("technologist").get(f"/reconciliation/{study.study_instance_uid}/?q=FARAWAY").content
    assert b"FAR1" in page
    assert b"Same person: merge" in page


def test_a_study_that_needs_no_order_leaves_the_list(north: Any, ingest_files: Any, client_of: Any) -> None:
    study = arrive(ingest_files, north)
    desk = client_of("technologist")
    desk.post(f"/reconciliation/{study.study_instance_uid}/no-order/")
    assert b"Every study met its order" in desk.get("/reconciliation/").content
    ingest_files(north, make_instance(StudyInstanceUID=study.study_instance_uid))
    events.deliver_due()
    assert b"Every study met its order" in desk.get("/reconciliation/").content
    address = f"/reconciliation/{study.study_instance_uid}/"
    page = desk.get(address).content.decode()
    assert "Needs no order, said technologist" in page
    desk.post(f"{address}list-again/")
    assert study.patient_id_value.encode() in desk.get("/reconciliation/").content
    assert AuditEvent.objects.filter(details__what="study waits for its order again").count() == 1
    assert "Needs no order, said" not in desk.get(address).content.decode()


def test_another_patients_order_is_not_linked_unawares(
    north: Any, people: Any, ingest_files: Any, client_of: Any
) -> None:
    order = place(people, north, accession_number="A1", patient_id="RIGHT")
    study = arrive(ingest_files, north)
    desk = client_of("technologist")
    address = f"/reconciliation/{study.study_instance_uid}/"
    page = desk.get(address).content.decode()
    assert f"The order is for Doe, Jane (RIGHT), the study says Doe, Jane ({study.patient_id_value})." in page
    desk.post(f"{address}link/", {"order": order.pk})
    page = desk.get(address).content.decode()
    assert "The order is for Doe, Jane (RIGHT): if" in page, "what was linked as it is says so"
    assert 'class="differs"><bdi>RIGHT' in page
    desk.post(f"{address}undo/{Reconciliation.objects.get().pk}/")
    assert "Its link was taken back" in desk.get("/reconciliation/").content.decode()


def test_the_same_patients_order_asks_no_question(north: Any, people: Any, ingest_files: Any, client_of: Any) -> None:
    study = arrive(ingest_files, north, AccessionNumber="")
    for number in ("A1", "A2"):
        place(people, north, accession_number=number, patient_id=study.patient_id_value)
    page = client_of("technologist").get(f"/reconciliation/{study.study_instance_uid}/").content.decode()
    assert "A2" in page
    assert "The order is for" not in page


def test_an_order_is_found_by_the_name_that_its_patient_has_now(north: Any, people: Any, ingest_files: Any) -> None:
    study = arrive(ingest_files, north, PatientID="P1")
    order = place(people, north, patient_id="P1", accession_number="X9", modality="MR")

    def names() -> list[str]:
        return list(Order.objects.filter(pk=order.pk).values_list("patient_name_search", flat=True))

    technologist = principal_of(people["technologist"])
    assert names() == ["DOE^JANE"]
    correct_study(study=study, attributes={"PatientName": "Müller^Jane"}, reason="Married", principal=technologist)
    events.deliver_due()
    assert names() == ["MULLER^JANE"]
    married = Patient.objects.create(site=north, identity="|NEW", patient_id="NEW", patient_name="Roe^Ann")
    study.refresh_from_db()
    (step,) = merge_patients(surviving_patient=married, merged=study.patient, principal=technologist)
    assert names() == ["ROE^ANN"]
    undo(reconciliation=step, principal=technologist)
    assert names() == ["MULLER^JANE"]
    nameless = place(people, north, patient_id="P3", accession_number="X10", name="")
    place(people, north, patient_id="P3", accession_number="X11", name="Poe^Eve")
    nameless.refresh_from_db()
    assert nameless.patient_name_search == "POE^EVE"
