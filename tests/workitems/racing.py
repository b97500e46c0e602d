"""A deletion lock and the retention that removes its workitem, at the same moment, each in a thread.

Run inside an installation: ``manage.py shell -c "…; main()"``; prints one JSON list.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connections
from django.utils import timezone

from accounts.models import Site, User
from accounts.principals import Principal, principal_of_user
from studies.workitems import retention, services, subscriptions
from studies.workitems.models import Subscription, Workitem
from tests.workitems.workitem_data import TRANSACTION, performed, scheduled

# Long enough for the other to come to where it waits.
MEANWHILE = 0.7


def main() -> None:
    """Let each of the two come first, and tell what the workitem and the subscriber came to."""
    principal = principal_of_user(User.objects.get(username="technologist"))
    print(json.dumps([_race(first, principal) for first in ("subscriber", "retention")]))


def _race(first: str, principal: Principal) -> dict[str, Any]:
    workitem = _completed(principal)
    subscriptions.subscribe(workitem=workitem, ae_title="WATCHER", principal=principal)
    told: dict[str, Any] = {"first": first, "answer": "subscribed"}

    def subscribe() -> None:
        try:
            subscriptions.subscribe(workitem=workitem, ae_title="WATCHER", principal=principal, deletion_lock=True)
        except Exception as error:
            told["answer"] = type(error).__name__

    module, name = (subscriptions, "_record") if first == "subscriber" else (retention, "record")
    works: list[Callable[[], Any]] = [subscribe, retention.remove_done_workitems]
    if first == "retention":
        works.reverse()
    has_written = threading.Event()
    real = getattr(module, name)

    def slowly(*arguments: Any, **keywords: Any) -> Any:
        has_written.set()
        threading.Event().wait(MEANWHILE)
        return real(*arguments, **keywords)

    setattr(module, name, slowly)
    try:
        earlier = _thread(works[0])
        has_written.wait(20)
        later = _thread(works[1])
        earlier.join(60)
        later.join(60)
    finally:
        setattr(module, name, real)
    told["kept"] = Workitem.objects.filter(pk=workitem.pk).exists()
    told["locked"] = Subscription.objects.filter(workitem_id=workitem.pk, deletion_lock=True).exists()
    Workitem.objects.all().delete()
    return told


def _thread(work: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _completed(principal: Principal) -> Workitem:
    site = Site.objects.get(slug="north")
    workitem = services.create_workitem(site=site, dataset=scheduled(), principal=principal).workitem
    for state in ("IN PROGRESS", "COMPLETED"):
        if state == "COMPLETED":
            services.update_workitem(
                workitem=workitem, dataset=performed(), principal=principal, transaction_uid=TRANSACTION
            )
        services.change_state(workitem=workitem, state=state, transaction_uid=TRANSACTION, principal=principal)
    Workitem.objects.filter(pk=workitem.pk).update(modified_at=timezone.now() - timedelta(days=10_000))
    return workitem
