"""pynetdicom's hot loops, arranged anew: the one place where the library's inner parts are overridden.

pynetdicom 3.0 polls: each association runs two threads that sleep a millisecond between looks, reads the socket 4 kB at
a time, copies each PDU four times and opens a temporary file through pydicom for each object. What is changed here, and
why (figures in docs/performance.md):

* ``TunedSocket`` reads into one buffer, whole PDUs at a time, and gives a PDU a deadline, so that a peer that trickles
  bytes is dropped (the library's ARTIM timer isn't looked at while it waits for the rest of a PDU).
* ``TunedProvider`` (the DUL service provider, PS3.8 §7) sleeps in ``poll`` until the socket or another thread has work.
  P-DATA in state Sta6 goes straight to the DIMSE provider and straight out to the socket; every other event passes
  through the library's state machine as before. PDUs longer than what was negotiated are refused (PS3.8 §9.3.1).
* ``TunedDimse`` writes a C-STORE's fragments to the staging file as they come, and hashes them on the way.
* ``TunedAssociation`` serves what arrives when it arrives, instead of looking a thousand times a second.

All are subclasses; the library's files are untouched, and an association without TLS or with it behaves the same.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR, MODE_REQUESTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import _MESSAGE_TYPES, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, N_EVENT_REPORT
from pynetdicom.dsutils import decode
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import A_RELEASE, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from studies.dimse.messages import IncomingObject, command_elements, encoded_response

logger = logging.getLogger("atrium.dimse")

PDU_SECONDS = 60.0  # a PDU that has begun must be whole within this time
IDLE_SECONDS = 0.5  # how often timers are looked at while nothing happens
SOCKET_BUFFER = 1 << 20
LARGEST_PDU = 1 << 20  # what we announce as maximum length received (PS3.8 D.1)
LARGEST_ASSOCIATE_PDU = 1 << 20
LARGEST_MESSAGE = 64 << 20  # of a data set that isn't an object to be stored
P_DATA_TF, A_ABORT = 0x04, 0x07
BACKLOG = 128
PDU_TYPES = range(0x01, 0x08)
PDV_HEADER = 6
DATA_TRANSFER, AWAITING_RELEASE = "Sta6", "Sta7"
NO_DATA_SET = 0x0101
C_STORE_RQ = 0x0001


class TunedSocket(AssociationSocket):
    """A socket that reads and sends in large pieces, within a deadline."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sending = threading.Lock()

    def prepare(self) -> None:
        """Send small messages at once (delayed ACKs otherwise cost 40 ms each), and hold a whole slice in flight."""
        if self.socket is not None:
            prepare(self.socket)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``; fewer when the peer closed. Raises TimeoutError when they don't come in time."""
        data = bytearray(nr_bytes)
        with memoryview(data) as view:
            read = self.recv_into(view)
        return data if read == nr_bytes else data[:read]

    def recv_into(self, view: memoryview) -> int:
        """Fill the view; give how much was read. Raises TimeoutError when the rest doesn't come in time."""
        assert self.socket is not None
        deadline = time.monotonic() + PDU_SECONDS
        read, wanted = 0, len(view)
        while read < wanted:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("the peer sends too slowly")
            self.socket.settimeout(remaining)
            count = self.socket.recv_into(view[read:])
            if not count:
                break
            read += count
            # Linux goes back to delayed ACKs by itself; a sender with Nagle's algorithm then waits 40 ms for ours.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return read

    def send(self, bytestream: bytes) -> None:
        """Send all; a broken connection becomes event Evt17."""
        try:
            assert self.socket is not None
            with self.sending:
                self.socket.settimeout(PDU_SECONDS)
                self.socket.sendall(bytestream)
        except (OSError, AssertionError):
            self.event_queue.put("Evt17")

    @property
    def is_encrypted(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket)

    @property
    def has_decrypted(self) -> bool:
        """Say whether TLS holds bytes that poll doesn't know of."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0


def prepare(connected: socket.socket) -> None:
    """Set what every connection of ours needs."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connected.setsockopt(socket.SOL_SOCKET, buffer, SOCKET_BUFFER)


class _WakingQueue(queue.Queue):
    """A queue that tells when something was put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self.wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self.wake()


class TunedProvider(DULServiceProvider):
    """The upper layer: waits without polling, and takes the short way with P-DATA."""

    _kill_thread: bool

    def __init__(self, association: TunedAssociation) -> None:
        super().__init__(association)
        self._wake_file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.Lock()
        self._buffer = bytearray(1 << 17)
        self.event_queue = _WakingQueue(self.wake)
        self.to_provider_queue = _WakingQueue(self.wake)
        self.to_user_queue = _WakingQueue(association.wake)
        self.bytes_received = 0

    def wake(self) -> None:
        """Let the reactor look at its queues."""
        with self._wake_lock:
            if self._wake_file >= 0:
                os.eventfd_write(self._wake_file, 1)

    def kill_dul(self) -> None:
        """Stop the reactor."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """Stop the reactor if it's idle; say whether it was."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        if threading.current_thread() is not self:
            self.join(IDLE_SECONDS * 4)
        return True

    def run_reactor(self) -> None:
        """Handle events until the association is over."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            while not self._kill_thread:
                self._turn()
        except InvalidEventError:
            # The peer did what its state forbids, or closed a connection that was closed already.
            logger.info("the upper layer ended", extra={"state": self.state_machine.current_state})
        except Exception:
            logger.exception("the upper layer failed")
            self.assoc.is_aborted, self.assoc.is_established = True, False
            self.assoc._kill = True
        finally:
            self._kill_thread = True
            if isinstance(self.socket, TunedSocket) and self.socket.socket is not None:
                self.socket._shutdown_socket()
            with self._wake_lock:
                os.close(self._wake_file)
                self._wake_file = -1
            self.assoc.wake()

    def _turn(self) -> None:
        if self.artim_timer.expired:
            self.artim_timer.stop()
            self.event_queue.put("Evt18")
        if not self._process_recv_primitive() and self._is_transport_event():
            self._idle_timer.restart()
        try:
            event = self.event_queue.get(block=False)
        except queue.Empty:
            self._wait()
        else:
            self.state_machine.do_action(event)

    def _wait(self) -> None:
        connected = self.socket
        poll = select.poll()
        poll.register(self._wake_file, select.POLLIN)
        if isinstance(connected, TunedSocket) and connected.socket is not None and connected._is_connected:
            if connected.has_decrypted:
                return
            if (descriptor := connected.socket.fileno()) >= 0:
                poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(IDLE_SECONDS * 1000):
            if descriptor == self._wake_file:
                os.eventfd_read(self._wake_file)

    def send_pdu(self, primitive: Any) -> None:
        """Send a primitive; P-DATA at once from the caller's thread, where the connection can bear two threads."""
        connected = self.socket
        if (
            isinstance(primitive, P_DATA)
            and isinstance(connected, TunedSocket)
            and not connected.is_encrypted
            and self.state_machine.current_state == DATA_TRANSFER
            and not self.to_provider_queue.queue
        ):
            for context_id, value in primitive.presentation_data_value_list:
                connected.send(struct.pack(">BxIIB", P_DATA_TF, len(value) + 5, len(value) + 1, context_id) + value)
            self._idle_timer.restart()
            return
        super().send_pdu(primitive)

    def send_encoded(self, pdus: bytes) -> None:
        """Send P-DATA-TF PDUs that are encoded already; in TLS by the reactor's own thread."""
        connected = self.socket
        assert isinstance(connected, TunedSocket)
        if not connected.is_encrypted:
            connected.send(pdus)
        else:
            # OpenSSL's connection may not be read and written by two threads at once.
            done = threading.Event()
            self.to_provider_queue.put(_Encoded(pdus, done))
            while not done.wait(IDLE_SECONDS) and self.is_alive():
                pass
        self._idle_timer.restart()

    def _process_recv_primitive(self) -> bool:
        waiting = self.to_provider_queue.queue
        if waiting and isinstance(waiting[0], _Encoded):
            encoded = self.to_provider_queue.get(block=False)
            assert isinstance(self.socket, TunedSocket)
            if self.state_machine.current_state == DATA_TRANSFER:
                self.socket.send(encoded.pdus)
            encoded.done.set()
            return False
        return bool(super()._process_recv_primitive())

    def _read_pdu_data(self) -> None:
        """Read one PDU (PS3.8 §9.3.1). P-DATA goes to the DIMSE provider; the rest becomes events."""
        connected = self.socket
        assert isinstance(connected, TunedSocket)
        try:
            header = connected.recv(PDV_HEADER)
            if len(header) < PDV_HEADER:
                self.event_queue.put("Evt17")
                return
            kind, length = struct.unpack(">BxI", header)
            if kind not in PDU_TYPES or length > (LARGEST_PDU if kind == P_DATA_TF else LARGEST_ASSOCIATE_PDU):
                logger.warning("invalid PDU", extra={"pdu_type": kind, "pdu_length": length})
                self.event_queue.put("Evt19")
                return
            if kind == P_DATA_TF and self.state_machine.current_state in {DATA_TRANSFER, AWAITING_RELEASE}:
                self._receive_p_data(connected, length)
                return
            body = connected.recv(length)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return
        if len(body) < length:
            self.event_queue.put("Evt17")
            return
        try:
            pdu, event = self._decode_pdu(header + body)
        except Exception as error:  # the library raises what it will on garbage
            logger.warning("invalid PDU: %s", type(error).__name__)
            self.event_queue.put("Evt19")
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _receive_p_data(self, connected: TunedSocket, length: int) -> None:
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        with memoryview(self._buffer) as buffer, buffer[:length] as body:
            if connected.recv_into(body) < length:
                self.event_queue.put("Evt17")
                return
            self.bytes_received += length
            position = 0
            while position < length:
                if length - position < PDV_HEADER:
                    self.event_queue.put("Evt19")
                    return
                item_length, context_id, control = struct.unpack_from(">IBB", body, position)
                end = position + 4 + item_length
                if item_length < 2 or end > length:
                    self.event_queue.put("Evt19")
                    return
                with body[position + PDV_HEADER : end] as fragment:
                    if not self.assoc.dimse.receive_fragment(context_id, control, fragment):
                        self.event_queue.put("Evt19")
                        return
                position = end


class _Encoded:
    """PDUs on their way to the reactor's thread."""

    def __init__(self, pdus: bytes, done: threading.Event) -> None:
        self.pdus, self.done = pdus, done


class TunedDimse(DIMSEServiceProvider):
    """The DIMSE provider (PS3.7): puts messages together from fragments, objects to be stored in a file."""

    def __init__(self, association: TunedAssociation) -> None:
        super().__init__(association)
        self.msg_queue = _WakingQueue(association.wake)
        self._command = bytearray()
        self._message: DIMSEMessage | None = None
        self._context_id = 0
        self.incoming: IncomingObject | None = None

    def receive_fragment(self, context_id: int, control: int, fragment: memoryview) -> bool:
        """Take one fragment (PS3.8 E.2); say whether it was allowed where it came."""
        is_last = bool(control & 2)
        if control & 1:
            if self.incoming is not None or self._message is not None:
                return False
            self._command += fragment
            if len(self._command) > LARGEST_MESSAGE:
                return False
            return not is_last or self._begin(context_id)
        if context_id != self._context_id:
            return False
        if self.incoming is not None:
            self.incoming.write(fragment)
            if is_last:
                self._deliver_object()
            return True
        if self._message is None:
            return False
        data_set = self._message.data_set
        assert data_set is not None
        if data_set.tell() + len(fragment) > LARGEST_MESSAGE:
            return False
        data_set.write(fragment)
        return not is_last or self._deliver()

    def _begin(self, context_id: int) -> bool:
        """Look at a whole command set: is a data set to follow, and is it an object to be stored?"""
        encoded, self._command = bytes(self._command), bytearray()
        self._context_id = context_id
        elements = command_elements(encoded)
        kind = elements.number(0x0100)
        if kind not in _MESSAGE_TYPES:
            return False
        has_data_set = elements.number(0x0800) != NO_DATA_SET
        if kind == C_STORE_RQ and has_data_set:
            context = self.assoc._accepted_cx.get(context_id)
            if context is None:
                return False
            self.incoming = IncomingObject(elements, context_id, str(context.transfer_syntax[0]))
            return True
        message = DIMSEMessage()
        message.context_id = context_id
        message.command_set = decode(BytesIO(encoded), True, True)
        message.__class__ = _MESSAGE_TYPES[kind][1]
        self._message = message
        return has_data_set or self._deliver()

    def _deliver_object(self) -> None:
        incoming, self.incoming = self.incoming, None
        assert incoming is not None
        incoming.close()
        self.msg_queue.put((incoming.context_id, incoming.primitive()))

    def _deliver(self) -> bool:
        message, self._message = self._message, None
        assert message is not None
        try:
            primitive = message.message_to_primitive()
        except Exception as error:  # the library raises what it will on values that a parameter may not have
            logger.warning("invalid message: %s", type(error).__name__)
            return False
        if isinstance(primitive, C_CANCEL):
            if len(self.cancel_req) < 10:
                self.cancel_req[primitive.MessageIDBeingRespondedTo] = primitive
        elif isinstance(primitive, N_EVENT_REPORT) and primitive.is_valid_request:
            # As in the library: the association's own thread may be waiting for another answer.
            serve = threading.Thread(target=self.assoc._serve_request, args=(primitive, message.context_id))
            serve.start()
        else:
            self.msg_queue.put((message.context_id, primitive))
        return True

    def send_command(self, context_id: int, command: bytes, data: Iterable[bytes] = ()) -> None:
        """Send an encoded command set and, in as many PDUs as the peer's limit asks for, its data set's bytes.

        The data go as they come: of an object of any size, one chunk is in memory. Raises what ``data`` raises, with
        the message cut off; the association must be aborted then.
        """
        largest = min(self.maximum_pdu_size or LARGEST_PDU, LARGEST_PDU) - PDV_HEADER
        self.dul.send_encoded(_pdus(context_id, command, largest, is_command=True, is_end=True)[0])
        waiting = b""
        for chunk in data:
            if waiting:
                pdus, waiting = _pdus(context_id, waiting, largest, is_command=False, is_end=False)
                self.dul.send_encoded(pdus)
            waiting = waiting + chunk if waiting else chunk
        if waiting:
            self.dul.send_encoded(_pdus(context_id, waiting, largest, is_command=False, is_end=True)[0])

    def next_response(self, seconds: float | None = None) -> Any:
        """Wait for the peer's next response; None when the association ends or nothing comes in time.

        Requests that come meanwhile wait for their turn.
        """
        deadline = time.monotonic() + (seconds or self.dimse_timeout or 0)
        requests: list[Any] = []
        try:
            while time.monotonic() < deadline:
                try:
                    item = self.msg_queue.get(timeout=min(IDLE_SECONDS, seconds or IDLE_SECONDS))
                except queue.Empty:
                    is_leaving = isinstance(self.dul.peek_next_pdu(), A_RELEASE)
                    if is_leaving or not self.dul.is_alive() or self.assoc.acse.is_aborted():
                        return None
                    continue
                if item[1].MessageIDBeingRespondedTo is not None:
                    return item[1]
                requests.append(item)
            return None
        finally:
            for item in requests:
                self.msg_queue.put(item)

    def discard_unfinished(self) -> bool:
        """Remove what a broken-off association brought in part, and what it brought but nobody took; say if any."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            incoming.discard()
        while not self.msg_queue.empty():
            _, waiting = self.msg_queue.get(block=False)
            if isinstance(waiting, C_STORE) and waiting._dataset_path is not None:
                waiting._dataset_path.unlink(missing_ok=True)
        return incoming is not None

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; the answers to C-STORE without the library's detour over a data set."""
        encoded = encoded_response(primitive)
        if encoded is None:
            super().send_msg(primitive, context_id)
            return
        value = P_DATA()
        value.presentation_data_value_list.append((context_id, b"\x03" + encoded))
        self.dul.send_pdu(value)


def _pdus(context_id: int, data: bytes, largest: int, *, is_command: bool, is_end: bool) -> tuple[bytes, bytes]:
    """Give P-DATA-TF PDUs, each of one PDV (PS3.8 §9.3.5), and what is left where more is to come."""
    parts: list[bytes | memoryview] = []
    with memoryview(data) as view:
        whole = len(data) if is_end else (len(data) - 1) // largest * largest
        for start in range(0, whole, largest):
            piece = view[start : min(start + largest, whole)]
            control = (1 if is_command else 0) | (2 if is_end and start + len(piece) == whole else 0)
            parts.append(
                struct.pack(">BxIIBB", P_DATA_TF, len(piece) + PDV_HEADER, len(piece) + 2, context_id, control)
            )
            parts.append(piece)
        return b"".join(parts), bytes(view[whole:])


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


class TunedAssociation(Association):
    """An association that sleeps until there's something to serve."""

    acse_timeout: float | None
    network_timeout: float | None
    is_established: bool

    def __init__(self, ae: ApplicationEntity, mode: str) -> None:
        self._activity = threading.Event()
        super().__init__(ae, mode)
        acse_timeout, network_timeout = self.acse_timeout, self.network_timeout
        self.dul = TunedProvider(self)
        self.dimse = TunedDimse(self)
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
        while not self._kill:
            self._is_paused = True
            self._activity.wait(IDLE_SECONDS)
            self._activity.clear()
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


def listening_socket(host: str, port: int) -> socket.socket:
    """Give a socket that listens; processes forked from here on share it. Raises OSError when the port is taken."""
    information = AddressInformation.from_addr_port(host, port)
    listening = socket.socket(information.address_family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(information.as_tuple)
    listening.listen(BACKLOG)
    # Of several processes that see a connection, one gets it; the others mustn't wait for the next.
    listening.setblocking(False)
    return listening


class TunedServer(ThreadedAssociationServer):
    """Accepts connections of a socket that it may share, and lets no peer's TLS handshake hold up the others."""

    daemon_threads = True
    socket: Any

    def __init__(self, ae: ApplicationEntity, listening: socket.socket, *arguments: Any, **options: Any) -> None:
        self.listening = listening
        self.requests: dict[tuple[type, str], Callable[[Request], None]] = {}
        self.ended: Callable[[TunedAssociation], None] | None = None
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
