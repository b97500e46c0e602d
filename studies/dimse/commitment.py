"""Storage Commitment Push Model SCP (PS3.4 Annex J): what we answer for is proven in storage before it's said.

The answer goes by the requesting association while that stands, else by one of our own to the node, again and again
from the outbox until the node has taken it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, build_role
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from accounts.models import Site
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive import objects
from studies.dimse.callers import Caller, refuse
from studies.dimse.calling import associated
from studies.dimse.messages import action_response, event_report
from studies.dimse.models import Commitment
from studies.dimse.scp import NOT_AUTHORISED, PROCESSING_FAILURE, SUCCESS, Service, Session
from studies.dimse.transport import Request, TunedAssociation
from studies.models import DomainEvent, Instance

logger = logging.getLogger("atrium.dimse")
# PS3.7 §10.1.4.1.10 and PS3.4 §J.3.2.
NO_SUCH_ARGUMENT, INVALID_ARGUMENT, NO_SUCH_ACTION = 0x0114, 0x0115, 0x0123
REQUEST_COMMITMENT = 1
ALL_COMMITTED, SOME_FAILED = 1, 2
# Failure Reason (0008,1197), PS3.3 C.14-1.
REASON_MISSING, REASON_CLASS_CONFLICT, REASON_NOT_WHOLE = 0x0112, 0x0119, 0x0110
SAME_ASSOCIATION_SECONDS = 5.0
# Longer than it takes to try the requesting association, so that the outbox doesn't report as well.
OUTBOX_DELAY = timedelta(seconds=30)
ANSWER_SECONDS = 30
GIVEN_UP_AFTER = timedelta(days=7)


class NotReported(RuntimeError):
    """The node hasn't taken the report yet; the outbox tries again."""


def serve_action(request: Request) -> None:
    """Answer N-ACTION (PS3.4 §J.3.2), then report (§J.3.3)."""
    session: Session = request.association.atrium_session
    caller = session.caller
    message = request.message
    if not caller.may_store:
        refuse(caller.principal, "the node may not ask for storage commitment", site_id=caller.site.pk)
        _respond(request, NOT_AUTHORISED, "This AE title may not store.")
        return
    if message.ActionTypeID != REQUEST_COMMITMENT:
        _respond(request, NO_SUCH_ACTION)
        return
    try:
        references, transaction_uid = _references(request)
    except Exception:  # hostile data sets raise what they will
        _respond(request, INVALID_ARGUMENT, "The transaction or its references can't be read.")
        return
    try:
        commitment, event_pk = request_commitment(caller=caller, transaction_uid=transaction_uid, references=references)
    except Exception:
        logger.exception("a commitment can't be kept")
        _respond(request, PROCESSING_FAILURE, "The request can't be processed.")
        return
    _respond(request, SUCCESS)
    if _report(request.association, request.context.context_id or 0, request.context.transfer_syntax[0], commitment):
        _note_reported(commitment)
        return
    DomainEvent.objects.filter(pk=event_pk).update(due_at=timezone.now())


def _references(request: Request) -> tuple[list[tuple[str, str]], str]:
    syntax = request.context.transfer_syntax[0]
    information = decode(
        request.message.ActionInformation, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
    )
    transaction_uid = str(information.TransactionUID)
    references = [
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in information.ReferencedSOPSequence
    ]
    if not references or not UID(transaction_uid).is_valid:
        raise ValueError("no references or no transaction")
    return references, transaction_uid


def _respond(request: Request, status: int, comment: str = "") -> None:
    command = action_response(
        sop_class_uid=StorageCommitmentPushModel,
        sop_instance_uid=str(request.message.RequestedSOPInstanceUID),
        message_id=request.message.MessageID,
        action_type=request.message.ActionTypeID,
        status=status,
        comment=comment,
    )
    request.association.dimse.send_command(request.context.context_id or 0, command)


@transaction.atomic
def request_commitment(
    *, caller: Caller, transaction_uid: str, references: list[tuple[str, str]]
) -> tuple[Commitment, int]:
    """Find out what of the references is durable, keep the answer, and put its report into the outbox.

    Give what was kept, and the key of the report's event.
    """
    committed, failed = proven(caller.site, references)
    commitment = Commitment.objects.create(
        site=caller.site, node=caller.node, transaction_uid=transaction_uid, committed=committed, failed=failed
    )
    event_pk = events.emit("commitment.requested", commitment=commitment.pk)
    DomainEvent.objects.filter(pk=event_pk).update(due_at=timezone.now() + OUTBOX_DELAY)
    record(
        AuditEvent.Action.CHANGE,
        principal=caller.principal,
        site_id=caller.site.pk,
        details={
            "what": "storage commitment",
            "transaction": transaction_uid,
            "committed": len(committed),
            "failed": len(failed),
        },
    )
    return commitment, event_pk


def proven(site: Site, references: Iterable[tuple[str, str]]) -> tuple[list[list[str]], list[list[Any]]]:
    """Give which references the site's archive holds, indexed and whole in storage, and which not with the reason."""
    references = list(references)
    rows: dict[str, list[Instance]] = {}
    found = Instance.objects.filter(
        series__study__site=site, sop_instance_uid__in={uid for _, uid in references}
    ).order_by("version")
    for row in found:
        rows.setdefault(row.sop_instance_uid, []).append(row)
    committed: list[list[str]] = []
    failed: list[list[Any]] = []
    for sop_class, uid in references:
        versions = rows.get(uid, [])
        if not versions:
            failed.append([sop_class, uid, REASON_MISSING])
        elif all(version.sop_class_uid != sop_class for version in versions):
            failed.append([sop_class, uid, REASON_CLASS_CONFLICT])
        elif not all(objects.is_whole(v, with_digest=settings.ATRIUM.commitment_hash) for v in versions):
            failed.append([sop_class, uid, REASON_NOT_WHOLE])
        else:
            committed.append([sop_class, uid])
    return committed, failed


def report_of(commitment: Commitment) -> Dataset:
    """Give the event information (PS3.4 Table J.3-2)."""
    report = Dataset()
    report.TransactionUID = commitment.transaction_uid
    report.RetrieveAETitle = settings.ATRIUM.ae_title
    if commitment.committed:
        report.ReferencedSOPSequence = [_reference(*pair) for pair in commitment.committed]
    if commitment.failed:
        report.FailedSOPSequence = [_reference(*triple) for triple in commitment.failed]
    return report


def _reference(sop_class: str, sop_instance: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if reason is not None:
        item.FailureReason = reason
    return item


def _report(association: TunedAssociation, context_id: int, syntax: UID, commitment: Commitment) -> bool:
    """Send N-EVENT-REPORT and say whether the peer took it."""
    data = encode(report_of(commitment), syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    command = event_report(
        sop_class_uid=StorageCommitmentPushModel,
        sop_instance_uid=StorageCommitmentPushModelInstance,
        message_id=1,
        event_type=SOME_FAILED if commitment.failed else ALL_COMMITTED,
    )
    association.dimse.send_command(context_id, command, [data or b""])
    answer = association.dimse.next_response(SAME_ASSOCIATION_SECONDS)
    return answer is not None and answer.Status == SUCCESS


def _note_reported(commitment: Commitment) -> None:
    Commitment.objects.filter(pk=commitment.pk).update(reported_at=timezone.now())


@events.handle("commitment.requested")
def report_later(payload: dict[str, Any]) -> None:
    """Report by an association of our own what the requesting one didn't take. Raises NodeUnavailable, NotReported."""
    commitment = Commitment.objects.select_related("node").filter(pk=payload["commitment"]).first()
    if commitment is None or commitment.reported_at is not None:
        return
    node = commitment.node
    if timezone.now() - commitment.requested_at > GIVEN_UP_AFTER:
        logger.error("a commitment was never taken", extra={"commitment": commitment.pk})
        return
    if node is None or not node.host or not node.port:
        raise NotReported("the node has no address")
    contexts = [build_context(StorageCommitmentPushModel, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    # We call, but remain the SCP (PS3.4 §J.3.3).
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
    with (
        associated(node, contexts, negotiation=roles, answer_seconds=ANSWER_SECONDS) as association,
        association.held(),
    ):
        (context,) = association.accepted_contexts
        is_taken = _report(association, context.context_id or 0, context.transfer_syntax[0], commitment)
    if not is_taken:
        raise NotReported("the node didn't take the report")
    _note_reported(commitment)


SERVICE = Service("Storage Commitment", [StorageCommitmentPushModel], {}, requests={N_ACTION: serve_action})
