"""DIMSE command sets (PS3.7 §6.3.1 and Annex E) by hand, for the messages that there are thousands of."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from django.conf import settings
from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.dimse_primitives import C_STORE

from studies.archive.objects import new_staging_path

LONG_FORM = {b"OB", b"UN"}
COMMAND_GROUP_LENGTH = 0x0000
AFFECTED_SOP_CLASS, COMMAND_FIELD, MESSAGE_ID, RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
PRIORITY, DATA_SET_TYPE, STATUS, ERROR_COMMENT = 0x0700, 0x0800, 0x0900, 0x0902
AFFECTED_SOP_INSTANCE, MOVE_ORIGINATOR, MOVE_ORIGINATOR_MESSAGE = 0x1000, 0x1030, 0x1031
REMAINING, COMPLETED, FAILED, WARNING = 0x1020, 0x1021, 0x1022, 0x1023
REQUESTED_SOP_CLASS, REQUESTED_SOP_INSTANCE, EVENT_TYPE, ACTION_TYPE = 0x0003, 0x1001, 0x1002, 0x1008
C_STORE_RQ, C_STORE_RSP, C_GET_RSP, C_MOVE_RSP = 0x0001, 0x8001, 0x8010, 0x8021
N_EVENT_REPORT_RQ, N_ACTION_RSP = 0x0100, 0x8130
LOWEST_PRIORITY = 2
NO_DATA_SET, HAS_DATA_SET = 0x0101, 0x0001


@dataclass(frozen=True)
class CommandElements:
    """The elements of a command set, by element number (the group is 0000)."""

    values: dict[int, bytes]

    def number(self, element: int) -> int | None:
        """Give a US value."""
        value = self.values.get(element, b"")
        return int.from_bytes(value[:2], "little") if len(value) >= 2 else None

    def text(self, element: int) -> str:
        """Give a UI or AE value."""
        return self.values.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace").strip()


def command_elements(encoded: bytes) -> CommandElements:
    """Read a command set, implicit VR little endian; what is cut off is left out."""
    values: dict[int, bytes] = {}
    position = 0
    while position + 8 <= len(encoded):
        group, element, length = struct.unpack_from("<HHI", encoded, position)
        position += 8
        if group == 0 and position + length <= len(encoded):
            values[element] = encoded[position : position + length]
        position += length
    return CommandElements(values)


def _uid(value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    return raw + b"\0" if len(raw) % 2 else raw


def _text(value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    return raw + b" " if len(raw) % 2 else raw


def _short(value: int) -> bytes:
    return struct.pack("<H", value)


def encode_command(values: dict[int, bytes]) -> bytes:
    """Give a command set with its group length."""
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in sorted(values.items()))
    return struct.pack("<HHII", 0, COMMAND_GROUP_LENGTH, 4, len(body)) + body


def encoded_response(primitive: Any) -> bytes | None:
    """Give the command set of a C-STORE response (PS3.7 Table 9.3-2); None for any other message."""
    if not isinstance(primitive, C_STORE) or primitive.MessageIDBeingRespondedTo is None:
        return None
    values = {
        COMMAND_FIELD: _short(C_STORE_RSP),
        RESPONDED_TO: _short(primitive.MessageIDBeingRespondedTo),
        DATA_SET_TYPE: _short(NO_DATA_SET),
        STATUS: _short(primitive.Status or 0),
    }
    if primitive.AffectedSOPClassUID:
        values[AFFECTED_SOP_CLASS] = _uid(primitive.AffectedSOPClassUID)
    if primitive.AffectedSOPInstanceUID:
        values[AFFECTED_SOP_INSTANCE] = _uid(primitive.AffectedSOPInstanceUID)
    if getattr(primitive, "ErrorComment", None):
        values[ERROR_COMMENT] = _text(str(primitive.ErrorComment)[:64])
    return encode_command(values)


def retrieve_response(
    *,
    command_field: int,
    sop_class_uid: str,
    message_id: int,
    status: int,
    counts: dict[int, int],
    comment: str = "",
    has_identifier: bool = False,
) -> bytes:
    """Give the command set of a C-GET or C-MOVE response (PS3.7 Tables 9.3-7 and 9.3-10)."""
    values = {
        AFFECTED_SOP_CLASS: _uid(sop_class_uid),
        COMMAND_FIELD: _short(command_field),
        RESPONDED_TO: _short(message_id),
        DATA_SET_TYPE: _short(HAS_DATA_SET if has_identifier else NO_DATA_SET),
        STATUS: _short(status),
        **{element: _short(min(count, 0xFFFF)) for element, count in counts.items()},
    }
    if comment:
        values[ERROR_COMMENT] = _text(comment[:64])
    return encode_command(values)


def action_response(
    *, sop_class_uid: str, sop_instance_uid: str, message_id: int, action_type: int, status: int, comment: str = ""
) -> bytes:
    """Give the command set of an N-ACTION response (PS3.7 Table 10.3-8)."""
    values = {
        AFFECTED_SOP_CLASS: _uid(sop_class_uid),
        COMMAND_FIELD: _short(N_ACTION_RSP),
        RESPONDED_TO: _short(message_id),
        DATA_SET_TYPE: _short(NO_DATA_SET),
        STATUS: _short(status),
        AFFECTED_SOP_INSTANCE: _uid(sop_instance_uid),
        ACTION_TYPE: _short(action_type),
    }
    if comment:
        values[ERROR_COMMENT] = _text(comment[:64])
    return encode_command(values)


def event_report(*, sop_class_uid: str, sop_instance_uid: str, message_id: int, event_type: int) -> bytes:
    """Give the command set of an N-EVENT-REPORT request (PS3.7 Table 10.3-1)."""
    return encode_command(
        {
            AFFECTED_SOP_CLASS: _uid(sop_class_uid),
            COMMAND_FIELD: _short(N_EVENT_REPORT_RQ),
            MESSAGE_ID: _short(message_id),
            DATA_SET_TYPE: _short(HAS_DATA_SET),
            AFFECTED_SOP_INSTANCE: _uid(sop_instance_uid),
            EVENT_TYPE: _short(event_type),
        }
    )


def store_request(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    message_id: int,
    priority: int,
    originator: tuple[str, int] | None,
) -> bytes:
    """Give the command set of a C-STORE request (PS3.7 Table 9.3-1)."""
    values = {
        AFFECTED_SOP_CLASS: _uid(sop_class_uid),
        COMMAND_FIELD: _short(C_STORE_RQ),
        MESSAGE_ID: _short(message_id),
        PRIORITY: _short(priority),
        DATA_SET_TYPE: _short(HAS_DATA_SET),
        AFFECTED_SOP_INSTANCE: _uid(sop_instance_uid),
    }
    if originator is not None:
        values[MOVE_ORIGINATOR] = _text(originator[0])
        values[MOVE_ORIGINATOR_MESSAGE] = _short(originator[1])
    return encode_command(values)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Give the preamble and file meta information (PS3.10 §7.1) of a received data set."""
    elements = [
        (0x0001, b"OB", b"\0\1"),
        (0x0002, b"UI", _uid(sop_class_uid)),
        (0x0003, b"UI", _uid(sop_instance_uid)),
        (0x0010, b"UI", _uid(transfer_syntax_uid)),
        (0x0012, b"UI", _uid(PYNETDICOM_IMPLEMENTATION_UID)),
        (0x0013, b"SH", _text(PYNETDICOM_IMPLEMENTATION_VERSION)),
    ]
    body = b"".join(
        struct.pack("<HH2sHI", 2, element, vr, 0, len(value)) + value
        if vr in LONG_FORM
        else struct.pack("<HH2sH", 2, element, vr, len(value)) + value
        for element, vr, value in elements
    )
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


class TooLarge(OSError):
    """An object has more bytes than ATRIUM_LARGEST_INSTANCE allows."""


class IncomingObject:
    """An object that's being received: a Part 10 file in the staging folder, hashed as it grows.

    Where there's no room or the object is too large, ``failure`` says so, what came is removed at once, the rest is
    read and thrown away, and the sender is told.
    """

    def __init__(self, elements: CommandElements, context_id: int, transfer_syntax_uid: str) -> None:
        self.context_id = context_id
        self.elements = elements
        self.path: Path = new_staging_path()
        meta = file_meta(elements.text(AFFECTED_SOP_CLASS), elements.text(AFFECTED_SOP_INSTANCE), transfer_syntax_uid)
        self.failure: OSError | None = None
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.file = -1
        try:
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._add(meta)
        except OSError as error:
            self._fail(error)

    def write(self, fragment: memoryview) -> None:
        """Add a fragment of the data set."""
        if self.failure is not None:
            return
        try:
            if self.size + len(fragment) > settings.ATRIUM.largest_instance:
                raise TooLarge
            self._add(fragment)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Give back what the part that came takes of the disk: the rest may be long in coming."""
        self.failure = error
        self.discard()

    def _add(self, data: bytes | memoryview) -> None:
        written = 0
        while written < len(data):
            written += os.write(self.file, data[written:])
        self.size += written
        self.sha256.update(data)

    def close(self) -> None:
        """End the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def discard(self) -> None:
        """Forget a file that broke off."""
        self.close()
        self.path.unlink(missing_ok=True)

    def primitive(self) -> C_STORE:
        """Give the request as pynetdicom's services know it, its data set in the file."""
        request = C_STORE()
        request.MessageID = self.elements.number(MESSAGE_ID)
        request.AffectedSOPClassUID = UID(self.elements.text(AFFECTED_SOP_CLASS))
        request.AffectedSOPInstanceUID = UID(self.elements.text(AFFECTED_SOP_INSTANCE))
        request.Priority = min(self.elements.number(PRIORITY) or 0, LOWEST_PRIORITY)
        request.DataSet = BytesIO()
        request._context_id = self.context_id
        request._dataset_path = self.path
        request.atrium_incoming = self
        return request
