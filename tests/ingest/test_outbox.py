"""The outbox: what happened in one room reaches the others, whatever becomes of a handler or of the worker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from studies import events
from studies.models import DomainEvent

pytestmark = [pytest.mark.django_db, pytest.mark.database]
NAME = "test.happened"


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Give the numbers of the events that were delivered."""
    numbers: list[int] = []
    events.handle(NAME)(lambda payload: numbers.append(payload["number"]))
    yield numbers
    del events._handlers[NAME]


def emit(count: int) -> None:
    for number in range(count):
        events.emit(NAME, number=number)


def waiting() -> list[int]:
    left = DomainEvent.objects.filter(name=NAME, delivered_at__isnull=True)
    return [event.payload["number"] for event in left.order_by("due_at", "pk")]


@pytest.fixture(params=["brief", "long"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have events leased together, or each alone."""
    if request.param == "brief":
        monkeypatch.setattr(events, "BRIEF", frozenset({NAME}))


@pytest.mark.usefixtures("_kind")
def test_each_event_is_delivered_once_and_in_order(handled: list[int]) -> None:
    emit(150)
    assert events.deliver_due() == 150
    assert handled == list(range(150))
    assert events.deliver_due() == 0
    assert set(DomainEvent.objects.filter(name=NAME).values_list("attempts", flat=True)) == {1}


@pytest.mark.usefixtures("_kind")
def test_what_fails_comes_again_and_holds_up_no_other(handled: list[int]) -> None:
    emit(20)
    DomainEvent.objects.filter(name=NAME, payload__number=7).update(payload={"broken": True})
    assert events.deliver_due() == 19
    failed = DomainEvent.objects.get(delivered_at__isnull=True)
    assert (failed.attempts, failed.last_error) == (1, "KeyError")
    assert timezone.now() < failed.due_at < timezone.now() + timedelta(minutes=2)
    DomainEvent.objects.filter(pk=failed.pk).update(payload={"number": 7}, due_at=timezone.now())
    assert events.deliver_due() == 1
    assert sorted(handled) == list(range(20))


def test_what_a_killed_worker_had_taken_is_delivered_once_its_lease_is_over(
    monkeypatch: pytest.MonkeyPatch, handled: list[int]
) -> None:
    monkeypatch.setattr(events, "BRIEF", frozenset({NAME}))
    monkeypatch.setattr(events, "MOST_TOGETHER", 4)
    emit(10)
    assert len(events._lease()) == 4
    assert events.deliver_due() == 6
    assert waiting() == [0, 1, 2, 3]
    DomainEvent.objects.filter(delivered_at__isnull=True).update(due_at=timezone.now())
    assert events.deliver_due() == 4
    assert handled == [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]


def test_what_may_take_long_holds_no_other_event(handled: list[int]) -> None:
    left: list[list[int]] = []

    def look(payload: dict[str, Any]) -> None:
        # What a second worker would be given now.
        due = DomainEvent.objects.filter(name=NAME, delivered_at__isnull=True, due_at__lte=timezone.now())
        left.append(sorted(event.payload["number"] for event in due))

    events.handle(NAME)(look)
    emit(4)
    assert events.deliver_due() == 4
    assert left == [[1, 2, 3], [2, 3], [3], []]


def test_a_worker_that_is_stopped_in_between_has_marked_what_it_delivered(
    monkeypatch: pytest.MonkeyPatch, handled: list[int]
) -> None:
    monkeypatch.setattr(events, "BRIEF", frozenset({NAME}))

    def stop(payload: dict[str, Any]) -> None:
        if payload["number"] == 3:
            raise SystemExit

    events.handle(NAME)(stop)
    emit(6)
    with pytest.raises(SystemExit):
        events.deliver_due()
    assert waiting() == [3, 4, 5]
