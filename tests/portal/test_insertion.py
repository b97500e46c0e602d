"""Rows inserted by statements of our own are what Django would have made."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Site
from portal.insertion import Insertion
from studies.models import DomainEvent, NameForm, Patient

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def test_keys_are_in_the_order_of_the_rows() -> None:
    site = Site.objects.create(slug="north", name="North")
    names = [f"P{number}" for number in range(40)]
    keys = Insertion(Patient).few([{"site_id": site.pk, "identity": name} for name in reversed(names)])
    assert [Patient.objects.get(pk=key).identity for key in keys] == names[::-1]


def test_what_a_row_doesnt_give_is_the_fields_default() -> None:
    (key,) = Insertion(DomainEvent).few([{"name": "x", "payload": {"a": [1, "é"]}, "due_at": timezone.now()}])
    event = DomainEvent.objects.get(pk=key)
    assert (event.attempts, event.delivered_at, event.last_error, event.payload) == (0, None, "", {"a": [1, "é"]})
    assert abs(event.created_at - timezone.now()) < timedelta(minutes=1)


def test_rows_that_are_known_are_left() -> None:
    insertion = Insertion(NameForm, leaves_known=True)
    row = {"kind": "sound", "form": "S:D000", "name_search": "DOE"}
    insertion.many([row])
    insertion.many([row, {**row, "form": "M:T"}])
    assert sorted(NameForm.objects.values_list("form", flat=True)) == ["M:T", "S:D000"]


def test_nothing_is_inserted_without_a_statement() -> None:
    assert Insertion(NameForm).few([]) == []
    Insertion(NameForm).many([])
    assert not NameForm.objects.exists()
