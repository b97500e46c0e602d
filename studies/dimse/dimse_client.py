"""A node called by DIMSE: Storage, Query/Retrieve Study Root as SCU (PS3.4 Annexes B and C)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _
from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import StoragePresentationContexts, build_context, build_role, evt
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from studies.dimse.calling import MOST_CONTEXTS, associated, our_title
from studies.dimse.client import RETURNED, FoundStudy, Progress, Query, Receiver, Stored
from studies.dimse.errors import BrokeOff, NodeRefuses, NodeUnavailable, NotSendable
from studies.dimse.messages import IncomingObject, store_request
from studies.dimse.models import Node
from studies.dimse.outgoing import Outgoing
from studies.dimse.scp import PROCESSING_FAILURE, SUCCESS
from studies.dimse.sending import AssociationLost, is_kept, send_data, without_meta
from studies.dimse.transport import TunedAssociation
from studies.ingest.errors import OUT_OF_RESOURCES

FALLBACK = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
CHUNK = 1 << 20


class DimseClient:
    """A DIMSE node; see client.NodeClient."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def find(self, query: Query, *, at_most: int) -> list[FoundStudy]:
        identifier = self._identifier("STUDY")
        for keyword in RETURNED:
            setattr(identifier, keyword, None)
        for keyword, value in query.as_keywords().items():
            setattr(identifier, keyword, value)
            if not value.isascii() and not self.node.character_set:
                identifier.SpecificCharacterSet = "ISO_IR 192"
        found: list[FoundStudy] = []
        contexts = [build_context(StudyRootQueryRetrieveInformationModelFind)]
        with associated(self.node, contexts) as association:
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
        self._check_code(code, str(status.get("ErrorComment", "") or ""), what)

    def _check_code(self, code: int, comment: str, what: str) -> None:
        if code in {0x0000, 0xFF00, 0xFF01, 0xFE00, 0xB000}:
            return
        words = _("The node answers the %(what)s with status %(code)04Xh.") % {"what": what, "code": code}
        if 0xA700 <= code <= 0xA7FF:
            raise NodeUnavailable(_("The node has no room or no resources (%(code)04Xh).") % {"code": code})
        raise NodeRefuses(f"{words} {comment}".strip())

    def store(self, outgoing: Sequence[Outgoing]) -> Generator[Stored, None, None]:
        waiting = list(outgoing)
        while waiting:
            group, contexts = self._negotiable(waiting)
            waiting = waiting[len(group) :]
            # Each pair in a context of its own: what the node takes of a class is then known, not only its favourite.
            yield from self._send_group([build_context(sop_class, syntax) for sop_class, syntax in contexts], group)

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

    def _send_group(self, contexts: list[PresentationContext], group: list[Outgoing]) -> Generator[Stored, None, None]:
        with associated(self.node, contexts) as association, association.held():
            accepted: dict[str, dict[str, int]] = {}
            for context in association.accepted_contexts:
                of_class = accepted.setdefault(str(context.abstract_syntax), {})
                of_class[str(context.transfer_syntax[0])] = context.context_id or 0
            for number, one in enumerate(group):
                yield self._send(association, one, number % 0xFFFF + 1, accepted.get(one.instance.sop_class_uid, {}))

    def _send(self, association: TunedAssociation, one: Outgoing, number: int, accepted: dict[str, int]) -> Stored:
        """Send one instance by the context of a transfer syntax (``accepted``) that it can be had in."""
        if not accepted:
            return Stored(one, _("The node doesn't take objects of this class."))
        try:
            syntax = one.syntax_for(accepted)
            staged = one.staged_as(syntax)
        except NotSendable as error:
            return Stored(one, str(error))
        try:
            # De-identified copies have UIDs of their own.
            meta = read_file_meta_info(staged.path)
            command = store_request(
                sop_class_uid=str(meta.MediaStorageSOPClassUID),
                sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
                message_id=number,
                priority=0,
                originator=None,
            )
            answer = send_data(association, accepted[syntax], command, without_meta(_chunks(staged.path)))
        except AssociationLost as error:
            raise BrokeOff(_("The node broke off in the middle of an instance.")) from error
        finally:
            staged.path.unlink(missing_ok=True)
        if is_kept(answer.Status):
            return Stored(one, sent_bytes=staged.size)
        try:
            self._check_code(answer.Status, str(answer.ErrorComment or ""), _("instance"))
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
        contexts, roles = [build_context(StudyRootQueryRetrieveInformationModelGet)], []
        standard = (str(context.abstract_syntax) for context in StoragePresentationContexts)
        for sop_class in islice(chain(settings.ATRIUM.dicom_storage_classes, standard), MOST_CONTEXTS - 1):
            contexts.append(build_context(sop_class, self._received_syntaxes()))
            roles.append(build_role(sop_class, scp_role=True))

        def on_store(event: Event) -> int:
            incoming: IncomingObject = event.request.atrium_incoming
            event.assoc.pulse()
            try:
                if incoming.failure is not None:
                    return OUT_OF_RESOURCES
                is_in = not receive(incoming.path)
            finally:
                incoming.path.unlink(missing_ok=True)
            if is_in:
                event.assoc.traffic.stored += 1
            else:
                event.assoc.traffic.failed += 1
            return SUCCESS if is_in else PROCESSING_FAILURE

        handlers = [(evt.EVT_C_STORE, on_store)]
        with associated(self.node, contexts, negotiation=roles, handlers=handlers) as association:
            offered = {c.abstract_syntax for c in association.accepted_contexts}
            if StudyRootQueryRetrieveInformationModelGet not in offered:
                raise _NoGet
            answers = association.send_c_get(identifier, StudyRootQueryRetrieveInformationModelGet)
            yield from self._progress(answers)

    def _received_syntaxes(self) -> list[str]:
        return [*FALLBACK, *(s for s in self.node.transfer_syntaxes if s not in FALLBACK)]

    def _move(self, identifier: Dataset) -> Generator[Progress, None, None]:
        """Have the node send to our listener (PS3.4 §C.4.2), which ingests what comes."""
        contexts = [build_context(StudyRootQueryRetrieveInformationModelMove)]
        with associated(self.node, contexts) as association:
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


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


class _NoGet(Exception):
    pass
