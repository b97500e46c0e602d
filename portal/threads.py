"""Runs Django, which blocks, in threads below an ASGI server, which must not.

A view runs in one thread, and a body that's made piece by piece in one of another pool, so that cursors stay where they
were made and clients that read slowly hold no view up.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.core import signals
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http import FileResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from portal.bodies import (
    GATHERED,
    BrokenOff,
    PagedResponse,
    Receive,
    RequestBody,
    ResponseBody,
    Send,
    gathered,
    linger,
)
from portal.connections import release_connections
from portal.uploads import Uploads

logger = logging.getLogger("atrium.web")
Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]

MOST_STREAMS = 128
# In bytes, of all of a request's headers together (RFC 6585 §5).
LONGEST_HEADERS = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A whole response; ``path`` names a file that is sent as it is, instead of ``body``."""

    status: int
    headers: Headers
    body: bytes | bytearray = b""
    path: str = ""


# Answers a request by itself, or by a response whose body is yet to be made, or gives None to leave it to the next and
# at last to Django.
Shortcut = Callable[[Scope], Answer | HttpResponseBase | None]


class ThreadedDjango(BaseHandler):
    """An ASGI application that answers by shortcuts or by Django's views, each request in a thread.

    What is ``at_once`` a shortcut runs on the event loop: it must neither wait nor take long.
    """

    def __init__(
        self, *, threads: int, uploads: Uploads, at_once: Iterable[Shortcut] = (), shortcuts: Iterable[Shortcut] = ()
    ) -> None:
        super().__init__()
        self.load_middleware()
        self.uploads = uploads
        self.at_once = list(at_once)
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
        answer: Answer | HttpResponseBase | None
        if is_whole:
            answer = _try(self.at_once, scope)
            if answer is None:
                answer = await loop.run_in_executor(self.pool, self._answer, scope, body)
        else:
            # Who sends piece by piece may stop at any: the threads of all others mustn't wait for that.
            client = scope["client"]
            with self.uploads.one(client):
                answer = await loop.run_in_executor(self.streams, self._answer, scope, body)
                if isinstance(answer, Answer) and scope["http_version"] == "1.1" and self.uploads.let_go(client):
                    answer.headers.append((b"Connection", b"close"))
        if not isinstance(answer, Answer):
            if await loop.run_in_executor(self.streams, _stream, answer, receive, send, loop):
                await linger(receive)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if answer.path:
            await send({"type": "http.response.pathsend", "path": answer.path})
        else:
            await send({"type": "http.response.body", "body": answer.body})

    def _answer(self, scope: Scope, body: RequestBody) -> Answer | HttpResponseBase:
        """Give the answer, or the response whose body is yet to be made."""
        response = _try(self.shortcuts, scope) or self._django(scope, body)
        if not isinstance(response, Answer):
            if scope["method"] == "HEAD":
                response.close()
                return Answer(response.status_code, headers_of(response))
            # Another thread goes on and ends the request; what this one holds, it would hold until its next.
            release_connections()
        return response

    def _django(self, scope: Scope, body: RequestBody) -> Answer | HttpResponseBase:
        set_script_prefix("/")
        signals.request_started.send(sender=self.__class__, scope=scope)
        response = self.get_response(ASGIRequest(scope, body))  # type: ignore[arg-type]
        body.close()
        if response.streaming:
            return response
        try:
            return Answer(response.status_code, headers_of(response), response.content)  # type: ignore[attr-defined]
        finally:
            response.close()


def _try(shortcuts: list[Shortcut], scope: Scope) -> Answer | HttpResponseBase | None:
    for shortcut in shortcuts:
        try:
            answer = shortcut(scope)
        except Exception:  # the views are the reference: they say what is wrong
            logger.exception("a shortcut failed")
            continue
        if answer is not None:
            return answer
    return None


async def _refuse(send: Send, status: int) -> None:
    body = json.dumps({"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _waits_for_leave(scope: Scope) -> bool:
    """Say whether a program sends its body only when told to: its credential is looked at first (RFC 9110 §10.1.1)."""
    return {b"expect", b"authorization"} <= {name for name, _ in scope["headers"]}


def headers_of(response: HttpResponseBase) -> Headers:
    """Give a response's headers, cookies included, as ASGI sends them."""
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    headers += [(b"Set-Cookie", c.output(header="").strip().encode("ascii")) for c in response.cookies.values()]
    return headers


def _stream(response: HttpResponseBase, receive: Receive, send: Send, loop: asyncio.AbstractEventLoop) -> bool:
    """Send a response piece by piece, each as soon as it's made; say whether it's broken off."""
    if isinstance(response, FileResponse):
        response.block_size = max(response.block_size, GATHERED)
    is_paged = isinstance(response, PagedResponse)
    pieces = response.pieces if is_paged else gathered(response.streaming_content)  # type: ignore[attr-defined]
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers_of(response)}
    body = ResponseBody(start, receive, send, loop)
    try:
        for piece in pieces:
            body.put(piece)
        body.finish()
    except BrokenOff:
        body.break_off()
        return True
    except (TimeoutError, OSError, RuntimeError):
        logger.info("a client went away before its answer was whole")
    finally:
        body.close()
        response.close()
    return False
