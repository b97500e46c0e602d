"""The DUL service provider (PS3.8 §7), which sleeps until there is work, and takes the short way with P-DATA."""

from __future__ import annotations

import logging
import os
import queue
import select
import struct
import threading
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import P_DATA

from studies.dimse.transport.sockets import LARGEST_PDU, TunedSocket

logger = logging.getLogger("atrium.dimse")
IDLE_SECONDS = 0.5  # how often timers are looked at while nothing happens
LARGEST_ASSOCIATE_PDU = 1 << 20
P_DATA_TF = 0x04
PDU_TYPES = range(0x01, 0x08)
PDV_HEADER = 6
DATA_TRANSFER, AWAITING_RELEASE = "Sta6", "Sta7"


class WakingQueue(queue.Queue):
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

    def __init__(self, association: Association, wake: Callable[[], None]) -> None:
        super().__init__(association)
        self._wake_association = wake
        self._wake_file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.Lock()
        self._buffer = bytearray(1 << 17)
        self.event_queue = WakingQueue(self.wake)
        self.to_provider_queue = WakingQueue(self.wake)
        self.to_user_queue = WakingQueue(wake)
        self.bytes_received = self.bytes_sent = 0

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
            self._wake_association()

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
                self.bytes_sent += len(value)
            self._idle_timer.restart()
            return
        super().send_pdu(primitive)

    def send_encoded(self, pdus: bytes) -> None:
        """Send P-DATA-TF PDUs that are encoded already; in TLS by the reactor's own thread."""
        connected = self.socket
        assert isinstance(connected, TunedSocket)
        self.bytes_sent += len(pdus)
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
