"""Bodies between an event loop, which must not block, and the threads that Django runs in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Semaphore
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import StreamingHttpResponse

from portal.connections import release_connections

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GATHERED = 1 << 18
# Of a request's body, what is taken before it's read.
AHEAD = 1 << 20
# How long a thread waits for GATHERED bytes of a body, or for its end, before it's taken back.
PATIENCE = 60.0
# Of a response's body, what is sent at once: from GATHERED bytes up to PIECE, a sixteenth of what was sent before; and
# what there is where so many seconds passed since the piece before.
PIECE = 1 << 21
HELD = 0.05
SILENT = "The sender fell silent before all had come."
# In seconds, how long a client has for the rest of a body that's broken off.
LINGERING = 5.0


class BrokenOff(Exception):
    """A body ends before it's whole, once what was made of it is sent: the client must see that some is missing."""


class ClientGone(OSError):
    """The client closed the connection, or stopped reading or sending."""


class ClientSilent(ClientGone):
    """The client stays connected, but sends nothing any more."""


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
        self._is_silent = self._has_given_up = False

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
            self._is_silent = True
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
            raise ClientSilent(SILENT)
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
            raise ClientSilent(SILENT) if self._is_silent else ClientGone("The sender went away.")
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
            raise ClientSilent(SILENT) from None
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


class ResponseBody:
    """A body on its way to the client: a thread makes its pieces, the event loop sends one while the next is made.

    Memory holds these two, however slow the client.
    """

    def __init__(self, start: Message, receive: Receive, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        self._receive, self._send, self._loop = receive, send, loop
        # What isn't sent yet; an empty piece ends it.
        self._pieces: deque[bytes | bytearray] = deque()
        self._room = Semaphore()
        self._has_more = asyncio.Event()
        self._is_idle = False
        self._is_over = False
        self._sending = asyncio.run_coroutine_threadsafe(self._send_all(start), loop)

    async def _send_all(self, start: Message) -> None:
        departure = asyncio.create_task(self._see_departure())
        try:
            await self._send(start)
            while not self._is_over:
                while self._pieces:
                    piece = self._pieces.popleft()
                    await self._send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})
                    self._room.release()
                    if not piece:
                        return
                self._has_more.clear()
                self._is_idle = True
                # The thread looks whether it's idle after it has put: what it put before that is seen here.
                if not self._pieces:
                    await self._has_more.wait()
                self._is_idle = False
        finally:
            departure.cancel()
            self._end()

    async def _see_departure(self) -> None:
        # The server swallows what is sent to a closed connection; only this tells.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._room.release()

    def put(self, piece: bytes | bytearray) -> None:
        """Have the next piece sent, an empty one as the end, when the one before is sent. Raises ClientGone."""
        if not self._room.acquire(timeout=PATIENCE):
            raise ClientGone("The client stopped reading.")
        if self._is_over:
            raise ClientGone("The client went away before its answer was whole.")
        self._pieces.append(piece)
        if self._is_idle:
            self._loop.call_soon_threadsafe(self._has_more.set)

    def finish(self) -> None:
        """Wait until all is sent. Raises ClientGone, TimeoutError, or what sending raised."""
        self.put(b"")
        self._sending.result(PATIENCE)

    def break_off(self) -> None:
        """Send no end, once all else is sent."""
        self._room.acquire(timeout=PATIENCE)

    def close(self) -> None:
        """Stop sending."""
        self._sending.cancel()


async def linger(receive: Receive) -> None:
    """Wait before a body is broken off: that takes along what the server still holds, and the client hasn't read."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGERING):
            while (await receive())["type"] != "http.disconnect":
                pass


class Page:
    """A piece of a response's body while it's written, to where it's sent from: nothing is joined.

    The memory of a piece is used again for the next but one; by then its taker must have sent it. Pieces grow as those
    of :func:`gathered` do.
    """

    def __init__(self) -> None:
        self._buffer, self._before = bytearray(GATHERED), bytearray()
        self.room = memoryview(self._buffer)
        self._sent, self._begun_at = 0, monotonic()

    @property
    def written(self) -> int:
        """How many bytes are written."""
        return len(self._buffer) - len(self.room)

    @property
    def is_due(self) -> bool:
        """Say whether what is written has waited long enough."""
        return self.written > 0 and monotonic() - self._begun_at > HELD

    def write(self, content: bytes) -> None:
        """Write what there is room for."""
        self.room[: len(content)] = content
        self.room = self.room[len(content) :]

    def turn(self) -> bytes | bytearray:
        """Give what is written, and begin the next piece."""
        piece: bytes | bytearray = self._buffer
        if self.room:
            piece = bytes(memoryview(piece)[: self.written])
        else:
            size = len(self._buffer)
            if size < PIECE and self._sent >= size * 16:
                size *= 2
            self._buffer, self._before = self._before if len(self._before) == size else bytearray(size), self._buffer
        self._sent, self._begun_at = self._sent + len(piece), monotonic()
        self.room = memoryview(self._buffer)
        return piece


class PagedResponse(StreamingHttpResponse):
    """A response made of pages: the server takes each as it is before the next but one is made, anybody else a copy."""

    @property
    def pieces(self) -> Iterator[bytes | bytearray]:
        """The pages themselves."""
        pieces: Iterator[bytes | bytearray] = self._iterator  # type: ignore[attr-defined]
        return pieces

    def make_bytes(self, value: object) -> bytes:
        """Copy a page."""
        return bytes(value) if isinstance(value, bytearray) else super().make_bytes(value)


def gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces, so that the event loop isn't woken for each.

    They grow with what was sent, so that many who stop reading early hold little memory; what is slow to make, or to
    send, goes in smaller ones. Raises what the chunks do, once all that came before is given.
    """
    pieces: list[bytes] = []
    size, sent, begun_at = 0, 0, monotonic()
    failure: Exception | None = None
    try:
        for chunk in chunks:
            pieces.append(chunk)
            size += len(chunk)
            if size >= min(max(GATHERED, sent // 16), PIECE) or (size and monotonic() - begun_at > HELD):
                piece, pieces = b"".join(pieces), []
                size, sent, begun_at = 0, sent + size, monotonic()
                yield piece
    except Exception as error:  # of whatever makes them
        failure = error
    if size:
        yield b"".join(pieces)
    if failure is not None:
        raise failure
