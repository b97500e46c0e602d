"""Notifications of workitems to a subscriber that holds a WebSocket open (PS3.18 §8.10.4, §11.13)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse

from accounts.capabilities import Capability
from accounts.gates import problem, program_capability_required
from accounts.principals import Principal
from portal.live import Connection, Feed, in_thread, send_messages
from studies.workitems.attributes import tag_of
from studies.workitems.models import EventReport
from studies.workitems.reports import mark_delivered
from studies.workitems.selectors import UPS_CLASS, waiting_reports


@program_capability_required(Capability.WORKITEM_VIEW, Capability.WORKITEM_PERFORM)
def upgrade_required(request: HttpRequest, ae_title: str) -> HttpResponse:
    """Tell who asks for the WebSocket's address without opening one (RFC 9110 §15.5.22)."""
    response = problem(426, "Events come by WebSocket.")
    response["Upgrade"], response["Connection"] = "websocket", "upgrade"
    return response


@dataclass(frozen=True)
class _Notice:
    report: int
    ae_title: str
    site_id: int
    text: str

    def is_for(self, ae_title: str, principal: Principal) -> bool:
        seen = principal.may(Capability.WORKITEM_VIEW, self.site_id)
        return self.ae_title == ae_title and (seen or principal.may(Capability.WORKITEM_PERFORM, self.site_id))


def _notice(report: EventReport) -> _Notice:
    """Give the event as one DICOM JSON object: the command's elements and what is told, by tag (PS3.18 §11.13)."""
    command: dict[str, tuple[str, Any]] = {
        "AffectedSOPClassUID": ("UI", str(UPS_CLASS)),
        "MessageID": ("US", report.pk % 0xFFFF + 1),
        "AffectedSOPInstanceUID": ("UI", report.workitem.sop_instance_uid),
        "EventTypeID": ("US", report.event_type),
    }
    content = {tag_of(keyword): {"vr": vr, "Value": [value]} for keyword, (vr, value) in command.items()}
    content |= report.information
    text = json.dumps(dict(sorted(content.items())), ensure_ascii=False, separators=(",", ":"))
    return _Notice(report.pk, report.ae_title, report.workitem.site_id, text)


def _newest() -> int:
    return EventReport.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def _after(last: int) -> list[tuple[int, _Notice]]:
    reports = EventReport.objects.filter(pk__gt=last, delivered_at__isnull=True).select_related("workitem")
    return [(report.pk, _notice(report)) for report in reports.order_by("pk")[:1000]]


def _waiting(principal: Principal, ae_title: str) -> list[_Notice]:
    return [_notice(report) for report in waiting_reports(principal, ae_title)[:1000]]


_feed: Feed[_Notice] = Feed(newest=_newest, after=_after)


async def workitem_notifications(connection: Connection) -> None:
    """Send a subscriber what waits for it, then what happens, until it goes."""
    await send_messages(connection, _messages(connection, connection.kwargs["ae_title"]))


async def _messages(connection: Connection, ae_title: str) -> AsyncIterator[str]:
    async with _feed.listen() as rows:
        told = set()
        for notice in await in_thread(_waiting, connection.principal, ae_title):
            yield notice.text
            told.add(notice.report)
            await in_thread(mark_delivered, [notice.report])
        async for _, notice in rows:
            if notice.is_for(ae_title, connection.principal) and notice.report not in told:
                yield notice.text
                await in_thread(mark_delivered, [notice.report])
