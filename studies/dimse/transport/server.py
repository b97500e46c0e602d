"""Accepting associations: on a socket that several processes may share, none held up by another's handshake."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from studies.dimse.transport.association import Request, TunedAssociation
from studies.dimse.transport.sockets import PDU_SECONDS, TunedSocket, prepare

logger = logging.getLogger("atrium.dimse")


class TunedRequestHandler(RequestHandler):
    """Makes a ``TunedAssociation`` of a connection."""

    def _create_association(self) -> TunedAssociation:
        association = TunedAssociation(self.ae, MODE_ACCEPTOR)
        association._server = self.server
        association.name = f"AcceptorThread@{datetime.now():%Y%m%d%H%M%S}"
        association.set_socket(TunedSocket(association, client_socket=self.request))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # Negotiation only reads them; copying some 200 contexts with 40 syntaxes each costs more than a C-STORE.
        acceptor.supported_contexts = self.server.contexts
        association.requestor.address_info = self.remote
        for event, handlers in self.server._handlers.items():
            if event.is_intervention:
                association.bind(event, *handlers)
            else:
                for handler, arguments in handlers:
                    association.bind(event, handler, arguments)
        return association


class TunedServer(ThreadedAssociationServer):
    """Accepts connections of a socket that it may share, and lets no peer's TLS handshake hold up the others."""

    daemon_threads = True
    socket: Any

    def __init__(self, ae: ApplicationEntity, listening: socket.socket, *arguments: Any, **options: Any) -> None:
        self.listening = listening
        self.requests: dict[tuple[type, str], Callable[[Request], None]] = {}
        self.ended: Callable[[TunedAssociation], None] | None = None
        # Called by an association's thread before it waits for what comes next.
        self.rested: Callable[[], None] = lambda: None
        super().__init__(ae, listening.getsockname(), *arguments, **options)

    def server_bind(self) -> None:
        assert self.socket is not None
        self.socket.close()
        self.socket = self.listening
        self.server_address = self.listening.getsockname()

    def server_activate(self) -> None:
        """Listen already."""

    def server_close(self) -> None:
        """Close our end only: the other processes go on accepting."""
        self.listening.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        connected, address = self.listening.accept()
        connected.setblocking(True)
        return connected, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        prepare(request)
        if self.ssl_context is not None:
            request.settimeout(PDU_SECONDS / 2)
            request = self.ssl_context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.warning("a connection failed before its association", exc_info=True)
