"""Bodies that a thread reads while they come, and makes while they go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from itertools import chain, repeat

import pytest

from portal import bodies
from portal.bodies import GATHERED, HELD, PIECE, ClientGone, ClientSilent, Message, RequestBody, ResponseBody, gathered

pytestmark = pytest.mark.django_db


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.6)


def body_of(loop: asyncio.AbstractEventLoop, piece: bytes, *, count: int, every: float) -> RequestBody:
    """Give a body of so many pieces, each so many seconds after the one before."""
    left = count

    async def receive() -> Message:
        nonlocal left
        await asyncio.sleep(every)
        left -= 1
        return {"type": "http.request", "body": piece, "more_body": left > 0}

    return RequestBody(receive, loop)


def test_who_sends_a_byte_now_and_then_holds_no_thread_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    body = body_of(loop, b"x", count=10, every=0.2)
    with pytest.raises(ClientGone):
        list(iter(lambda: body.read(10), b""))


@pytest.mark.parametrize("is_begun", [True, False])
def test_who_falls_silent_is_told_apart_from_who_goes(loop: asyncio.AbstractEventLoop, is_begun: bool) -> None:
    async def receive() -> Message:
        if not next(silent):
            return {"type": "http.request", "body": b"x", "more_body": True}
        await asyncio.sleep(0 if is_gone else 5)
        return {"type": "http.disconnect"}

    for is_gone in (True, False):
        silent = chain([False], repeat(True))
        body = RequestBody(receive, loop)
        if is_begun:
            asyncio.run_coroutine_threadsafe(body.begin(), loop).result()
        with pytest.raises(ClientGone) as error:
            list(iter(lambda: body.read(10), b""))  # noqa: B023  read at once
        assert isinstance(error.value, ClientSilent) != is_gone


def test_who_is_slow_but_goes_on_is_heard_out(loop: asyncio.AbstractEventLoop) -> None:
    body = body_of(loop, bytes(GATHERED), count=4, every=0.3)
    assert sum(len(piece) for piece in iter(lambda: body.read(GATHERED), b"")) == 4 * GATHERED


def test_what_comes_too_late_makes_no_whole_of_what_was_given_up(loop: asyncio.AbstractEventLoop) -> None:
    body = body_of(loop, b"x", count=2, every=0.8)
    with pytest.raises(ClientSilent):
        body.read(10)
    while not body.is_whole:
        pass
    with pytest.raises(ClientGone):
        body.read(10)


class Client:
    """One who reads a piece each so many seconds, and may leave, or break, after some."""

    def __init__(self, *, every: float = 0, leaves_after: int = -1, breaks_after: int = -1) -> None:
        self.every, self.leaves_after, self.breaks_after = every, leaves_after, breaks_after
        self.read: list[bytes] = []
        self.is_told_the_end = False

    async def receive(self) -> Message:
        while len(self.read) != self.leaves_after:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await asyncio.sleep(self.every)
        if len(self.read) == self.breaks_after:
            raise RuntimeError("broken")
        if message["type"] == "http.response.body" and message["body"]:
            self.read.append(message["body"])
        self.is_told_the_end = message.get("more_body") is False

    def answered(self, loop: asyncio.AbstractEventLoop) -> ResponseBody:
        return ResponseBody({"type": "http.response.start"}, self.receive, self.send, loop)


def put_many(body: ResponseBody) -> None:
    for _ in range(100):
        body.put(b"x")


def test_an_answer_goes_whole_and_in_order(loop: asyncio.AbstractEventLoop) -> None:
    client = Client()
    body = client.answered(loop)
    pieces = [str(number).encode() for number in range(2000)]
    for number, piece in enumerate(pieces):
        # Now and then the loop has sent all and waits.
        time.sleep(0.002 if number % 100 == 0 else 0)
        body.put(piece)
    body.finish()
    assert client.read == pieces
    assert client.is_told_the_end


def test_the_next_piece_waits_until_a_slow_client_has_the_one_before(loop: asyncio.AbstractEventLoop) -> None:
    client = Client(every=0.05)
    body = client.answered(loop)
    for before in range(10):
        body.put(b"x")
        assert len(client.read) >= before
    body.finish()


def test_who_stops_reading_holds_no_thread_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    body = Client(every=5).answered(loop)
    with pytest.raises(ClientGone, match="stopped"):
        put_many(body)


@pytest.mark.parametrize("client", [Client(every=0.05, leaves_after=2), Client(breaks_after=2)])
def test_who_leaves_frees_the_thread_at_once(client: Client, loop: asyncio.AbstractEventLoop) -> None:
    body = client.answered(loop)
    begun_at = time.monotonic()
    with pytest.raises(ClientGone, match="went away"):
        put_many(body)
    assert time.monotonic() - begun_at < bodies.PATIENCE
    body.close()
    assert not client.is_told_the_end


def test_small_pieces_are_joined_and_slow_ones_are_not_held_back() -> None:
    def chunks() -> Iterator[bytes]:
        yield from [bytes(GATHERED // 4)] * 8
        yield b"slow"
        time.sleep(HELD * 2)
        yield b"er"
        yield b"end"

    assert [len(piece) for piece in gathered(chunks())] == [GATHERED, GATHERED, 6, 3]
    assert list(gathered([b"", b""])) == []


def test_pieces_grow_with_what_was_sent() -> None:
    sizes = [len(piece) for piece in gathered([bytes(GATHERED // 4)] * 1000)]
    assert sizes[:16] == [GATHERED] * 16
    assert sizes == sorted(sizes[:-1]) + sizes[-1:]
    assert max(sizes) == PIECE
