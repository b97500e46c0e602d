"""The ASGI application that the web server's workers run.

Live connections stay on the event loop; everything else is answered by Django in a thread. Where a room has a live
connection, it's named in LIVE; where it answers a kind of request by itself, ahead of Django, in SHORTCUTS; where it
can do so without waiting for anything, in AT_ONCE.
"""

from __future__ import annotations

import asyncio
import logging
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402  settings come first
from django.db import DatabaseError  # noqa: E402
from django.urls import reverse  # noqa: E402

from accounts.capabilities import Capability  # noqa: E402
from portal.audit.services import flush_counts  # noqa: E402
from portal.audit.viewing import FLUSH_SECONDS  # noqa: E402
from portal.bodies import Receive, Send  # noqa: E402
from portal.garbage import look_less_often  # noqa: E402
from portal.live import LiveConnections, LiveRoute, in_thread  # noqa: E402
from portal.threads import Scope, Shortcut, ThreadedDjango  # noqa: E402
from portal.uploads import Uploads  # noqa: E402
from studies.dicomweb import fast_path, fast_views  # noqa: E402
from studies.dicomweb import live as workitem_events  # noqa: E402
from studies.ingest import leftovers  # noqa: E402
from studies.viewer import files as viewer_files  # noqa: E402
from studies.worklists import live as worklist_changes  # noqa: E402

logger = logging.getLogger("atrium.web")
LIVE: list[LiveRoute] = [
    LiveRoute("worklist/changes/", worklist_changes.changes, Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED),
    LiveRoute(
        "dicom-web/subscribers/<str:ae_title>",
        workitem_events.workitem_notifications,
        Capability.WORKITEM_VIEW,
        Capability.WORKITEM_PERFORM,
        is_socket=True,
    ),
]
AT_ONCE: list[Shortcut] = [fast_path.answer_at_once]
SHORTCUTS: list[Shortcut] = [fast_path.answer, fast_views.answer, viewer_files.answer]


class Application:
    """Sends each connection where it belongs."""

    def __init__(self) -> None:
        self.live = LiveConnections(LIVE)
        atrium = settings.ATRIUM
        uploads = Uploads(atrium.data / f"uploads-{atrium.http_port}", atrium.web_workers)
        self.django = ThreadedDjango(threads=atrium.web_threads, uploads=uploads, at_once=AT_ONCE, shortcuts=SHORTCUTS)

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
    """Write what was viewed every few seconds, and the rest at the end; remove what dead processes left."""
    await receive()
    leftovers.keep_swept()
    writing = asyncio.create_task(_keep_counts())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    writing.cancel()
    await in_thread(flush_counts)
    await send({"type": "lifespan.shutdown.complete"})


async def _keep_counts() -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        try:
            await in_thread(flush_counts)
        except DatabaseError:
            logger.warning("counts of viewing wait: the database can't be written")


application = Application()
# Django would read all routes, and what their views need, when the first request comes: half a second for whoever asks.
reverse("account_login")
look_less_often()
