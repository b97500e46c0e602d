"""Orders: placed, changed, cancelled; by hand and by programs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.utils import timezone

from portal.audit.models import AuditEvent
from studies import events
from studies.models import DomainEvent, Patient
from studies.orders import services
from studies.orders.errors import AccessionNumberTaken, NotAllowed, OrderIsOver
from studies.orders.forms import dicom_name
from studies.orders.models import Order
from studies.orders.patients import PatientIdentity
from studies.orders.services import OrderDetails
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NOW = datetime(2026, 9, 1, 10, tzinfo=UTC)


def place(
    people: Any, site: Any, *, patient_id: str = "P1", name: str = "Doe^Jane", by: str = "technologist", **values: Any
) -> Order:
    details = {"description": "CT thorax", "modality": "CT", "scheduled_at": NOW, **values}
    return services.place_order(
        site=site,
        patient=PatientIdentity(patient_id, name),
        details=OrderDetails(**details),
        principal=principal_of(people[by]),
    )


def test_numbers_of_a_site_run_and_never_repeat(north: Any, people: Any) -> None:
    first = place(people, north)
    year = f"{datetime.now(UTC):%y}"
    assert first.accession_number == f"NO{year}000001"
    place(people, north, accession_number=f"NO{year}000002")
    assert place(people, north).accession_number == f"NO{year}000003"
    assert len({o.study_instance_uid for o in Order.objects.all()}) == 3


def test_an_order_is_an_event_and_in_the_trail(north: Any, people: Any) -> None:
    order = place(people, north)
    services.change_order(order=order, changes={"priority": "STAT"}, principal=principal_of(people["technologist"]))
    services.cancel_order(order=order, principal=principal_of(people["technologist"]))
    names = [e.name for e in DomainEvent.objects.order_by("pk")]
    assert names == ["order.placed", "order.changed", "order.cancelled"]
    changed = AuditEvent.objects.get(details__what="order changed")
    assert (changed.details["before"], changed.details["after"]) == ({"priority": "ROUTINE"}, {"priority": "STAT"})
    with pytest.raises(OrderIsOver):
        services.arrive_order(order=order, principal=principal_of(people["technologist"]))


def test_one_accession_number_is_one_patients(north: Any, south: Any, people: Any) -> None:
    place(people, north, accession_number="A1")
    with pytest.raises(AccessionNumberTaken):
        place(people, north, accession_number="A1", patient_id="P2")
    place(people, north, accession_number="A1", requested_procedure_id="second")
    place(people, south, accession_number="A1", patient_id="P2", by="southradiologist")


def test_who_may_not_manage_orders_places_none(north: Any, south: Any, people: Any) -> None:
    for name, site in (("resident", north), ("technologist", south), ("referrer", north)):
        with pytest.raises(NotAllowed):
            place(people, site, by=name)
    assert not Patient.objects.exists(), "a refused order leaves no patient"


def test_an_order_keeps_what_is_known_of_the_patient(north: Any, people: Any) -> None:
    Patient.objects.create(site=north, identity="|P1", patient_id="P1", patient_name="Doe^Jane^Ann", patient_sex="")
    order = place(people, north)
    assert order.patient.patient_name == "Doe^Jane^Ann"
    assert Patient.objects.count() == 1


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("Doe, Jane", "Doe^Jane"),
        ("Doe, Jane Ann, Dr", "Doe^Jane^Ann^Dr"),
        ("Doe^Jane", "Doe^Jane"),
        ("Doe", "Doe"),
        ("a\\b, c", "a b^c"),
    ],
)
def test_names_are_typed_as_people_write_them(typed: str, kept: str) -> None:
    assert dicom_name(typed) == kept


def typed(**values: Any) -> dict[str, Any]:
    return {
        "patient_id": "P7",
        "patient_name": "Lind, Eva",
        "description": "MR knee",
        "modality": "MR",
        "priority": "ROUTINE",
        "scheduled_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M}",
        **values,
    }


def test_the_desk_places_finds_changes_and_cancels(north: Any, client_of: Any) -> None:
    desk = client_of("technologist")
    assert desk.post("/orders/new/", typed(site=north.pk)).status_code == 302
    order = Order.objects.get()
    assert order.patient.patient_name == "Lind^Eva"
    assert order.accession_number.encode() in desk.get("/orders/?q=lind").content
    assert b"No order matches" in desk.get("/orders/?q=lind&modality=CT").content
    desk.post(f"/orders/{order.pk}/", typed(priority="STAT"))
    desk.post(f"/orders/{order.pk}/arrive/")
    order.refresh_from_db()
    assert (order.priority, order.status) == ("STAT", "arrived")
    desk.post(f"/orders/{order.pk}/cancel/")
    order.refresh_from_db()
    assert order.status == "cancelled"


def test_an_order_tells_who_took_it_to_which_status_and_when(
    north: Any, people: Any, client_of: Any, ingest_files: Any
) -> None:
    desk = client_of("technologist")
    order = place(people, north, by="admin")
    page = desk.get(f"/orders/{order.pk}/").content.decode()
    assert f"{order.placed_at:%Y-%m-%d %H:%M}" in page
    assert 'Placed <span class="soft">admin' in page
    desk.post(f"/orders/{order.pk}/arrive/")
    desk.post(f"/orders/{order.pk}/cancel/", {"reason": "The patient left."})
    steps = order.status_changes.values_list("status", "user__username", "reason")
    assert list(steps) == [("arrived", "technologist", ""), ("cancelled", "technologist", "The patient left.")]
    page = desk.get(f"/orders/{order.pk}/").content.decode()
    assert page.index("Arrived <span") < page.index("Cancelled <span") < page.index("The patient left.")
    answered = place(people, north, accession_number="A7")
    ingest_files(north, make_instance(PatientID="P1", AccessionNumber="A7"))
    events.deliver_due()
    assert [(step.status, step.user) for step in answered.status_changes.all()] == [("completed", None)]
    assert "by rule" in desk.get(f"/orders/{answered.pk}/").content.decode()


def test_a_days_schedule_is_read_from_its_beginning(north: Any, people: Any, client_of: Any) -> None:
    noon = timezone.now().replace(hour=12)
    for number, moment in ((1, noon), (2, noon.replace(hour=9)), (3, noon + timedelta(days=1)), (4, NOW)):
        place(people, north, accession_number=f"DAY{number}", patient_id=f"D{number}", scheduled_at=moment)
    desk = client_of("technologist")

    def shown(query: str = "") -> list[str]:
        return re.findall(r">(DAY\d)<", desk.get(f"/orders/?{query}").content.decode())

    page = desk.get("/orders/").content.decode()
    today, tomorrow, from_today = (unescape(one) for one in re.findall(r'filter-chip" href="/orders/\?([^"]+)"', page))
    assert shown(today) == ["DAY2", "DAY1"]
    assert shown(tomorrow) == ["DAY3"]
    assert shown(from_today) == ["DAY2", "DAY1", "DAY3"]
    assert shown()[0] == "DAY3", "of all orders the newest come first"
    assert 'aria-current="true" data-key="1"' in desk.get(f"/orders/?{today}").content.decode()


def test_what_is_wrong_is_said_and_nothing_typed_is_lost(north: Any, client_of: Any) -> None:
    answer = client_of("technologist").post("/orders/new/", typed(site=north.pk, scheduled_at="9999-01-01T00:00"))
    assert answer.status_code == 422
    assert b"five years" in answer.content
    assert b"Lind, Eva" in answer.content


def test_patients_are_suggested_of_ones_own_sites_only(north: Any, south: Any, client_of: Any) -> None:
    Patient.objects.create(site=north, identity="|N1", patient_id="N1", patient_name="Lind^Eva")
    Patient.objects.create(site=south, identity="|S1", patient_id="S1", patient_name="Lind^Karl")
    page = client_of("technologist").get("/orders/patients/?q=lind").content
    assert b"N1" in page
    assert b"S1" not in page


def test_programs_place_read_change_and_cancel(north: Any, people: Any, token_of: Any, client: Any) -> None:
    headers = {"HTTP_AUTHORIZATION": f"Bearer {token_of('technologist')}"}
    body = {
        "site": "north",
        "patient_id": "P9",
        "patient_name": "Roe^Rik",
        "description": "CT head",
        "modality": "CT",
        "scheduled_at": "2026-09-01T10:00:00Z",
        "accession_number": "RIS1",
    }
    made = client.post("/api/v1/orders/", body, content_type="application/json", **headers)
    assert made.status_code == 201
    pk = made.json()["id"]
    assert client.post("/api/v1/orders/", body, content_type="application/json", **headers).status_code == 409
    other = {**body, "site": "south", "accession_number": "RIS2"}
    assert client.post("/api/v1/orders/", other, content_type="application/json", **headers).status_code == 403
    changed = client.patch(
        f"/api/v1/orders/{pk}/", {"priority": "STAT"}, content_type="application/json", **headers
    ).json()
    assert changed["priority"] == "STAT"
    assert [o["accession_number"] for o in client.get("/api/v1/orders/?modality=CT", **headers).json()["orders"]] == [
        "RIS1"
    ]
    assert client.post(f"/api/v1/orders/{pk}/cancel/", **headers).json()["status"] == "cancelled"
    assert client.get(f"/api/v1/orders/{pk}/", **headers).json()["study_instance_uid"]
    southern = {"HTTP_AUTHORIZATION": f"Bearer {token_of('southradiologist')}"}
    assert client.get(f"/api/v1/orders/{pk}/", **southern).status_code == 404
