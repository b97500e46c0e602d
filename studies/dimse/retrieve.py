"""Retrieve SCP (PS3.4 Annexes C, Y and Z): C-MOVE and C-GET, down to single instances, their headers and frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    CompositeInstanceRetrieveWithoutBulkDataGet,
    CompositeInstanceRootRetrieveGet,
    CompositeInstanceRootRetrieveMove,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    PatientStudyOnlyQueryRetrieveInformationModelGet,
    PatientStudyOnlyQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from portal.connections import release_connections
from studies.access import instances_visible_to
from studies.archive import objects
from studies.archive.errors import NotTranscodable, ObjectMissing
from studies.archive.extraction import Extraction
from studies.archive.recalls import want
from studies.archive.transcoding import rewritten
from studies.dimse.callers import Caller, refuse
from studies.dimse.calling import associated
from studies.dimse.errors import NodeUnavailable
from studies.dimse.frames import FRAME, INVALID_REQUEST, NotRetrievable, extraction_of, selection_of, send_extraction
from studies.dimse.identifiers import InvalidIdentifier, read, text_of
from studies.dimse.messages import (
    C_GET_RSP,
    C_MOVE_RSP,
    COMPLETED,
    FAILED,
    REMAINING,
    WARNING,
    retrieve_response,
    store_request,
)
from studies.dimse.models import Node
from studies.dimse.query import LEVEL_NAMES, LEVELS
from studies.dimse.scp import (
    CANCELLED,
    IDENTIFIER_DOES_NOT_MATCH,
    NOT_AUTHORISED,
    PENDING,
    SUCCESS,
    UNABLE_TO_PROCESS,
    Service,
    Session,
)
from studies.dimse.sending import AssociationLost, Counts, contexts_for, send, send_data
from studies.dimse.transport import Request, TunedAssociation
from studies.matching import Level
from studies.models import Instance
from studies.trail import subject_of

logger = logging.getLogger("atrium.dimse")
PAGE = 200

# PS3.4 Tables C.4-2 and C.4-3.
NO_SUB_OPERATION_DONE, DESTINATION_UNKNOWN, SOME_FAILED = 0xA702, 0xA801, 0xB000

ALL_LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE)
GET_MODELS: dict[str, tuple[Level, ...]] = {
    PatientRootQueryRetrieveInformationModelGet: ALL_LEVELS,
    StudyRootQueryRetrieveInformationModelGet: ALL_LEVELS[1:],
    PatientStudyOnlyQueryRetrieveInformationModelGet: ALL_LEVELS[:2],
    CompositeInstanceRootRetrieveGet: (Level.INSTANCE,),
    CompositeInstanceRetrieveWithoutBulkDataGet: (Level.INSTANCE,),
}
MOVE_MODELS: dict[str, tuple[Level, ...]] = {
    PatientRootQueryRetrieveInformationModelMove: ALL_LEVELS,
    StudyRootQueryRetrieveInformationModelMove: ALL_LEVELS[1:],
    PatientStudyOnlyQueryRetrieveInformationModelMove: ALL_LEVELS[:2],
    CompositeInstanceRootRetrieveMove: (Level.INSTANCE,),
}
FRAME_MODELS = {CompositeInstanceRootRetrieveGet, CompositeInstanceRootRetrieveMove}
# The unique key of each level, and where the index has it.
UNIQUE_KEYS = {
    Level.PATIENT: ("PatientID", "series__study__patient_id_value"),
    Level.STUDY: ("StudyInstanceUID", "series__study__study_instance_uid"),
    Level.SERIES: ("SeriesInstanceUID", "series__series_instance_uid"),
    Level.INSTANCE: ("SOPInstanceUID", "sop_instance_uid"),
}
# PS3.4 Table Z.1-1: what an instance is sent without.
BULK_DATA = (
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL"),
    *("SpectroscopyData", "EncapsulatedDocument", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
REPEATING_BULK_GROUPS = {0x5000: (0x200C, 0x3000), 0x6000: (0x3000,)}  # curves, audio; overlays
REPEATING_MASK = 0xFF01


class Answering:
    """Answers one C-GET or C-MOVE request."""

    def __init__(self, request: Request, command_field: int) -> None:
        self.request = request
        self.command_field = command_field
        session: Session = request.association.atrium_session
        self.caller: Caller = session.caller
        self.session = session

    def pending(self, counts: Counts) -> None:
        """Tell how far it is."""
        self._send(PENDING, counts)

    def refuse(self, code: int, comment: str) -> None:
        """End before anything was sent, with the reason for the trail too."""
        refuse(self.caller.principal, comment, site_id=self.caller.site.pk)
        self.fail(code, comment)

    def fail(self, code: int, comment: str) -> None:
        """End before anything was sent, with the reason."""
        self.session.last_error = comment
        self._send(code, None, comment)

    def end(self, counts: Counts, *, is_cancelled: bool = False) -> None:
        """Tell the outcome, with the UIDs of what failed (PS3.4 §C.4.2.1.4.2)."""
        if is_cancelled:
            code = CANCELLED
        elif counts.failed and not counts.completed and not counts.warnings:
            code = NO_SUB_OPERATION_DONE
        else:
            code = SOME_FAILED if counts.failed or counts.warnings else SUCCESS
        if counts.failed:
            self.session.last_error = f"{counts.failed} instances could not be sent."
        self._send(code, counts)

    def _send(self, code: int, counts: Counts | None, comment: str = "") -> None:
        numbers: dict[int, int] = {}
        failed: list[str] = []
        if counts is not None:
            numbers = {COMPLETED: counts.completed, FAILED: counts.failed, WARNING: counts.warnings}
            if code in {PENDING, CANCELLED}:
                numbers[REMAINING] = counts.remaining
            failed = counts.failed_uids if code != PENDING else []
        syntax = self.request.context.transfer_syntax[0]
        data = b""
        if failed:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = failed
            data = encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated) or b""
        command = retrieve_response(
            command_field=self.command_field,
            sop_class_uid=str(self.request.message.AffectedSOPClassUID),
            message_id=self.request.message.MessageID,
            status=code,
            counts=numbers,
            comment=comment,
            has_identifier=bool(data),
        )
        self.request.association.dimse.send_command(
            self.request.context.context_id or 0, command, [data] if data else []
        )


def serve_get(request: Request) -> None:
    """Answer C-GET: the instances go by the same association (PS3.4 §C.4.3)."""
    answering = Answering(request, C_GET_RSP)
    asked = _begin(answering, GET_MODELS)
    if asked is None:
        return
    contexts = [context for context in request.association.accepted_contexts if context.as_scu]
    allow_lossy = answering.caller.node is not None and answering.caller.node.allows_lossy
    without_bulk_data = request.context.abstract_syntax == CompositeInstanceRetrieveWithoutBulkDataGet

    def send_one(instance: Instance, number: int) -> int | None:
        if without_bulk_data:
            return _send_header(request.association, instance, number, contexts)
        if asked.extraction is not None:
            return send_extraction(request.association, asked.extraction, message_id=number, contexts=contexts)
        return send(request.association, instance, message_id=number, contexts=contexts, allow_lossy=allow_lossy)

    _run(answering, asked.instances, send_one, "C-GET", "")


def serve_move(request: Request) -> None:
    """Answer C-MOVE: the instances go to a node that we know, by an association of our own (PS3.4 §C.4.2)."""
    answering = Answering(request, C_MOVE_RSP)
    asked = _begin(answering, MOVE_MODELS)
    if asked is None:
        return
    instances, caller = asked.instances, answering.caller
    title = str(request.message.MoveDestination or "").strip()
    destination = Node.objects.filter(ae_title=title, site=caller.site, is_active=True).first()
    if destination is None or destination.is_dicomweb or not destination.can_be_called:
        answering.refuse(DESTINATION_UNKNOWN, "The move destination is unknown.")
        return
    if not destination.may_receive and destination != caller.node:
        answering.refuse(DESTINATION_UNKNOWN, "The move destination may not receive.")
        return
    if not instances.exists():
        answering.end(Counts(0))
        return
    originator = (caller.principal.ae_title, request.message.MessageID)
    kinds = instances.order_by().values_list("sop_class_uid", "transfer_syntax_uid").distinct()
    contexts = contexts_for(kinds, preferred=destination.transfer_syntaxes, allow_lossy=destination.allows_lossy)
    try:
        with associated(destination, contexts) as association, association.held():

            def send_one(instance: Instance, number: int) -> int | None:
                if asked.extraction is not None:
                    return send_extraction(
                        association,
                        asked.extraction,
                        message_id=number,
                        contexts=association.accepted_contexts,
                        originator=originator,
                    )
                return send(
                    association,
                    instance,
                    message_id=number,
                    contexts=association.accepted_contexts,
                    originator=originator,
                    allow_lossy=destination.allows_lossy,
                )

            _run(answering, instances, send_one, "C-MOVE", title)
    except NodeUnavailable:
        counts = Counts(0)
        for uid in instances.values_list("sop_instance_uid", flat=True):
            counts.note(uid, None)
        logger.warning("a move destination can't be reached", extra={"ae_title": title})
        answering.end(counts)


@dataclass(frozen=True)
class Asked:
    """What a request asks for: instances, or of a single one some frames."""

    instances: QuerySet[Instance]
    extraction: Extraction | None = None


def _begin(answering: Answering, models: dict[str, tuple[Level, ...]]) -> Asked | None:
    """Give what is asked for, from the gate on; None where the request was refused."""
    caller, request = answering.caller, answering.request
    if not caller.may_retrieve:
        answering.refuse(NOT_AUTHORISED, "This AE title may not retrieve.")
        return None
    syntax = request.context.transfer_syntax[0]
    try:
        identifier = read(
            decode(request.message.Identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated),
            caller.character_set,
        )
        model = str(request.context.abstract_syntax)
        if model in FRAME_MODELS and str(identifier.get("QueryRetrieveLevel") or "").strip() == FRAME:
            return _frames_asked_for(caller.principal, identifier)
        return Asked(_asked_for(caller.principal, identifier, models[model]))
    except NotRetrievable as error:
        answering.fail(error.status, error.comment)
    except InvalidIdentifier as error:
        answering.refuse(IDENTIFIER_DOES_NOT_MATCH, str(error))
    except Exception:  # pydicom raises what it will on garbage
        logger.exception("an identifier can't be read")
        answering.refuse(UNABLE_TO_PROCESS, "The identifier can't be read.")
    return None


def _frames_asked_for(principal: Principal, identifier: Dataset) -> Asked:
    selection = selection_of(identifier)
    identifier.QueryRetrieveLevel = LEVEL_NAMES[Level.INSTANCE]
    instances = _asked_for(principal, identifier, (Level.INSTANCE,))
    # The same UID at two sites is one instance to the one who asks for it.
    instance = instances.first()
    if instance is None:
        return Asked(instances.none())
    if len(text_of(identifier["SOPInstanceUID"]).split("\\")) != 1:
        raise NotRetrievable(INVALID_REQUEST, "Frames are of one instance.")
    return Asked(instances.filter(pk=instance.pk), extraction_of(instance, selection))


def _asked_for(principal: Principal, identifier: Dataset, levels: tuple[Level, ...]) -> QuerySet[Instance]:
    level = LEVELS.get(str(identifier.get("QueryRetrieveLevel") or "").strip())
    if level not in levels:
        raise InvalidIdentifier("The information model has no such level.")
    instances = instances_visible_to(principal).select_related("series__study")
    for one in ALL_LEVELS:
        keyword, column = UNIQUE_KEYS[one]
        value = text_of(identifier[keyword]).strip() if keyword in identifier else ""
        if one == level and (not value or value == "*"):
            raise InvalidIdentifier(f"{keyword} is missing.")
        if one > level or not value or value == "*":
            continue
        instances = instances.filter(**{f"{column}__in": [part.strip() for part in value.split("\\") if part.strip()]})
    return instances.order_by("series__study_id", "series__series_number", "series_id", "instance_number", "pk")


def _run(
    answering: Answering,
    instances: QuerySet[Instance],
    send_one: Callable[[Instance, int], int | None],
    way: str,
    destination: str,
) -> None:
    ids = list(instances.values_list("pk", flat=True))
    counts = Counts(len(ids))
    number = 0
    seen: set[int] = set()
    try:
        for instance in _in_pages(ids):
            # Sending takes as long as the peer likes: meanwhile others need the connection to the database.
            release_connections()
            if answering.request.is_cancelled:
                answering.end(counts, is_cancelled=True)
                return
            number = number % 0xFFFF + 1
            status = send_one(instance, number)
            counts.note(instance.sop_instance_uid, status)
            study = instance.series.study
            if study.pk not in seen and status is not None:
                seen.add(study.pk)
                want(study)
                record_viewing(
                    AuditEvent.Action.RETRIEVE,
                    principal=answering.caller.principal,
                    **subject_of(study),
                    details={"way": way, **({"destination": destination} if destination else {})},
                )
            if counts.remaining:
                answering.pending(counts)
    except AssociationLost:
        done = counts.completed + counts.failed + counts.warnings
        for uid in Instance.objects.filter(pk__in=ids[done:]).values_list("sop_instance_uid", flat=True):
            counts.note(uid, None)
    if answering.request.association.is_established:
        answering.end(counts)


def _in_pages(ids: list[int]) -> Iterator[Instance]:
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        rows = Instance.objects.select_related("series__study").in_bulk(page)
        for pk in page:
            if pk in rows:
                yield rows[pk]


def _send_header(
    association: TunedAssociation, instance: Instance, number: int, contexts: list[PresentationContext]
) -> int | None:
    """Send an instance without its bulk data (PS3.4 Annex Z), in an accepted context of its SOP class.

    Its own transfer syntax is best, and nothing else is turned to big endian.
    """
    own = instance.transfer_syntax_uid
    by_syntax = {UID(c.transfer_syntax[0]): c for c in contexts if c.abstract_syntax == instance.sop_class_uid}
    possible = [UID(own), *(syntax for syntax in by_syntax if syntax != ExplicitVRBigEndian)]
    target = next((syntax for syntax in possible if syntax in by_syntax), None)
    if target is None or (context_id := by_syntax[target].context_id) is None:
        return None
    try:
        dataset = objects.read_dataset(instance)
        _remove_bulk_data(dataset)
        content = rewritten(dataset, own, target)
    except (ObjectMissing, NotTranscodable) as error:
        logger.warning("an instance can't be sent: %s", type(error).__name__)
        return None
    command = store_request(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        message_id=number,
        priority=0,
        originator=None,
    )
    return int(send_data(association, context_id, command, content).Status)


def _remove_bulk_data(dataset: Dataset) -> None:
    for keyword in BULK_DATA:
        if keyword in dataset:
            del dataset[keyword]
    for tag in list(dataset.keys()):
        elements: Any = REPEATING_BULK_GROUPS.get(tag.group & 0xFF00, ())
        if tag.element in elements and not tag.group & (REPEATING_MASK & 0x1):
            del dataset[tag]
    for item in dataset.get("WaveformSequence") or ():
        if "WaveformData" in item:
            del item.WaveformData


GET_SERVICE = Service("Retrieve by C-GET", list(GET_MODELS), {}, requests={C_GET: serve_get})
MOVE_SERVICE = Service("Retrieve by C-MOVE", list(MOVE_MODELS), {}, requests={C_MOVE: serve_move})
