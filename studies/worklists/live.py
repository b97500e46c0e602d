"""Changes of cases as server-sent events: lists and study pages follow them without reload."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from portal.live import Connection, Event, Feed, in_thread, send_events
from studies.access import studies_visible_to
from studies.models import DomainEvent

NAMES = ("study.arrived", "study.changed")
MOST = 500


def _newest() -> int:
    return DomainEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def _after(last: int) -> Sequence[tuple[int, int]]:
    rows = DomainEvent.objects.filter(pk__gt=last, name__in=NAMES).order_by("pk").values_list("pk", "payload")[:MOST]
    return [(pk, payload["study"]) for pk, payload in rows]


feed: Feed[int] = Feed(newest=_newest, after=_after)


async def changes(connection: Connection) -> None:
    """Send ``change`` with a study's row id for each change of one that the client may see."""
    async with feed.listen(after=connection.last_event_id) as rows:
        await send_events(connection, _visible(connection, rows))


async def _visible(connection: Connection, rows: AsyncIterator[tuple[int, int]]) -> AsyncIterator[Event]:
    async for number, study_id in rows:
        if await in_thread(studies_visible_to(connection.principal).filter(pk=study_id).exists):
            yield Event(str(number), "change", str(study_id))
