"""A node called by DIMSE: Storage, Query/Retrieve Study Root as SCU (PS3.4 Annexes B and C)."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, StoragePresentationContexts, _config, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from studies.dimse.client import RETURNED, FoundStudy, Progress, Query, Receiver, Stored
from studies.dimse.errors import BrokeOff, NodeRefuses, NodeUnavailable, NotSendable
from studies.dimse.models import Node
from studies.dimse.outgoing import Outgoing
from studies.dimse.tls import client_context
from studies.ingest.services import new_staging_path

CONNECT_SECONDS, ANSWER_SECONDS = 10, 120
MOST_CONTEXTS = 128
FALLBACK = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED = 7, 3

# Files go from disk to the network piece by piece, so that memory stays flat whatever their size.
_config.STORE_SEND_CHUNKED_DATASET = True


def our_title(node: Node) -> str:
    """Give the AE title by which we call this node."""
    return node.calling_ae_title or settings.ATRIUM.ae_title


def calling_ae(node: Node) -> AE:
    """Give an AE with our title and time-outs for this node."""
    ae = AE(our_title(node))
    ae.connection_timeout = CONNECT_SECONDS
    ae.acse_timeout = CONNECT_SECONDS
    ae.dimse_timeout = ae.network_timeout = ANSWER_SECONDS
    ae.maximum_pdu_size = 0
    return ae


@contextmanager
def associated(node: Node, ae: AE, **options: Any) -> Iterator[Association]:
    """Hold an association with the node. Raises NodeUnavailable with the reason in plain words."""
    try:
        tls = client_context(node)
    except OSError as error:
        raise NodeUnavailable(
            _("The certificate or key for TLS can't be read; see ATRIUM_DICOM_TLS_CERTIFICATE.")
        ) from error
    association = ae.associate(node.host, node.port, ae_title=node.ae_title, tls_args=tls, **options)
    if not association.is_established:
        raise NodeUnavailable(why_not_associated(node, association))
    connected = association.dul.socket
    if connected is not None and connected.socket is not None:
        connected.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield association
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


def why_not_associated(node: Node, association: Association) -> str:
    """Give in plain words why there's no association (PS3.8 §9.3.4)."""
    primitive = association.acceptor.primitive
    if association.is_rejected:
        diagnostic = getattr(primitive, "diagnostic", None)
        if getattr(primitive, "result_source", None) == 1 and diagnostic == CALLING_NOT_RECOGNISED:
            return _("The node doesn't know us. Enter the AE title “%(ours)s” and our address there.") % {
                "ours": our_title(node)
            }
        if getattr(primitive, "result_source", None) == 1 and diagnostic == CALLED_NOT_RECOGNISED:
            return _("The node has another AE title than “%(theirs)s”. Capital and small letters differ.") % {
                "theirs": node.ae_title
            }
        return _("The node refuses associations at the moment. Try again later, or ask its administrator.")
    if primitive is not None and not association.accepted_contexts and association.rejected_contexts:
        return _("The node answers, but offers nothing of what we ask of it.")
    try:
        socket.create_connection((node.host, node.port or 0), CONNECT_SECONDS).close()
    except OSError:
        return _("The node can't be reached at %(host)s, port %(port)s.") % {"host": node.host, "port": node.port}
    return _("Something answers at this port, but it doesn't speak DICOM, or TLS is on at one side only.")


class DimseClient:
    """A DIMSE node; see client.NodeClient."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def find(self, query: Query, *, at_most: int) -> list[FoundStudy]:
        ae = calling_ae(self.node)
        ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        identifier = self._identifier("STUDY")
        for keyword in RETURNED:
            setattr(identifier, keyword, None)
        for keyword, value in query.as_keywords().items():
            setattr(identifier, keyword, value)
            if not value.isascii() and not self.node.character_set:
                identifier.SpecificCharacterSet = "ISO_IR 192"
        found: list[FoundStudy] = []
        with associated(self.node, ae) as association:
            for status, answer in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
                self._check(status, _("search"))
                if answer is not None and len(found) < at_most:
                    self._read_as_meant(answer)
                    found.append(FoundStudy.of(answer))
                if len(found) == at_most:
                    association.abort()
                    break
        return [study for study in found if study.study_instance_uid]

    def _identifier(self, level: str) -> Dataset:
        identifier = Dataset()
        if self.node.character_set:
            identifier.SpecificCharacterSet = self.node.character_set.split("\\")
        identifier.QueryRetrieveLevel = level
        return identifier

    def _read_as_meant(self, answer: Dataset) -> None:
        if self.node.character_set and "SpecificCharacterSet" not in answer:
            answer.SpecificCharacterSet = self.node.character_set.split("\\")
            answer.decode()

    def _check(self, status: Dataset, what: str) -> None:
        code = status.get("Status")
        if code is None:
            raise NodeUnavailable(_("The node broke off without an answer."))
        if code in {0x0000, 0xFF00, 0xFF01, 0xFE00, 0xB000}:
            return
        comment = str(status.get("ErrorComment", "") or "")
        words = _("The node answers the %(what)s with status %(code)04Xh.") % {"what": what, "code": code}
        if 0xA700 <= code <= 0xA7FF:
            raise NodeUnavailable(_("The node has no room or no resources (%(code)04Xh).") % {"code": code})
        raise NodeRefuses(f"{words} {comment}".strip())

    def store(self, outgoing: Sequence[Outgoing]) -> Generator[Stored, None, None]:
        waiting = list(outgoing)
        while waiting:
            group, contexts = self._negotiable(waiting)
            waiting = waiting[len(group) :]
            ae = calling_ae(self.node)
            # Each pair in a context of its own: what the node takes of a class is then known, not only its favourite.
            ae.requested_contexts = [build_context(sop_class, syntax) for sop_class, syntax in contexts]
            yield from self._send_group(ae, group)

    def _negotiable(self, waiting: list[Outgoing]) -> tuple[list[Outgoing], list[tuple[str, str]]]:
        """Give as many instances as one association's 128 contexts allow, and those contexts (PS3.8 §9.3.2.2)."""
        contexts: dict[tuple[str, str], None] = {}
        group = []
        for one in waiting:
            wanted = self._wanted_contexts(one)
            if len(contexts.keys() | set(wanted)) > MOST_CONTEXTS:
                break
            contexts.update(dict.fromkeys(wanted))
            group.append(one)
        return group, list(contexts)

    def _wanted_contexts(self, one: Outgoing) -> list[tuple[str, str]]:
        sop_class, stored = one.instance.sop_class_uid, one.instance.transfer_syntax_uid
        readable = self.node.transfer_syntaxes
        wanted = [(sop_class, stored)] if not readable or stored in {*readable, *FALLBACK} else []
        wanted += [(sop_class, str(syntax)) for syntax in FALLBACK if syntax != stored]
        wanted += [(sop_class, syntax) for syntax in readable if syntax not in {stored, *FALLBACK}]
        if self.node.allows_lossy and not readable:
            wanted.append((sop_class, str(JPEGBaseline8Bit)))
        return list(dict.fromkeys(wanted))

    def _send_group(self, ae: AE, group: list[Outgoing]) -> Generator[Stored, None, None]:
        with associated(self.node, ae) as association:
            accepted: dict[str, list[str]] = {}
            for context in association.accepted_contexts:
                accepted.setdefault(str(context.abstract_syntax), []).append(str(context.transfer_syntax[0]))
            for one in group:
                yield self._send(association, one, accepted.get(one.instance.sop_class_uid, []))

    def _send(self, association: Association, one: Outgoing, accepted: list[str]) -> Stored:
        if not accepted:
            return Stored(one, _("The node doesn't take objects of this class."))
        try:
            staged = one.staged_as(one.syntax_for(accepted))
        except NotSendable as error:
            return Stored(one, str(error))
        try:
            status = association.send_c_store(staged.path)
        except (RuntimeError, ValueError, AttributeError) as error:
            raise BrokeOff(_("The node broke off in the middle of an instance.")) from error
        finally:
            staged.path.unlink(missing_ok=True)
        code = status.get("Status")
        if code is None:
            raise BrokeOff(_("The node broke off in the middle of an instance."))
        if code == 0x0000 or code >> 12 == 0xB:
            return Stored(one, sent_bytes=staged.size)
        try:
            self._check(status, _("instance"))
        except NodeRefuses as error:
            return Stored(one, str(error))
        return Stored(one, sent_bytes=staged.size)

    def retrieve(
        self, study_instance_uid: str, series_instance_uid: str, receive: Receiver, *, known: set[str]
    ) -> Generator[Progress, None, None]:
        identifier = self._identifier("SERIES" if series_instance_uid else "STUDY")
        identifier.StudyInstanceUID = study_instance_uid
        if series_instance_uid:
            identifier.SeriesInstanceUID = series_instance_uid
        if self.node.retrieve_by != Node.RetrieveBy.MOVE:
            try:
                yield from self._get(identifier, receive)
            except _NoGet:
                if self.node.retrieve_by == Node.RetrieveBy.GET:
                    raise NodeRefuses(_("The node knows no C-GET.")) from None
            else:
                return
        yield from self._move(identifier)

    def _get(self, identifier: Dataset, receive: Receiver) -> Generator[Progress, None, None]:
        ae = calling_ae(self.node)
        ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
        roles = []
        for context in islice(StoragePresentationContexts, MOST_CONTEXTS - 1):
            ae.add_requested_context(context.abstract_syntax, self._received_syntaxes())
            roles.append(build_role(context.abstract_syntax, scp_role=True))

        def on_store(event: Event) -> int:
            path = new_staging_path()
            path.write_bytes(event.encoded_dataset())
            return 0x0000 if not receive(path) else 0x0110

        options = {"ext_neg": roles, "evt_handlers": [(evt.EVT_C_STORE, on_store)]}
        with associated(self.node, ae, **options) as association:
            offered = {c.abstract_syntax for c in association.accepted_contexts}
            if StudyRootQueryRetrieveInformationModelGet not in offered:
                raise _NoGet
            answers = association.send_c_get(identifier, StudyRootQueryRetrieveInformationModelGet)
            yield from self._progress(answers)

    def _received_syntaxes(self) -> list[str]:
        return [*FALLBACK, *(s for s in self.node.transfer_syntaxes if s not in FALLBACK)]

    def _move(self, identifier: Dataset) -> Generator[Progress, None, None]:
        """Have the node send to our listener (PS3.4 §C.4.2), which ingests what comes."""
        ae = calling_ae(self.node)
        ae.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
        with associated(self.node, ae) as association:
            answers = association.send_c_move(
                identifier, our_title(self.node), StudyRootQueryRetrieveInformationModelMove
            )
            yield from self._progress(answers)

    def _progress(self, answers: Iterator[tuple[Dataset, Dataset | None]]) -> Generator[Progress, None, None]:
        for status, _failed in answers:
            counts = [
                int(status.get(f"NumberOf{what}Suboperations") or 0)
                for what in ("Completed", "Warning", "Failed", "Remaining")
            ]
            completed, warning, failed, remaining = counts
            total = sum(counts) or None
            if status.get("Status") in {0xFF00, 0x0000, 0xB000} or any(counts[:3]):
                yield Progress(completed + warning, failed, total if remaining or completed or failed else None)
            if status.get("Status") == 0xA801:
                raise NodeRefuses(_("The node doesn't know us as a destination. Enter our AE title and address there."))
            if status.get("Status") not in {0xFF00, 0x0000, 0xB000}:
                self._check(status, _("retrieval"))


class _NoGet(Exception):
    pass
