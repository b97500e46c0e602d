"""Cases whose images aren't there yet: orders in the worklist, where its status asks for them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.http import QueryDict

from studies import events
from studies.orders import services
from studies.orders.models import Order
from studies.worklists import live, scheduled, selectors
from studies.worklists.sorting import COLUMNS, sorting
from studies.worklists.views import asked
from tests.factories import make_instance, principal_of
from tests.orders.test_orders import NOW, place
from tests.worklists.test_worklist import make_study

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def listed(client: Any, query: str) -> str:
    return str(client.get(f"/worklist/?{query}", HTTP_HX_REQUEST="true").content.decode())


def test_scheduled_is_a_status_of_the_list_and_nothing_else_shows_orders(
    north: Any, people: Any, client_of: Any
) -> None:
    order = place(people, north, patient_id="TOCOME")
    make_study(north, 7)
    reader = client_of("radiologist")
    page = listed(reader, "status=scheduled")
    assert f'href="/orders/{order.pk}/"' in page
    assert "Scheduled" in page
    assert "1 case<" in page
    assert 'name="study"' not in page, "an order can't be chosen as a case"
    assert "P7" not in page
    for query in ("", "status=arrived", "q=TOCOME", "status=final"):
        assert f"/orders/{order.pk}/" not in listed(reader, query), query
    both = listed(reader, "status=scheduled&status=arrived")
    assert both.index("/studies/1.2.7/") < both.index(f"/orders/{order.pk}/"), "what can be read comes first"
    assert "2 cases" in both


def test_what_is_there_is_scheduled_no_more(north: Any, people: Any, client_of: Any, ingest_files: Any) -> None:
    order = place(people, north, accession_number="ACC9")
    reader = client_of("radiologist")
    services.arrive_order(order=order, principal=principal_of(people["technologist"]))
    assert "Patient is here" in listed(reader, "status=scheduled")
    ingest_files(north, make_instance(PatientID="P1", AccessionNumber="ACC9"))
    events.deliver_due()
    order.refresh_from_db()
    assert order.study is not None
    assert "No study matches" in listed(reader, "status=scheduled")


def test_a_cancelled_order_is_among_the_cancelled_cases(north: Any, people: Any, client_of: Any) -> None:
    order = place(people, north)
    services.cancel_order(order=order, principal=principal_of(people["technologist"]))
    assert f"/orders/{order.pk}/" not in listed(client_of("radiologist"), "status=scheduled")
    assert f"/orders/{order.pk}/" in listed(client_of("radiologist"), "status=cancelled")


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("q=doe", True),
        ("q=Doe,+J", True),
        ("q=P1", True),
        ("q=roe", False),
        ("modality=CT", True),
        ("modality=MR", False),
        ("description=thorax", True),
        ("description=head", False),
        ("priority=STAT", True),
        ("priority=LOW", False),
        ("site=north", True),
        ("site=south", False),
        ("since=2026-09-01&until=2026-09-01", True),
        ("since=2026-09-02", False),
        ("until=2026-08-31", False),
        ("accession_number=NO1", True),
        ("accession_number=NO2", False),
        ("referrer=okaf", True),
        ("referrer=other", False),
        ("assigned=nobody", True),
        ("assigned=me", False),
        ("body_part=CHEST", False),
        ("late=on", False),
    ],
)
def test_every_filter_narrows_it(north: Any, people: Any, client_of: Any, query: str, is_found: bool) -> None:
    details = {"priority": "STAT", "accession_number": "NO1", "referring_physician_name": "Okafor^Ada"}
    order = place(people, north, **details)
    page = listed(client_of("radiologist"), f"status=scheduled&{query}")
    assert (f"/orders/{order.pk}/" in page) is is_found


def test_only_orders_of_ones_own_sites(north: Any, south: Any, people: Any, client_of: Any) -> None:
    order = place(people, north)
    assert f"/orders/{order.pk}/" not in listed(client_of("southradiologist"), "status=scheduled")
    assert f"/orders/{order.pk}/" in listed(client_of("resident"), "status=scheduled")
    assert f"/orders/{order.pk}/" not in listed(client_of("referrer"), "status=scheduled")
    principal = principal_of(people["southradiologist"])
    assert not live._is_visible(principal, f"o{order.pk}")
    assert live._is_visible(principal_of(people["resident"]), f"o{order.pk}")


@pytest.mark.parametrize("sort", [*COLUMNS, "-date", "priority,-date", "-name,site"])
def test_windows_hold_every_case_once_in_any_order(
    north: Any, people: Any, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "PAGE", 3)
    monkeypatch.setattr(selectors, "NEXT_PAGE", 4)
    for number in range(7):
        place(
            people,
            north,
            patient_id=f"P{number % 3}",
            scheduled_at=NOW + timedelta(hours=number % 4),
            priority=["STAT", "LOW"][number % 2],
        )
    for number in range(5):
        make_study(north, number, study_date=date(2026, 1, 1 + number % 2))
    principal = principal_of(people["radiologist"])
    data = QueryDict(f"status=scheduled&status=arrived&sort={sort}")
    _form, criteria, order = asked(data, principal, selectors.preference_of(None))
    studies = selectors.worklist(principal, criteria)
    orders = scheduled.orders_asked_for(principal, criteria)
    assert orders is not None
    seen: list[str] = []
    after = ""
    for _window in range(9):
        page = scheduled.window_of(studies, orders, order, after=after, counts=not after)
        assert page.count == (None if after else 12)
        seen += [row.key for row in page.rows]
        after = page.after
        if not after:
            break
    in_order = [str(s.pk) for s in order.named(studies).order_by(*order.order)]
    in_order += [f"o{o.pk}" for o in scheduled.named_as_studies(orders).order_by(*order.order)]
    assert seen == in_order
    assert len(seen) == 12


def test_a_list_follows_orders_as_it_follows_studies(north: Any, people: Any, client_of: Any) -> None:
    last = live._newest()
    order = place(people, north)
    assert [key for _number, key in live._after(last)] == [f"o{order.pk}"]
    reader = client_of("radiologist")
    assert f'data-row="o{order.pk}"' in reader.get(f"/worklist/rows/?ids=o{order.pk}&status=scheduled").content.decode()
    assert f'data-row="o{order.pk}"' not in reader.get(f"/worklist/rows/?ids=o{order.pk}").content.decode()
    services.cancel_order(order=order, principal=principal_of(people["technologist"]))
    assert b"data-row" not in reader.get(f"/worklist/rows/?ids=o{order.pk}&status=scheduled").content


def test_a_moved_order_moves_in_the_list(north: Any, people: Any) -> None:
    order = place(people, north)
    later = NOW + timedelta(days=2)
    services.reschedule_order(order=order, scheduled_at=later, principal=principal_of(people["technologist"]))
    assert Order.objects.get().scheduled_at == later
    services.change_order(order=order, changes={"modality": "MR"}, principal=principal_of(people["technologist"]))
    assert Order.objects.get().modality == "MR"


def test_a_saved_filter_keeps_the_status(north: Any, people: Any, client_of: Any) -> None:
    order = place(people, north, scheduled_at=datetime(2026, 9, 1, 8, tzinfo=UTC))
    reader = client_of("radiologist")
    reader.post("/worklist/filters/", {"name": "To come", "query": "status=scheduled&sort=date"})
    page = reader.get("/worklist/").content.decode()
    assert "?status=scheduled&amp;sort=date" in page
    assert f"/orders/{order.pk}/" in listed(reader, "status=scheduled&sort=date")
    assert sorting("date").is_indexed
