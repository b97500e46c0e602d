"""The ASGI application that the web server's workers run.

Live connections stay on the event loop; everything else is answered by Django in a thread. Where a room has a live
connection, it's named in LIVE; where it answers a kind of request by itself, ahead of Django, in SHORTCUTS.
"""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402  settings come first

from portal.live import LiveConnections, LiveRoute  # noqa: E402
from portal.threads import Receive, Scope, Send, Shortcut, ThreadedDjango  # noqa: E402

LIVE: list[LiveRoute] = []
SHORTCUTS: list[Shortcut] = []


class Application:
    """Sends each connection where it belongs."""

    def __init__(self) -> None:
        self.live = LiveConnections(LIVE)
        self.django = ThreadedDjango(threads=settings.ATRIUM.web_threads, shortcuts=SHORTCUTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live_and_die(receive, send)
        elif await self.live(scope, receive, send):
            return
        elif scope["type"] == "http":
            await self.django(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})


async def _live_and_die(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


application = Application()
