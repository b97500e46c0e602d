"""An association that serves what arrives when it arrives, and how one is requested."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pynetdicom import evt
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from studies.dimse.transport.exchange import TunedDimse
from studies.dimse.transport.sockets import LARGEST_PDU, TunedSocket
from studies.dimse.transport.upper_layer import IDLE_SECONDS, TunedProvider

logger = logging.getLogger("atrium.dimse")


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Request:
    """A request that its service answers by itself, message by message."""

    association: TunedAssociation
    message: Any
    context: PresentationContext

    @property
    def is_cancelled(self) -> bool:
        """Say whether the peer has sent C-CANCEL for this request (PS3.7 §9.3.2.3)."""
        return self.message.MessageID in self.association.dimse.cancel_req


@dataclass
class Traffic:
    """How many objects an association has brought, how many of these weren't kept, and how many it took out."""

    stored: int = 0
    failed: int = 0
    sent: int = 0


class TunedAssociation(Association):
    """An association that sleeps until there's something to serve.

    ``pulse`` is called often while it works, from the thread that works; whoever wants to follow it puts it there.
    """

    acse_timeout: float | None
    network_timeout: float | None
    is_established: bool

    def __init__(self, ae: ApplicationEntity, mode: str) -> None:
        self._activity = threading.Event()
        self.traffic = Traffic()
        self.pulse: Callable[[], None] = _nothing
        super().__init__(ae, mode)
        acse_timeout, network_timeout = self.acse_timeout, self.network_timeout
        self.dul = TunedProvider(self, self.wake)
        self.dimse = TunedDimse(self, self.wake)
        self.acse_timeout, self.network_timeout = acse_timeout, network_timeout

    def wake(self) -> None:
        """Let the reactor look at what has arrived."""
        self._activity.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the reactor from taking messages, so that the calling thread may ask and wait for answers."""
        self._reactor_checkpoint.clear()
        try:
            while not self._is_paused and self.is_alive():
                time.sleep(0.001)
            yield
        finally:
            self._reactor_checkpoint.set()

    def kill(self) -> None:
        """End the association's threads."""
        self._kill = True
        self.wake()
        super().kill()

    def run_reactor(self) -> None:
        """Serve the association to its end, whatever that is, and then let the server know."""
        try:
            super().run_reactor()
        finally:
            ended = getattr(self._server, "ended", None)
            if ended is not None:
                ended(self)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Hand a request to the service that answers it by itself, others to the library's service classes."""
        context = self._accepted_cx.get(context_id)
        handlers = getattr(self._server, "requests", {})
        handler = handlers.get((type(msg), str(context.abstract_syntax))) if context is not None else None
        if handler is None or not msg.is_valid_request:
            super()._serve_request(msg, context_id)
            return
        self.dimse.cancel_req = {}
        self._is_paused = True
        try:
            handler(Request(self, msg, context))
        except Exception:
            logger.exception("a request failed")
            self.abort()
        self._is_paused = False
        self.dimse.cancel_req = {}

    def _run_reactor(self) -> None:
        """Serve messages, release, abort and time-out, as the library does, but only when there's something."""
        self._is_paused = False
        rest = getattr(self._server, "rested", _nothing)
        while not self._kill:
            self._is_paused = True
            rest()
            self._activity.wait(IDLE_SECONDS)
            self._activity.clear()
            if self.is_acceptor:
                self.pulse()
            # Whoever uses this association as SCU from another thread takes the messages meanwhile.
            while True:
                self._reactor_checkpoint.wait()
                self._is_paused = False
                if self._reactor_checkpoint.is_set():
                    break
                self._is_paused = True
            context_id, message = self.dimse.get_msg(block=False)
            while message is not None and not self._kill:
                self._serve_request(message, context_id)
                context_id, message = self.dimse.get_msg(block=False)
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released, self.is_established = True, False
                evt.trigger(self, evt.EVT_RELEASED, {})
                self.kill()
                return
            if self.acse.is_aborted():
                self.dul.receive_pdu(wait=False)
                self.is_aborted, self.is_established = True, False
                evt.trigger(self, evt.EVT_ABORTED, {})
                self.kill()
                return
            if not self.dul.is_alive():
                evt.trigger(self, evt.EVT_ABORTED, {})
                self.kill()
                return
            if self.dul.idle_timer_expired():
                self.abort()
                self.kill()
                return


def associate(
    ae: ApplicationEntity,
    host: str,
    port: int,
    ae_title: str,
    contexts: list[PresentationContext],
    *,
    tls: tuple[ssl.SSLContext, str] | None = None,
    negotiation: Iterator[Any] | tuple[Any, ...] = (),
    handlers: list[tuple[Any, Callable[..., Any]]] | None = None,
) -> TunedAssociation:
    """Request an association as ``AE.associate`` does; look at ``is_established`` of what comes back."""
    association = TunedAssociation(ae, MODE_REQUESTOR)
    association.name = f"RequestorThread@{datetime.now():%Y%m%d%H%M%S}"
    remote = AddressInformation.from_addr_port(host, port)
    local = AddressInformation.from_tuple(("::0" if remote.is_ipv6 else "", 0))
    connection = TunedSocket(association, address=local)
    connection.prepare()
    if tls is not None:
        connection.tls_args = tls
    association.set_socket(connection)
    association.acceptor.ae_title = ae_title
    association.acceptor.address_info = remote
    requestor = association.requestor
    requestor.address_info = local
    requestor.ae_title = ae.ae_title
    requestor.maximum_length = LARGEST_PDU
    requestor.implementation_class_uid = ae.implementation_class_uid
    requestor.implementation_version_name = ae.implementation_version_name
    for item in negotiation:
        requestor.add_negotiation_item(item)
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    requestor.requested_contexts = contexts
    for event, handler in handlers or ():
        association.bind(event, handler)
    association.request()
    if association.is_established:
        association.start()
    return association
