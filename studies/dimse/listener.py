"""The DICOM listener: one AE that offers every service of the registry, in one process or several."""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, connections
from pynetdicom import AE, _config, evt
from pynetdicom.events import Event

from accounts.principals import Principal
from portal.audit.viewing import FLUSH_SECONDS, flush_counts
from portal.garbage import look_less_often
from studies.dimse import associations
from studies.dimse.callers import caller_from, refuse
from studies.dimse.identity import on_user_identity
from studies.dimse.registry import SERVICES
from studies.dimse.scp import Session, bindings, negotiate, requests
from studies.dimse.tls import server_context
from studies.dimse.transport import LARGEST_PDU, TunedRequestHandler, TunedServer, listening_socket
from studies.ingest import leftovers

logger = logging.getLogger("atrium.dimse")
ACSE_SECONDS, DIMSE_SECONDS, NETWORK_SECONDS = 15, 120, 120
GRACE_SECONDS = 10
WATCH_SECONDS = 1.0
NOBODY = "\x00"
# PS3.8 Table 9-21: (result, source, reason).
REJECTED_TRANSIENTLY, BY_PRESENTATION = 2, 3
TEMPORARY_CONGESTION, LOCAL_LIMIT_EXCEEDED = 1, 2


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


def on_requested(event: Event) -> None:
    """Decide whether the caller is known; the association is rejected by the AE if not (PS3.8 §9.3.4)."""
    association = event.assoc
    title, address = str(association.requestor.primitive.calling_ae_title).strip(), str(association.requestor.address)
    association.ae.callers.accepted = NOBODY
    association.atrium_session = None
    try:
        caller = caller_from(title, address)
        if caller is None:
            refuse(Principal(ae_title=title, ip_address=address), "unknown calling AE title or address")
            return
        if caller.node is not None and caller.node.uses_tls and not association.dul.socket.is_encrypted:
            refuse(caller.principal, "the node must call by TLS", site_id=caller.site.pk)
            return
        if caller.node is not None and not associations.has_room(caller.node):
            refuse(caller.principal, "too many associations of this node", site_id=caller.site.pk)
            association.acse.send_reject(REJECTED_TRANSIENTLY, BY_PRESENTATION, LOCAL_LIMIT_EXCEEDED)
            association.kill()
            return
        session = Session(caller)
        _note(session, association)
    except DatabaseError:
        logger.exception("a caller can't be looked up")
        association.acse.send_reject(REJECTED_TRANSIENTLY, BY_PRESENTATION, TEMPORARY_CONGESTION)
        association.kill()
        return
    association.atrium_session = session
    association.ae.callers.accepted = title


def on_extended(event: Event) -> dict[str, bytes]:
    """Grant extensions of SOP classes (PS3.7 D.3.3.5)."""
    session: Session | None = event.assoc.atrium_session
    granted = negotiate(SERVICES, event.app_info)
    if session is not None:
        session.extensions = granted
    return granted


def _note(session: Session, association: Any) -> None:
    """Note who is connected, for the network monitor and for the node's limit."""
    row = associations.opened(
        node=session.caller.node,
        site=session.caller.site,
        ae_title=session.caller.principal.ae_title,
        address=session.caller.principal.ip_address or "",
        uses_tls=association.dul.socket.is_encrypted,
    )
    session.live = associations.Live(row.pk, association)
    association.pulse = session.live.pulse


def end(association: Any) -> None:
    """Tell what came, remove what came in part only, and give the thread's database connection back."""
    unfinished = association.dimse.discard_unfinished()
    session: Session | None = getattr(association, "atrium_session", None)
    if session is not None:
        logger.info(
            "association ended",
            extra={
                "ae_title": session.caller.principal.ae_title,
                "address": session.caller.principal.ip_address,
                "stored": association.traffic.stored,
                "failed": association.traffic.failed,
                "unfinished": unfinished,
            },
        )
        if session.live is not None:
            session.live.close(
                was_aborted=not association.is_released, requests=session.requests, last_error=session.last_error
            )
    connection.close()


def prepare() -> None:
    """Do what must be done once before listening."""
    folder: Path = settings.STAGING_ROOT
    folder.mkdir(parents=True, exist_ok=True)
    associations.close_all_of_this_host()


def listening_ae() -> ListeningAE:
    """Give our AE with all its presentation contexts, limits and time-outs."""
    # The library's own logging tells identifiers, and costs as much as the work.
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    ae = ListeningAE(settings.ATRIUM.ae_title)
    ae.require_called_aet = True
    ae.maximum_associations = settings.ATRIUM.dicom_associations
    ae.maximum_pdu_size = LARGEST_PDU
    ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = ACSE_SECONDS, DIMSE_SECONDS, NETWORK_SECONDS
    for service in SERVICES:
        roles = {"scu_role": True, "scp_role": True} if service.roles_reversible else {}
        for sop_class in service.sop_classes:
            ae.add_supported_context(sop_class, list(service.transfer_syntaxes), **roles)
    return ae


def serve(ae: ListeningAE, listening: socket.socket, tls: ssl.SSLContext | None = None) -> TunedServer:
    """Accept associations of the socket in a thread, and give the server."""
    handlers = [
        (evt.EVT_REQUESTED, on_requested),
        (evt.EVT_SOP_EXTENDED, on_extended),
        (evt.EVT_USER_ID, on_user_identity),
        *bindings(SERVICES),
    ]
    server = TunedServer(
        ae, listening, ae.ae_title, ae.supported_contexts, tls, handlers, request_handler=TunedRequestHandler
    )
    server.requests = requests(SERVICES)
    server.ended = end
    # An association that waits holds none of the few connections to the database.
    server.rested = close_old_connections
    ae._servers.append(server)
    threading.Thread(target=server.serve_forever, name="AcceptorServer", daemon=True).start()
    return server


def run() -> None:
    """Listen until SIGTERM or SIGINT, then let running associations end for a few seconds."""
    prepare()
    sockets: list[tuple[socket.socket, ssl.SSLContext | None]] = [
        (listening_socket(settings.ATRIUM.dicom_host, settings.ATRIUM.dicom_port), None)
    ]
    logger.info("listening", extra={"port": settings.ATRIUM.dicom_port})
    if (tls := server_context()) is not None:
        sockets.append((listening_socket(settings.ATRIUM.dicom_host, settings.ATRIUM.dicom_tls_port), tls))
        logger.info("listening by TLS", extra={"port": settings.ATRIUM.dicom_tls_port})
    _close_connections()
    look_less_often()

    def listen(is_over: Callable[[], bool]) -> None:
        ae = listening_ae()
        servers = [serve(ae, listening, tls) for listening, tls in sockets]
        leftovers.keep_swept()
        flush_at = time.monotonic() + FLUSH_SECONDS
        while not is_over():
            time.sleep(WATCH_SECONDS / 5)
            if time.monotonic() > flush_at:
                _write_counts()
                flush_at = time.monotonic() + FLUSH_SECONDS
        _end(servers)
        _write_counts()

    if settings.ATRIUM.dicom_processes == 1:
        stop = _stop_on_signals()
        listen(stop.is_set)
    else:
        _run_processes(settings.ATRIUM.dicom_processes, listen)


def _close_connections() -> None:
    """Close every connection to the database, those that a pool keeps too: processes forked from here share none."""
    connections.close_all()
    close_pool = getattr(connection, "close_pool", None)  # SQLite has none
    if close_pool is not None:
        close_pool()


def _write_counts() -> None:
    """Put what was received and sent into the trail, also when nobody calls any more."""
    try:
        flush_counts()
    except DatabaseError:
        logger.warning("counts of the trail wait: the database can't be written")
    finally:
        close_old_connections()


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _run_processes(count: int, listen: Callable[[Callable[[], bool]], None]) -> None:
    """Fork processes that share the sockets; start one anew when it dies, and end all with us."""
    parent = os.getpid()
    stop = _stop_on_signals()
    children: set[int] = set()
    while not stop.is_set():
        while len(children) < count:
            child = os.fork()
            if child == 0:
                stop = _stop_on_signals()
                listen(lambda stop=stop: stop.is_set() or os.getppid() != parent)  # type: ignore[misc]
                os._exit(0)
            children.add(child)
        stop.wait(WATCH_SECONDS)
        children -= _dead(children)
    for child in children:
        os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS + WATCH_SECONDS
    while children and time.monotonic() < deadline:
        children -= _dead(children)
        time.sleep(0.05)
    for child in children:
        os.kill(child, signal.SIGKILL)


def _dead(children: set[int]) -> set[int]:
    dead = {child for child in children if os.waitpid(child, os.WNOHANG)[0]}
    if dead:
        logger.error("listener processes ended", extra={"processes": sorted(dead)})
    return dead


def _end(servers: list[Any]) -> None:
    for server in servers:
        server.shutdown()
    deadline = time.monotonic() + GRACE_SECONDS
    while any(server.active_associations for server in servers) and time.monotonic() < deadline:
        time.sleep(0.1)
