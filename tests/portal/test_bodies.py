"""A request's body that a thread reads while it comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from portal import threads
from portal.threads import GATHERED, ClientGone, Message, RequestBody

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
    monkeypatch.setattr(threads, "PATIENCE", 0.6)


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


def test_who_is_slow_but_goes_on_is_heard_out(loop: asyncio.AbstractEventLoop) -> None:
    body = body_of(loop, bytes(GATHERED), count=4, every=0.3)
    assert sum(len(piece) for piece in iter(lambda: body.read(GATHERED), b"")) == 4 * GATHERED


def test_what_comes_too_late_makes_no_whole_of_what_was_given_up(loop: asyncio.AbstractEventLoop) -> None:
    body = body_of(loop, b"x", count=2, every=0.8)
    with pytest.raises(ClientGone):
        body.read(10)
    while not body.is_whole:
        pass
    with pytest.raises(ClientGone):
        body.read(10)
