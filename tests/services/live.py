"""Atrium with two live connections more, for the tests of what carries them."""

from __future__ import annotations

from accounts.capabilities import Capability
from portal import asgi, live
from portal.audit.models import AuditEvent
from portal.live import Connection, Event, Feed, LiveRoute, send_events, send_messages

# Whoever is to be turned away is so before a test gets tired.
live.RECHECK = 1.0


def _newest() -> int:
    return AuditEvent.objects.order_by("-sequence").values_list("sequence", flat=True).first() or 0


feed = Feed(
    newest=_newest,
    after=lambda last: list(
        AuditEvent.objects.filter(sequence__gt=last).order_by("sequence").values_list("sequence", "action")
    ),
    seconds=0.1,
)


async def events(connection: Connection) -> None:
    async with feed.listen(after=connection.last_event_id) as rows:
        await send_events(connection, (Event(str(number), action) async for number, action in rows))


async def messages(connection: Connection) -> None:
    async with feed.listen() as rows:
        await send_messages(connection, (f"{number} {action}" async for number, action in rows))


asgi.LIVE += [
    LiveRoute("test/events", events, Capability.STUDY_VIEW),
    LiveRoute("test/messages", messages, Capability.STUDY_VIEW, is_socket=True),
]
application = asgi.Application()
