"""Done workitems are kept for a time, and for longer while somebody has locked them (PS3.4 CC.2.3)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from studies.workitems import services, subscriptions
from studies.workitems.errors import NoSuchWorkitem
from studies.workitems.models import EventReport, Subscription, Workitem
from studies.workitems.retention import remove_done_workitems
from tests.factories import principal_of
from tests.workitems.workitem_data import TRANSACTION, performed, scheduled

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def technologist(people: Any) -> Principal:
    return principal_of(people["technologist"])


@pytest.fixture
def completed(north: Any, technologist: Principal) -> Workitem:
    """Give a workitem that was completed now."""
    workitem = services.create_workitem(site=north, dataset=scheduled(), principal=technologist).workitem
    for state in ("IN PROGRESS", "COMPLETED"):
        if state == "COMPLETED":
            services.update_workitem(
                workitem=workitem, dataset=performed(), transaction_uid=TRANSACTION, principal=technologist
            )
        services.change_state(workitem=workitem, state=state, transaction_uid=TRANSACTION, principal=technologist)
    return workitem


def in_days(days: int) -> Any:
    return timezone.now() + timedelta(days=days)


def test_a_completed_workitem_is_removed_when_its_time_is_over(completed: Workitem) -> None:
    kept = settings.ATRIUM.workitem_days
    assert remove_done_workitems(now=in_days(kept - 1)) == 0
    assert remove_done_workitems(now=in_days(kept + 1)) == 1
    assert not Workitem.objects.exists()
    event = AuditEvent.objects.latest("pk")
    assert event.details["what"] == "workitem removed"
    assert event.details["workitem"] == completed.sop_instance_uid


def test_work_that_is_still_to_be_done_is_never_removed(north: Any, technologist: Principal) -> None:
    waiting = services.create_workitem(site=north, dataset=scheduled(), principal=technologist).workitem
    begun = services.create_workitem(site=north, dataset=scheduled(), principal=technologist).workitem
    services.change_state(workitem=begun, state="IN PROGRESS", transaction_uid=TRANSACTION, principal=technologist)
    assert remove_done_workitems(now=in_days(10_000)) == 0
    assert set(Workitem.objects.all()) == {waiting, begun}


def test_a_deletion_lock_keeps_it_until_the_subscriber_lets_go(completed: Workitem, technologist: Principal) -> None:
    both = {"workitem": completed, "principal": technologist}
    subscriptions.subscribe(ae_title="ARCHIVE", deletion_lock=True, **both)
    subscriptions.subscribe(ae_title="WATCH", deletion_lock=False, **both)
    assert remove_done_workitems(now=in_days(10_000)) == 0
    # Subscribing again without the lock takes it back (PS3.4 CC.2.3.2).
    subscriptions.subscribe(ae_title="ARCHIVE", deletion_lock=False, **both)
    assert remove_done_workitems(now=in_days(10_000)) == 1
    assert not Subscription.objects.exists()
    assert not EventReport.objects.exists()


def test_unsubscribing_ends_the_lock(completed: Workitem, technologist: Principal) -> None:
    both = {"workitem": completed, "ae_title": "ARCHIVE", "principal": technologist}
    subscriptions.subscribe(deletion_lock=True, **both)
    subscriptions.unsubscribe(**both)
    assert remove_done_workitems(now=in_days(10_000)) == 1


def test_a_global_lock_holds_each_workitem_and_not_the_worklist(
    completed: Workitem, north: Any, technologist: Principal
) -> None:
    subscriptions.subscribe_globally(
        site=north, ae_title="ARCHIVE", principal=technologist, keys={}, deletion_lock=True
    )
    assert remove_done_workitems(now=in_days(10_000)) == 0
    subscriptions.unsubscribe(workitem=completed, ae_title="ARCHIVE", principal=technologist)
    assert remove_done_workitems(now=in_days(10_000)) == 1


def test_who_asks_for_a_lock_as_the_workitem_goes_is_told_that_it_is_gone(
    completed: Workitem, technologist: Principal
) -> None:
    found = Workitem.objects.get(pk=completed.pk)
    assert remove_done_workitems(now=in_days(settings.ATRIUM.workitem_days + 1)) == 1
    with pytest.raises(NoSuchWorkitem):
        subscriptions.subscribe(workitem=found, ae_title="WATCHER", principal=technologist, deletion_lock=True)
    assert not Subscription.objects.exists()
