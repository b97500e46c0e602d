"""Changes of cases as server-sent events: lists and study pages follow them without reload."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from accounts.principals import Principal
from portal.live import Connection, Event, Feed, in_thread, send_events
from studies.access import studies_visible_to
from studies.models import DomainEvent
from studies.orders.selectors import orders_visible_to

NAMES = ("study.arrived", "study.changed", "order.placed", "order.changed", "order.cancelled")
MOST = 500


def _newest() -> int:
    return DomainEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def _after(last: int) -> Sequence[tuple[int, str]]:
    """Give what changed as the worklist calls its rows: a study's row id, an order's with an ``o`` before it."""
    rows = DomainEvent.objects.filter(pk__gt=last, name__in=NAMES).order_by("pk").values_list("pk", "payload")[:MOST]
    return [(pk, f"o{payload['order']}" if "order" in payload else str(payload["study"])) for pk, payload in rows]


feed: Feed[str] = Feed(newest=_newest, after=_after)


async def changes(connection: Connection) -> None:
    """Send ``change`` with the name of the row for each change of a study or order that the client may see."""
    async with feed.listen(after=connection.last_event_id) as rows:
        await send_events(connection, _visible(connection, rows))


def _is_visible(principal: Principal, key: str) -> bool:
    if key.startswith("o"):
        return orders_visible_to(principal).filter(pk=int(key[1:])).exists()
    return studies_visible_to(principal).filter(pk=int(key)).exists()


async def _visible(connection: Connection, rows: AsyncIterator[tuple[int, str]]) -> AsyncIterator[Event]:
    async for number, key in rows:
        if await in_thread(_is_visible, connection.principal, key):
            yield Event(str(number), "change", key)
