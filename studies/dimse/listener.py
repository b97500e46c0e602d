"""The DICOM listener: Verification and Storage SCP (PS3.4 Annexes A and B)."""

from __future__ import annotations

import ipaddress
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
from django.db import DatabaseError, connection
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal, principal_of_node
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dimse.models import Node
from studies.ingest.errors import OUT_OF_RESOURCES, PROCESSING_FAILURE
from studies.ingest.services import Source, StagedFile, WayIn, ingest

logger = logging.getLogger("atrium.dimse")
SUCCESS = 0x0000
NOT_AUTHORISED = 0x0124
MAXIMUM_ASSOCIATIONS = 64
ACSE_SECONDS, DIMSE_SECONDS, NETWORK_SECONDS = 30, 120, 120
GRACE_SECONDS = 10
STALE_SECONDS = 3600
NOBODY = "\x00"

# Kept as sent: every syntax is taken for every class; explicit little endian first where a peer offers a choice.
TRANSFER_SYNTAXES = [
    uid.ExplicitVRLittleEndian,
    *(s for s in uid.AllTransferSyntaxes if s not in {uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian}),
    uid.ImplicitVRLittleEndian,
]


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


def source_of(calling_ae_title: str, address: str) -> Source | None:
    """Give where what this caller sends belongs; None for one who may not call."""
    title = calling_ae_title.strip()
    node = Node.objects.select_related("site").filter(ae_title=title).first()
    if node is None:
        site = Site.objects.order_by("pk").first() if settings.ATRIUM.dicom_open else None
        may_store = True
    else:
        site = node.site if node.is_active and _is_allowed(address, node.allowed_addresses) else None
        may_store = node.may_store
    if site is None:
        return None
    capabilities = [Capability.STUDY_UPLOAD] if may_store else []
    principal = principal_of_node(ae_title=title, site_id=site.pk, capabilities=capabilities, ip_address=address)
    return Source(WayIn.DIMSE, site, principal)


def _is_allowed(address: str, networks: list[str]) -> bool:
    caller = ipaddress.ip_address(address)
    # A listener on IPv6 gives IPv4 callers as ::ffff:a.b.c.d.
    caller = getattr(caller, "ipv4_mapped", None) or caller
    return not networks or any(caller in ipaddress.ip_network(n, strict=False) for n in networks)


def on_requested(event: Event) -> None:
    """Decide whether the caller is known; the association is rejected by the AE if not (PS3.8 §9.3.4)."""
    association = event.assoc
    title, address = str(association.requestor.primitive.calling_ae_title).strip(), str(association.requestor.address)
    association.ae.callers.accepted = NOBODY
    association.atrium_source = None
    association.atrium_counts = Counter()
    try:
        association.atrium_source = source_of(title, address)
        if association.atrium_source is None:
            record(
                AuditEvent.Action.REFUSAL,
                principal=Principal(ae_title=title, ip_address=address),
                outcome=AuditEvent.Outcome.REFUSED,
                details={"protocol": "DIMSE", "reason": "unknown calling AE title or address"},
            )
            logger.warning("association of an unknown caller rejected", extra={"ae_title": title, "address": address})
            return
    except DatabaseError:
        logger.exception("a caller can't be looked up")
        return
    association.ae.callers.accepted = title


def on_echo(event: Event) -> int:
    """Answer C-ECHO."""
    return SUCCESS


def on_store(event: Event) -> int | Dataset:
    """Archive what was received and give the status (PS3.4 Table B.2-1)."""
    answer = _store(event)
    event.assoc.atrium_counts[answer == SUCCESS] += 1
    return answer


def _store(event: Event) -> int | Dataset:
    source: Source = event.assoc.atrium_source
    if not source.principal.may(Capability.STUDY_UPLOAD, source.site.pk):
        return _status(NOT_AUTHORISED, "This AE title may not store.")
    path = Path(event.dataset_path)
    try:
        (outcome,) = ingest([StagedFile(path, path.stat().st_size)], source)
    except OSError:
        logger.exception("no room to store")
        return _status(OUT_OF_RESOURCES, "The archive has no room.")
    except DatabaseError:
        logger.exception("the database failed")
        return _status(PROCESSING_FAILURE, "The database isn't available.")
    return SUCCESS if outcome.is_in else _status(outcome.dicom_status, outcome.reason)


def _status(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment[:64]
    return answer


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
    source: Source | None = getattr(association, "atrium_source", None)
    if source is not None:
        logger.info(
            "association ended",
            extra={
                "ae_title": source.principal.ae_title,
                "address": source.principal.ip_address,
                "stored": association.atrium_counts[True],
                "failed": association.atrium_counts[False],
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
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, TRANSFER_SYNTAXES)
    handlers = [
        (evt.EVT_CONN_OPEN, on_connected),
        (evt.EVT_REQUESTED, on_requested),
        (evt.EVT_C_ECHO, on_echo),
        (evt.EVT_C_STORE, on_store),
        (evt.EVT_REJECTED, on_ended),
        (evt.EVT_RELEASED, on_ended),
        (evt.EVT_ABORTED, on_ended),
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
