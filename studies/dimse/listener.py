"""The DICOM listener: one AE that offers every service of the registry."""

from __future__ import annotations

import logging
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from pynetdicom import AE, _config, evt
from pynetdicom.events import Event

from studies.dimse.callers import NOBODY, Caller, on_requested
from studies.dimse.registry import SERVICES
from studies.dimse.scp import bindings

logger = logging.getLogger("atrium.dimse")
MAXIMUM_ASSOCIATIONS = 64
ACSE_SECONDS, DIMSE_SECONDS, NETWORK_SECONDS = 30, 120, 120
GRACE_SECONDS = 10
STALE_SECONDS = 3600


class ListeningAE(AE):
    """An AE whose known callers are decided for each association, by title and address."""

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        self.callers = threading.local()

    @property
    def require_calling_aet(self) -> list[str]:
        """Give the one title that may pass in this association's thread."""
        return [getattr(self.callers, "accepted", NOBODY)]

    @require_calling_aet.setter
    def require_calling_aet(self, titles: list[str]) -> None:
        raise AttributeError("callers are decided by the nodes")


def on_connected(event: Event) -> None:
    """Answer small messages at once: delayed ACKs slow C-STORE with many small instances down."""
    connected = event.assoc.dul.socket
    if connected is not None and connected.socket is not None:
        connected.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def on_ended(event: Event) -> None:
    """Tell what came, remove what came in part only, and give the thread's database connection back."""
    association = event.assoc
    received = association.dimse.message
    unfinished = getattr(received, "_data_set_path", None)
    if unfinished is not None:
        unfinished.unlink(missing_ok=True)
    caller: Caller | None = getattr(association, "atrium_caller", None)
    if caller is not None:
        counts: Counter[bool] = getattr(association, "atrium_counts", None) or Counter()
        logger.info(
            "association ended",
            extra={
                "ae_title": caller.principal.ae_title,
                "address": caller.principal.ip_address,
                "stored": counts[True],
                "failed": counts[False],
                "unfinished": unfinished is not None,
            },
        )
    connection.close()


def sweep_staging(folder: Path) -> None:
    """Remove what aborted associations and killed processes left behind; nothing there was ever acknowledged."""
    oldest = time.time() - STALE_SECONDS
    for path in folder.glob("*"):
        if path.is_file() and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


def start() -> Any:
    """Start listening and give pynetdicom's server."""
    folder: Path = settings.STAGING_ROOT
    folder.mkdir(parents=True, exist_ok=True)
    sweep_staging(folder)
    # pynetdicom writes what it receives to the temporary folder, as a Part 10 file, before the handler is called.
    _config.STORE_RECV_CHUNKED_DATASET = True
    tempfile.tempdir = str(folder)
    ae = ListeningAE(settings.ATRIUM.ae_title)
    ae.require_called_aet = True
    ae.maximum_associations = MAXIMUM_ASSOCIATIONS
    ae.maximum_pdu_size = 0
    ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = ACSE_SECONDS, DIMSE_SECONDS, NETWORK_SECONDS
    for service in SERVICES:
        roles = {"scu_role": True, "scp_role": True} if service.roles_reversible else {}
        for sop_class in service.sop_classes:
            ae.add_supported_context(sop_class, list(service.transfer_syntaxes), **roles)
    handlers = [
        (evt.EVT_CONN_OPEN, on_connected),
        (evt.EVT_REQUESTED, on_requested),
        (evt.EVT_REJECTED, on_ended),
        (evt.EVT_RELEASED, on_ended),
        (evt.EVT_ABORTED, on_ended),
        *bindings(SERVICES),
    ]
    address = (settings.ATRIUM.dicom_host, settings.ATRIUM.dicom_port)
    return ae.start_server(address, block=False, evt_handlers=handlers)


def run() -> None:
    """Listen until SIGTERM or SIGINT, then let running associations end for a few seconds."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = start()
    logger.info("listening", extra={"port": settings.ATRIUM.dicom_port})
    stop.wait()
    server.server_close()
    deadline = time.monotonic() + GRACE_SECONDS
    while server.active_associations and time.monotonic() < deadline:
        time.sleep(0.1)
    server.shutdown()
