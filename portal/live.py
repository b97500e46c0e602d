"""Long-lived connections: server-sent events and WebSockets on the event loop, none of which holds a thread.

A room that has one writes an async function in its ``live.py`` and names it in ``LIVE`` of :mod:`portal.asgi`::

    feed = Feed(newest=lambda: newest_id(), after=lambda last: [(row.id, row) for row in rows_after(last)])

    async def worklist_changes(connection: Connection) -> None:
        async with feed.listen(after=connection.last_event_id) as rows:
            await send_events(connection, (Event(str(n), "change", text(r)) async for n, r in rows if theirs(r)))

    # portal/asgi.py
    LIVE = [LiveRoute("worklist/changes", worklist_changes, STUDY_VIEW, STUDY_VIEW_REFERRED)]

Who lacks every named capability is refused before the function runs, and an open connection is ended within
RECHECK seconds of losing them. What blocks (the database) is called by :func:`in_thread`. A :class:`Feed` asks the
database once per process, however many listen, and not at all when nobody does. WebSockets: :func:`send_messages`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.db import close_old_connections
from django.http import QueryDict
from django.urls.resolvers import RoutePattern

from accounts.capabilities import Capability
from accounts.credentials import credential_of, principal_of_credential
from accounts.principals import Principal
from portal.bodies import Receive, Send
from portal.threads import Scope

T = TypeVar("T")
Result = TypeVar("Result")
KEEP_ALIVE = 15.0
RECHECK = 10.0
POLL_SECONDS = 0.5
# Rows commit in another order than they are numbered: so many numbers back are looked at again.
OVERLAP = 100
MOST_WAITING = 1000
# RFC 6455 §7.4.1: the endpoint may not be used any longer.
POLICY_VIOLATION = 1008

_pool = ThreadPoolExecutor(4, thread_name_prefix="live")


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run what blocks in a thread and give its result."""

    def run() -> Result:
        close_old_connections()
        try:
            return function(*arguments)
        finally:
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(_pool, run)


@dataclass
class Connection:
    """A client that stays: who, at which address (``kwargs`` from the route), and the two directions."""

    scope: Scope
    receive: Receive
    send: Send
    kwargs: dict[str, Any]
    capabilities: tuple[Capability, ...]
    principal: Principal = field(default_factory=Principal)

    @cached_property
    def headers(self) -> dict[str, str]:
        """Give the request's headers, names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}

    @cached_property
    def query(self) -> QueryDict:
        """Give the query's parameters."""
        return QueryDict(self.scope.get("query_string", b""))

    @property
    def last_event_id(self) -> int | None:
        """Give the id of the last event that the client saw, by header or ``?after=``, so that none is missed."""
        text = self.headers.get("last-event-id") or self.query.get("after") or ""
        return int(text) if text.isdigit() and len(text) < 19 else None

    async def is_allowed(self) -> bool:
        """Look the credential up and say whether it still stands for one who holds a capability of the route."""
        client = self.scope.get("client")
        credential = credential_of(self.headers, client[0] if client else None)
        principal = await in_thread(principal_of_credential, credential) if credential else None
        if principal is None:
            return False
        self.principal = principal
        return any(principal.may(c) for c in self.capabilities)

    async def closed(self) -> None:
        """Wait until the client is gone."""
        while (await self.receive())["type"] not in {"http.disconnect", "websocket.disconnect"}:
            pass


Endpoint = Callable[[Connection], Awaitable[None]]


class LiveRoute:
    """An address (in Django's route syntax, without leading slash), what answers there, and who may connect.

    ``is_socket`` says whether it's by WebSocket; otherwise it's by server-sent events.
    """

    def __init__(self, route: str, endpoint: Endpoint, *capabilities: Capability, is_socket: bool = False) -> None:
        self.route, self.endpoint, self.capabilities, self.is_socket = route, endpoint, capabilities, is_socket
        self._pattern = RoutePattern(route, is_endpoint=True)

    def answers(self, kind: str) -> bool:
        """Say whether it answers this type of connection; plain requests to a WebSocket's address are Django's."""
        return kind == "websocket" or not self.is_socket

    def match(self, path: str) -> dict[str, Any] | None:
        """Give the route's parameters, or None for another address."""
        found = self._pattern.match(path.lstrip("/"))
        return found[2] if found else None


class LiveConnections:
    """An ASGI application for the routes; gives False for an address that is none of them."""

    def __init__(self, routes: Iterable[LiveRoute]) -> None:
        self.routes = list(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> bool:
        for route in self.routes:
            kwargs = route.match(scope["path"]) if route.answers(scope["type"]) else None
            if kwargs is not None:
                await _serve(route, Connection(scope, receive, send, kwargs, route.capabilities))
                return True
        return False


async def _serve(route: LiveRoute, connection: Connection) -> None:
    is_socket = connection.scope["type"] == "websocket"
    if is_socket and not (route.is_socket and _is_own_origin(connection)):
        await connection.send({"type": "websocket.close", "code": POLICY_VIOLATION})
    elif await connection.is_allowed():
        await route.endpoint(connection)
    elif is_socket:
        await connection.send({"type": "websocket.close", "code": POLICY_VIOLATION})
    else:
        is_known = not connection.principal.is_stranger
        await _refuse(connection, 403 if is_known else 401)


def _is_own_origin(connection: Connection) -> bool:
    """Say whether a page of ours opened the WebSocket: browsers send cookies along from any (RFC 6455 §10.2)."""
    origin = connection.headers.get("origin", "")
    if not origin or "authorization" in connection.headers:
        return True
    return origin in settings.CSRF_TRUSTED_ORIGINS or urlsplit(origin).netloc == connection.headers.get("host")


async def _refuse(connection: Connection, status: int) -> None:
    titles = {
        401: "Sign in, or send a bearer token.",
        403: "This account may not do that.",
    }
    body = json.dumps({"type": "about:blank", "title": titles[status], "status": status}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await connection.send({"type": "http.response.start", "status": status, "headers": headers})
    await connection.send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Event:
    """A server-sent event: ``id`` comes back as Last-Event-ID when the browser connects again."""

    id: str
    name: str
    data: str = ""

    def encode(self) -> bytes:
        """Give the event in the form of WHATWG HTML §9.2.6."""
        lines = [f"id: {self.id}", f"event: {self.name}", *(f"data: {line}" for line in (self.data or "").split("\n"))]
        return ("\n".join(lines) + "\n\n").encode()


async def send_events(connection: Connection, events: AsyncIterator[Event]) -> None:
    """Send server-sent events until the client goes, the iterator ends or the right to see them is lost."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
    ]

    async def piece(data: bytes) -> None:
        await connection.send({"type": "http.response.body", "body": data, "more_body": True})

    async def deliver(event: Event) -> None:
        await piece(event.encode())

    async def idle() -> None:
        await piece(b": still here\n\n")

    await connection.send({"type": "http.response.start", "status": 200, "headers": headers})
    await idle()
    await _push(connection, events, deliver, idle)
    await connection.send({"type": "http.response.body", "body": b""})


async def send_messages(connection: Connection, messages: AsyncIterator[str]) -> None:
    """Accept a WebSocket and send text messages until the client goes, the iterator ends or the right is lost."""
    if (await connection.receive())["type"] != "websocket.connect":
        return

    async def deliver(text: str) -> None:
        await connection.send({"type": "websocket.send", "text": text})

    async def idle() -> None:
        return

    await connection.send({"type": "websocket.accept"})
    allowed = await _push(connection, messages, deliver, idle)
    await connection.send({"type": "websocket.close", "code": 1000 if allowed else POLICY_VIOLATION})


async def _push(
    connection: Connection,
    items: AsyncIterator[T],
    deliver: Callable[[T], Awaitable[None]],
    idle: Callable[[], Awaitable[None]],
) -> bool:
    """Deliver items as they come; give whether the client was allowed to the end."""
    gone: asyncio.Task[Any] = asyncio.create_task(connection.closed())
    following: asyncio.Task[T] = asyncio.create_task(_next(items))
    checked = spoken = time.monotonic()
    try:
        while True:
            waiting: set[asyncio.Task[Any]] = {gone, following}
            await asyncio.wait(waiting, timeout=RECHECK, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return True
            now = time.monotonic()
            if now - checked >= RECHECK:
                if not await connection.is_allowed():
                    return False
                checked = now
            if following.done():
                try:
                    item = following.result()
                except StopAsyncIteration:
                    return True
                await deliver(item)
                spoken = now
                following = asyncio.create_task(_next(items))
            elif now - spoken >= KEEP_ALIVE:
                await idle()
                spoken = now
    finally:
        for task in (gone, following):
            task.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await task


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


class Feed(Generic[T]):
    """Rows as they appear in the database, for every connection of this process that listens.

    ``newest`` gives the highest number there is (0 for none); ``after`` gives (number, row) of those above a number,
    in order. Both run in a thread. A listener sees each number once; one that falls far behind is ended, to connect
    again.
    """

    def __init__(
        self,
        *,
        newest: Callable[[], int],
        after: Callable[[int], Sequence[tuple[int, T]]],
        seconds: float = POLL_SECONDS,
    ) -> None:
        self._newest, self._after, self._seconds = newest, after, seconds
        self._listeners: set[asyncio.Queue[tuple[int, T] | None]] = set()
        self._poller: asyncio.Task[None] | None = None
        self._started: asyncio.Future[int] | None = None

    @asynccontextmanager
    async def listen(self, after: int | None = None) -> AsyncIterator[AsyncIterator[tuple[int, T]]]:
        """Give the rows above ``after``, or those that come from now on, as an endless iterator."""
        queue: asyncio.Queue[tuple[int, T] | None] = asyncio.Queue(MOST_WAITING)
        self._listeners.add(queue)
        if self._poller is None:
            self._started = asyncio.get_running_loop().create_future()
            self._poller = asyncio.create_task(self._poll(self._started))
        assert self._started is not None
        try:
            await asyncio.shield(self._started)
            yield self._rows(queue, await in_thread(self._after, after) if after is not None else [])
        finally:
            self._listeners.discard(queue)
            if not self._listeners and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    async def _rows(
        self, queue: asyncio.Queue[tuple[int, T] | None], missed: Sequence[tuple[int, T]]
    ) -> AsyncIterator[tuple[int, T]]:
        seen = {number for number, _ in missed}
        for row in missed:
            yield row
        while (following := await queue.get()) is not None:
            if following[0] not in seen:
                yield following

    async def _poll(self, started: asyncio.Future[int]) -> None:
        try:
            last = await in_thread(self._newest)
            seen = {number for number, _ in await in_thread(self._after, max(last - OVERLAP, 0))}
        except Exception as error:  # those who listen are told, and connect again
            self._poller = None
            started.set_exception(error)
            return
        started.set_result(last)
        while True:
            await asyncio.sleep(self._seconds)
            try:
                rows = await in_thread(self._after, max(last - OVERLAP, 0))
            except Exception:  # noqa: S112  the database may be away for a while; readiness tells
                continue
            for number, row in rows:
                if number not in seen:
                    self._publish((number, row))
            last = max([last, *(number for number, _ in rows)])
            seen = {number for number in seen | {number for number, _ in rows} if number > last - 2 * OVERLAP}

    def _publish(self, row: tuple[int, T]) -> None:
        for queue in list(self._listeners):
            if queue.qsize() < MOST_WAITING - 1:
                queue.put_nowait(row)
            elif not queue.full():
                queue.put_nowait(None)
                self._listeners.discard(queue)
