"""What a list may be sorted by: an index gives the order, or the list is short."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from studies.models import Study
from studies.worklists import selectors
from studies.worklists.models import CaseClock
from studies.worklists.sorting import COLUMNS, DEFAULT_SORT, bounded, sorting
from tests.factories import principal_of
from tests.worklists.test_worklist import make_study

pytestmark = [pytest.mark.django_db, pytest.mark.database]

INDEXED = sorted(name for name, column in COLUMNS.items() if column.is_indexed)


def plan_of(studies: Any) -> str:
    """Give the plan in which the database takes an index wherever one gives the order, however few the rows are."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
                cursor.execute(f"SET LOCAL {setting} = off")
    return str(studies.explain())


@pytest.mark.parametrize("direction", ["", "-"])
@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("person", ["radiologist", "resident"])
def test_an_index_gives_the_order_of_the_whole_archive(
    north: Any, people: Any, name: str, direction: str, person: str
) -> None:
    make_study(north, 1)
    order = sorting(f"{direction}{name}")
    assert order.is_indexed
    studies = selectors.worklist(principal_of(people[person]), {}).defer("attributes", "corrections")
    plan = plan_of(order.after(studies, "").order_by(*order.order)[:31])
    sorts = [line for line in plan.splitlines() if "Sort" in line and "Incremental" not in line and "Key" not in line]
    assert sorts == [], plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan
    assert "study_by_" in plan, plan


@pytest.mark.parametrize("name", INDEXED)
def test_a_list_goes_on_by_the_same_index(north: Any, people: Any, name: str) -> None:
    study = make_study(north, 1)
    study.refresh_from_db()
    order = sorting(name)
    studies = selectors.worklist(principal_of(people["resident"]), {})
    plan = plan_of(order.after(studies, order.cursor(study)).order_by(*order.order)[:31])
    assert "TEMP B-TREE FOR ORDER BY" not in plan
    if connection.vendor == "postgresql":
        assert "Index Cond" in plan, plan


def test_a_long_list_keeps_to_the_orders_that_are_indexed(
    north: Any, people: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "MOST_COUNTED", 3)
    for number in range(5):
        make_study(north, number, status=Study.Status.FINAL if number else Study.Status.ARRIVED)
    reader = client_of("radiologist")

    def listed(query: str) -> str:
        return str(reader.get(f"/worklist/?{query}", HTTP_HX_REQUEST="true").content.decode())

    assert f'data-sort="{DEFAULT_SORT}"' in listed("sort=modality")
    assert 'data-sort="name"' in listed("sort=name")
    assert 'data-sort="-date,modality"' in listed("sort=-date,modality")
    assert 'data-sort="modality"' in listed("sort=modality&status=arrived"), "open cases are few"
    assert 'data-sort="modality"' in listed("sort=modality&q=P1"), "a short list is sorted as one likes"
    assert "sort=-modality" not in listed("")
    assert str(bounded(sorting("images"), is_short=True)) == "images"


def test_names_are_ordered_alike_on_every_database(north: Any, people: Any) -> None:
    for number, name in enumerate(("DE LA CRUZ^A", "DEACON^B", "DE-WITT^C", "D'ARCY^D", "DEACON^A")):
        make_study(north, number, patient_name=name, patient_name_search=name)
    order = sorting("name")
    studies = selectors.worklist(principal_of(people["resident"]), {})
    names = list(studies.order_by(*order.order).values_list("patient_name_search", flat=True))
    assert names == sorted(names)


def test_open_cases_are_sorted_by_when_they_are_due_and_those_without_a_clock_come_last(
    north: Any, people: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "PAGE", 2)
    monkeypatch.setattr(selectors, "NEXT_PAGE", 2)
    now = timezone.now()
    for number, minutes in enumerate((30, -10, None, 5, 10)):
        study = make_study(north, number)
        if minutes is not None:
            CaseClock.objects.create(study=study, due_at=now + timedelta(minutes=minutes))
    read = make_study(north, 9, status=Study.Status.FINAL)
    CaseClock.objects.create(study=read, due_at=now - timedelta(days=1))
    reader = client_of("radiologist")

    def ids(address: str) -> list[str]:
        found: list[str] = []
        while address:
            page = reader.get(address, HTTP_HX_REQUEST="true").content.decode()
            found += re.findall(r"/studies/1\.2\.(\d)/", page)
            more = re.search(r'hx-get="([^"]*after=[^"]*)"', page)
            address = html.unescape(more[1]) if more else ""
        return found

    assert ids("/worklist/?sort=due") == ["1", "3", "4", "0", "2", "9"]
    assert ids("/worklist/?status=arrived&status=scheduled&sort=-due") == ["2", "0", "4", "3", "1"]
    answer = reader.get("/api/v1/studies/?sort=due").json()
    assert [one["study_instance_uid"][-1] for one in answer["studies"]] == ["1", "3"]
    answer = reader.get(f"/api/v1/studies/?sort=due&after={answer['next']}").json()
    assert [one["study_instance_uid"][-1] for one in answer["studies"]] == ["4", "0"]
