"""Storage as SCU, sub-operations of C-GET and C-MOVE included (PS3.4 Annex B, §C.4.2, §C.4.3): bytes to the network.

An object goes as it lies in storage when the peer takes its transfer syntax, without being parsed or written anew; else
it's transcoded, losslessly unless the node allows loss.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from studies.archive import objects
from studies.archive.errors import NotTranscodable, ObjectMissing
from studies.archive.transcoding import can_transcode, transcoded_file
from studies.dimse.calling import MOST_CONTEXTS
from studies.dimse.messages import store_request
from studies.dimse.scp import SUCCESS
from studies.dimse.transport import TunedAssociation
from studies.models import Instance

logger = logging.getLogger("atrium.dimse")
CHUNK = 1 << 20
MEDIUM_PRIORITY = 0
META_GROUP_LENGTH_END = 144  # preamble, prefix and (0002,0000) with its value (PS3.10 §7.1)
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
# PS3.4 Table B.2-1: warnings say that the object is kept.
WARNINGS = range(0xB000, 0xC000)


class AssociationLost(Exception):
    """The peer aborted, or didn't answer in time."""


@dataclass
class Counts:
    """What became of the sub-operations (PS3.7 §9.1.3.1)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warnings: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def note(self, sop_instance_uid: str, status: int | None) -> None:
        """Count one that ended with the status; None for one that couldn't be sent."""
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif status is not None and is_kept(status):
            self.warnings += 1
        else:
            self.failed += 1
            self.failed_uids.append(sop_instance_uid)


def contexts_for(
    kinds: Iterable[tuple[str, str]], *, preferred: Sequence[str] = (), allow_lossy: bool = False
) -> list[PresentationContext]:
    """Give what to propose for pairs of SOP class and stored transfer syntax: each as stored, then uncompressed.

    ``preferred`` are the only syntaxes that the node can read, where it's known not to tell the truth.
    """
    stored: dict[tuple[str, str], None] = {}
    others: dict[str, list[str]] = {}
    for sop_class, syntax in kinds:
        if not preferred or syntax in preferred:
            stored[sop_class, syntax] = None
        for target in preferred or NATIVE:
            wanted = others.setdefault(sop_class, [])
            if target not in wanted and can_transcode(syntax, target, allow_lossy=allow_lossy):
                wanted.append(target)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in stored]
    contexts += [build_context(sop_class, syntaxes) for sop_class, syntaxes in others.items() if syntaxes]
    return contexts[:MOST_CONTEXTS]


def context_for(
    contexts: Sequence[PresentationContext], instance: Instance, *, allow_lossy: bool = False
) -> PresentationContext | None:
    """Give the accepted context to send the instance by: as stored where possible; None where there's none."""
    own = [context for context in contexts if context.abstract_syntax == instance.sop_class_uid]
    for context in own:
        if context.transfer_syntax[0] == instance.transfer_syntax_uid:
            return context
    for context in own:
        if can_transcode(instance.transfer_syntax_uid, context.transfer_syntax[0], allow_lossy=allow_lossy):
            return context
    return None


def data_set(instance: Instance, transfer_syntax_uid: str, *, allow_lossy: bool = False) -> Iterator[bytes]:
    """Give the data set's bytes in the syntax, corrected, without file meta information.

    Raises ObjectMissing, NotTranscodable.
    """
    if transfer_syntax_uid == instance.transfer_syntax_uid and not instance.series.study.corrections:
        length = instance.object_length - instance.dataset_offset
        return objects.stream_range(instance, instance.dataset_offset, length)
    return without_meta(transcoded_file(instance, transfer_syntax_uid, allow_lossy=allow_lossy))


def without_meta(file: Iterable[bytes]) -> Iterator[bytes]:
    """Give a Part 10 file's data set."""
    chunks = iter(file)
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= META_GROUP_LENGTH_END:
            break
    (length,) = struct.unpack_from("<I", head, META_GROUP_LENGTH_END - 4)
    skipped = META_GROUP_LENGTH_END + length
    while len(head) < skipped:
        head += next(chunks)
    if len(head) > skipped:
        yield head[skipped:]
    yield from chunks


def send(
    association: TunedAssociation,
    instance: Instance,
    *,
    message_id: int,
    contexts: Sequence[PresentationContext],
    originator: tuple[str, int] | None = None,
    allow_lossy: bool = False,
    priority: int = MEDIUM_PRIORITY,
) -> int | None:
    """Send one instance by C-STORE and give the peer's status; None where it can't be sent, for want of a context.

    ``originator`` is the AE title and message ID of the C-MOVE (PS3.7 Table 9.1-1). Raises AssociationLost.
    """
    context = context_for(contexts, instance, allow_lossy=allow_lossy)
    if context is None or context.context_id is None:
        return None
    try:
        chunks = data_set(instance, context.transfer_syntax[0], allow_lossy=allow_lossy)
        # What can't be read or transcoded shows before anything is sent.
        first = next(chunks)
    except (ObjectMissing, NotTranscodable, StopIteration) as error:
        logger.warning("an instance can't be sent: %s", type(error).__name__)
        return None
    answer = send_data(
        association,
        context.context_id,
        store_request(
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            message_id=message_id,
            priority=priority,
            originator=originator,
        ),
        _led_by(first, chunks),
    )
    return int(answer.Status)


def is_kept(status: int) -> bool:
    """Say whether the peer has the object."""
    return status == SUCCESS or status in WARNINGS


def send_data(association: TunedAssociation, context_id: int, command: bytes, chunks: Iterable[bytes]) -> C_STORE:
    """Send a C-STORE request and give its response, which has a status. Raises AssociationLost."""
    try:
        association.dimse.send_command(context_id, command, chunks)
    except (ObjectMissing, NotTranscodable) as error:
        # In the middle of a message there's no other way to take it back.
        association.abort()
        raise AssociationLost("an object broke off") from error
    answer = association.dimse.next_response()
    if not isinstance(answer, C_STORE) or answer.Status is None:
        raise AssociationLost("no answer to C-STORE")
    if is_kept(answer.Status):
        association.traffic.sent += 1
    return answer


def _led_by(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
