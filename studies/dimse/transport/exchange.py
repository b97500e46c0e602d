"""The DIMSE provider (PS3.7): messages from fragments and fragments from messages, objects by way of files."""

from __future__ import annotations

import logging
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import _MESSAGE_TYPES, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, N_EVENT_REPORT
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import A_RELEASE, P_DATA

from studies.dimse.messages import IncomingObject, command_elements, encoded_response
from studies.dimse.transport.sockets import LARGEST_PDU
from studies.dimse.transport.upper_layer import IDLE_SECONDS, P_DATA_TF, PDV_HEADER, WakingQueue

logger = logging.getLogger("atrium.dimse")
LARGEST_MESSAGE = 64 << 20  # of a data set that isn't an object to be stored
NO_DATA_SET = 0x0101
C_STORE_RQ = 0x0001


class TunedDimse(DIMSEServiceProvider):
    """The DIMSE provider (PS3.7): puts messages together from fragments, objects to be stored in a file."""

    def __init__(self, association: Association, wake: Callable[[], None]) -> None:
        super().__init__(association)
        self.msg_queue = WakingQueue(wake)
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
        try:
            request = incoming.primitive()
        except Exception:
            # A UID that a request can't have: the association ends, and what came with it goes.
            incoming.discard()
            raise
        self.msg_queue.put((incoming.context_id, request))

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
            self.assoc.pulse()
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
                if item[1] is None:  # so the library tells that the association is over
                    return None
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
