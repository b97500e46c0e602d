"""Runs Django, which blocks, in threads below an ASGI server, which must not.

A view runs in one thread, and a body that's made piece by piece in one of another pool, so that cursors stay where they
were made and clients that read slowly hold no view up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http import FileResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from portal.connections import release_connections
from portal.uploads import Uploads

logger = logging.getLogger("atrium.web")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

GATHERED = 1 << 18
# Of a request's body, what is taken before it's read.
AHEAD = 1 << 20
# How long a thread waits for GATHERED bytes of a body, or for its end, before it's taken back.
PATIENCE = 60.0
MOST_STREAMS = 128
# In bytes, of all of a request's headers together (RFC 6585 §5).
LONGEST_HEADERS = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A whole response; ``path`` names a file that is sent as it is, instead of ``body``."""

    status: int
    headers: Headers
    body: bytes = b""
    path: str = ""


# Answers a request by itself, in a thread, or gives None to leave it to Django.
Shortcut = Callable[[Scope], Answer | None]


class ClientGone(OSError):
    """The client closed the connection, or stopped reading or sending."""


class RequestBody:
    """The body as a file that a thread reads, while the event loop takes what comes up to a little more than AHEAD."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive, self._loop = receive, loop
        # What has come and isn't read yet; an empty piece ends it. The loop counts what came, the thread what it took.
        self._pieces: SimpleQueue[bytes] = SimpleQueue()
        self._came = self._taken = 0
        self._has_room = asyncio.Event()
        self._is_full = False
        self._is_begun = False
        self._coming: Future[None] | None = None
        self._buffer = b""
        self._place = 0
        self._is_at_end = False
        self._is_whole = False
        # How long the thread has waited, and for how many bytes.
        self._waited, self._waited_for = 0.0, 0
        self._has_given_up = False

    async def _take(self) -> bool:
        """Take the next message; say whether more may come."""
        message = await self._receive()
        piece = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if piece:
            self._came += len(piece)
            self._pieces.put(piece)
        if not more:
            self._is_whole = message["type"] != "http.disconnect"
            self._pieces.put(b"")
        return more

    async def begin(self) -> None:
        """Wait for the first piece, which most bodies are whole in: no thread waits for a slow client's form."""
        self._is_begun = True
        try:
            async with asyncio.timeout(PATIENCE):
                while self._came < GATHERED:
                    if not await self._take():
                        return
        except TimeoutError:
            self._pieces.put(b"")
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._coming = asyncio.run_coroutine_threadsafe(self._take_all(), self._loop)

    async def _take_all(self) -> None:
        try:
            while await self._take():
                while self._came - self._taken >= AHEAD:
                    self._has_room.clear()
                    self._is_full = True
                    # The thread looks whether it's full after it has taken: what it took before that counts here.
                    if self._came - self._taken >= AHEAD:
                        await self._has_room.wait()
                    self._is_full = False
        finally:
            # However it ended, nobody waits for more.
            self._pieces.put(b"")

    @property
    def is_gone(self) -> bool:
        """Say whether nothing of it came before the client went, or fell silent; after :meth:`begin`."""
        return not self._came and not self._is_whole

    @property
    def is_whole(self) -> bool:
        """Say whether all of it has come."""
        return self._is_whole

    def _fill(self) -> bool:
        """Get what has come, GATHERED and a piece at most; wait where nothing has. Raises ClientGone."""
        if self._has_given_up:
            raise ClientGone("The client stopped sending before its request was whole.")
        if not self._is_begun:
            self._is_begun = True
            self._go_on()
        pieces: list[bytes] = []
        size = 0
        while not self._is_at_end and (not pieces or (size < GATHERED and not self._pieces.empty())):
            piece = self._next()
            if piece:
                pieces.append(piece)
                size += len(piece)
            else:
                self._is_at_end = True
        self._taken += size
        if self._is_full:
            self._loop.call_soon_threadsafe(self._has_room.set)
        self._buffer, self._place = pieces[0] if len(pieces) == 1 else b"".join(pieces), 0
        # What came before the client went is given first.
        if not pieces and not self._is_whole:
            raise ClientGone("The client went away, or stopped sending, before its request was whole.")
        return bool(pieces)

    def _next(self) -> bytes:
        """Give the next piece. Raises ClientGone where too little comes."""
        try:
            piece = self._pieces.get_nowait()
        except Empty:
            piece = self._wait()
        self._waited_for += len(piece)
        if self._waited_for >= GATHERED:
            self._waited, self._waited_for = 0.0, 0
        return piece

    def _wait(self) -> bytes:
        # The client may take its time: meanwhile the connection to the database serves others.
        release_connections()
        begun_at = monotonic()
        try:
            return self._pieces.get(timeout=max(0.0, PATIENCE - self._waited))
        except Empty:
            # What comes from now on comes too late.
            self._has_given_up = True
            raise ClientGone("The client stopped sending before its request was whole.") from None
        finally:
            self._waited += monotonic() - begun_at

    def read(self, size: int = -1, /) -> bytes:
        """Give at most ``size`` bytes, fewer when fewer have come, none at the end; without a size, all that is left.

        Raises ClientGone, or RequestDataTooBig where all is asked for and is more than a view may hold in memory.
        """
        if size < 0:
            return self._read_all()
        if self._place >= len(self._buffer) and not self._fill():
            return b""
        piece = self._buffer[self._place : self._place + size]
        self._place += len(piece)
        return piece

    def _read_all(self) -> bytes:
        pieces, total = [], 0
        while piece := self.read(GATHERED):
            pieces.append(piece)
            total += len(piece)
            if total > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                raise RequestDataTooBig("The body is larger than may be held in memory.")
        return b"".join(pieces)

    def readline(self, size: int = -1, /) -> bytes:
        """Give the next line, as multipart parsers of older make want it."""
        line = b""
        while size < 0 or len(line) < size:
            if self._place >= len(self._buffer) and not self._fill():
                break
            end = self._buffer.find(b"\n", self._place) + 1 or len(self._buffer)
            if size >= 0:
                end = min(end, self._place + size - len(line))
            line += self._buffer[self._place : end]
            self._place = end
            if line.endswith(b"\n"):
                break
        return line

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def close(self) -> None:
        """Stop reading ahead."""
        if self._coming is not None:
            self._coming.cancel()


class ThreadedDjango(BaseHandler):
    """An ASGI application that answers by shortcuts or by Django's views, each request in a thread."""

    def __init__(self, *, threads: int, uploads: Uploads, shortcuts: Iterable[Shortcut] = ()) -> None:
        super().__init__()
        self.load_middleware()
        self.uploads = uploads
        self.shortcuts = list(shortcuts)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self.streams = ThreadPoolExecutor(MOST_STREAMS, thread_name_prefix="stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LONGEST_HEADERS:
            await _refuse(send, 431)
            return
        body = RequestBody(receive, loop)
        is_whole = scope["method"] in {"GET", "HEAD"}
        if not is_whole and not _waits_for_leave(scope):
            await body.begin()
            if body.is_gone:
                # Nobody waits for an answer, or nothing came for a minute: thousands of such cost no thread's time.
                await _refuse(send, 408)
                return
            is_whole = body.is_whole
        if is_whole:
            answer = await loop.run_in_executor(self.pool, self._answer, scope, body)
        else:
            # Who sends piece by piece may stop at any: the threads of all others mustn't wait for that.
            client = scope["client"]
            with self.uploads.one(client):
                answer = await loop.run_in_executor(self.streams, self._answer, scope, body)
                if isinstance(answer, Answer) and scope["http_version"] == "1.1" and self.uploads.let_go(client):
                    answer.headers.append((b"Connection", b"close"))
        if not isinstance(answer, Answer):
            await loop.run_in_executor(self.streams, _stream, answer, receive, send, loop)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if answer.path:
            await send({"type": "http.response.pathsend", "path": answer.path})
        else:
            await send({"type": "http.response.body", "body": answer.body})

    def _answer(self, scope: Scope, body: RequestBody) -> Answer | HttpResponseBase:
        """Give the answer, or the response whose body is yet to be made."""
        for shortcut in self.shortcuts:
            try:
                answer = shortcut(scope)
            except Exception:  # the views are the reference: they say what is wrong
                logger.exception("a shortcut failed")
                answer = None
            if answer is not None:
                return answer
        set_script_prefix("/")
        signals.request_started.send(sender=self.__class__, scope=scope)
        response = self.get_response(ASGIRequest(scope, body))  # type: ignore[arg-type]
        body.close()
        if response.streaming:
            # Another thread goes on and ends the request; what this one holds, it would hold until its next.
            release_connections()
            return response
        try:
            return Answer(response.status_code, _headers_of(response), response.content)  # type: ignore[attr-defined]
        finally:
            response.close()


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def _waits_for_leave(scope: Scope) -> bool:
    """Say whether a program sends its body only when told to: its credential is looked at first (RFC 9110 §10.1.1)."""
    return {b"expect", b"authorization"} <= {name for name, _ in scope["headers"]}


def _headers_of(response: HttpResponseBase) -> Headers:
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    headers += [(b"Set-Cookie", c.output(header="").strip().encode("ascii")) for c in response.cookies.values()]
    return headers


def _stream(response: HttpResponseBase, receive: Receive, send: Send, loop: asyncio.AbstractEventLoop) -> None:
    """Send pieces as they come, one on its way while the next is made: memory holds two, however slow the client."""
    if isinstance(response, FileResponse):
        response.block_size = max(response.block_size, GATHERED)
    chunks: Iterable[bytes] = response.streaming_content  # type: ignore[attr-defined]

    async def sent(message: Message) -> None:
        await send(message)

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    def begin(message: Message) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(sent(message), loop)

    # The server swallows what is sent to a closed connection; only this tells.
    departure = asyncio.run_coroutine_threadsafe(disconnected(), loop)
    under_way = begin({"type": "http.response.start", "status": response.status_code, "headers": _headers_of(response)})
    try:
        for piece in _gathered(chunks):
            under_way.result(PATIENCE)
            if departure.done():
                raise ClientGone
            under_way = begin({"type": "http.response.body", "body": piece, "more_body": True})
        under_way.result(PATIENCE)
        begin({"type": "http.response.body", "body": b""}).result(PATIENCE)
    except (TimeoutError, OSError, RuntimeError):
        under_way.cancel()
        logger.info("a client went away before its answer was whole")
    finally:
        departure.cancel()
        response.close()


def _gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces, so that the event loop isn't woken for every boundary of a multipart message."""
    pieces: list[bytes] = []
    size = 0
    for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size >= GATHERED:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)
