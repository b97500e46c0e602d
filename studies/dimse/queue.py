"""Working off the nodes' queues: each in order, each by one worker at a time, none held up by another.

A node that doesn't answer makes its own queue wait, ever longer up to a quarter of an hour, for as long as it takes;
what it refuses for good fails and lets the next pass. A worker that dies leaves its lease behind, which another takes.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.capabilities import Capability
from accounts.principals import Principal, principal_of_node
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.archive.deidentification import Deidentifier, Profile
from studies.dimse.clients import client_of
from studies.dimse.coercion import Coercion
from studies.dimse.errors import BrokeOff, NodeBusy, NodeRefuses, NodeUnavailable
from studies.dimse.models import Node, NodeState, Transfer, TransferItem
from studies.dimse.outgoing import Outgoing
from studies.ingest.services import Source, StagedFile, WayIn, ingest
from studies.leases import has_died, new_lease
from studies.models import Instance, Study

logger = logging.getLogger("atrium.transfers")
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(minutes=15)
TURN_WAIT = timedelta(seconds=5)
LEASE = timedelta(minutes=10)
SLICE_SECONDS = 120.0
AT_ONCE = 500
MOST_BREAKS = 5
NOTE_EVERY, NOTE_SECONDS = 25, 1.0
OPEN = (Transfer.Status.QUEUED, Transfer.Status.RUNNING)


class _Stopped(Exception):
    """The transfer was cancelled, or another worker has the queue."""


def due_queues() -> list[tuple[int, str]]:
    """Give (node id, kind) of each queue in which something waits and whose node may be tried now."""
    waiting = Transfer.objects.filter(status__in=OPEN, node__is_active=True).values_list("node_id", "kind").distinct()
    not_yet = NodeState.objects.filter(next_attempt_at__gt=timezone.now()).values_list("node_id", "kind")
    return sorted(set(waiting) - set(not_yet))


def work_off(node_id: int, kind: str) -> bool:
    """Work off a node's queue until it's empty, the node fails, or others should have a turn; say if more waits."""
    node = Node.objects.filter(pk=node_id, is_active=True).first()
    if node is None:
        return False
    state = _take(node, kind)
    if state is None:
        return False
    until = time.monotonic() + SLICE_SECONDS
    try:
        while time.monotonic() < until:
            transfer = (
                Transfer.objects.filter(node=node, kind=kind, status__in=OPEN)
                .select_related("study", "requested_by", "site")
                .order_by("pk")
                .first()
            )
            if transfer is None:
                return False
            try:
                _run(transfer, node, state)
            except NodeBusy as error:
                _wait_turn(state, transfer, str(error))
                return False
            except NodeUnavailable as error:
                _back_off(state, transfer, str(error))
                return False
            except _Stopped:
                if not _renew(state):
                    return False
        return True
    finally:
        NodeState.objects.filter(pk=state.pk, lease=state.lease).update(lease="", leased_until=None)


def _take(node: Node, kind: str) -> NodeState | None:
    state, _is_new = NodeState.objects.get_or_create(node=node, kind=kind)
    now = timezone.now()
    mine = new_lease()
    free = Q(lease="") | Q(leased_until__lt=now)
    if state.lease and has_died(state.lease):
        free |= Q(lease=state.lease)
    taken = NodeState.objects.filter(free, pk=state.pk, next_attempt_at__lte=now).update(
        lease=mine, leased_until=now + LEASE
    )
    if not taken:
        return None
    state.lease = mine
    return state


def _renew(state: NodeState) -> bool:
    return bool(NodeState.objects.filter(pk=state.pk, lease=state.lease).update(leased_until=timezone.now() + LEASE))


def _back_off(state: NodeState, transfer: Transfer, reason: str) -> None:
    now = timezone.now()
    state.refresh_from_db(fields=["failures", "down_since"])
    wait = min(FIRST_WAIT * 2 ** min(state.failures, 12), LONGEST_WAIT)
    NodeState.objects.filter(pk=state.pk).update(
        failures=state.failures + 1,
        down_since=state.down_since or now,
        next_attempt_at=now + wait,
        last_error=reason[:300],
        last_error_at=now,
    )
    Transfer.objects.filter(pk=transfer.pk, status__in=OPEN).update(
        status=Transfer.Status.QUEUED, last_error=reason[:300]
    )
    logger.warning("node unavailable", extra={"node": state.node_id, "failures": state.failures + 1})


def _wait_turn(state: NodeState, transfer: Transfer, reason: str) -> None:
    """Come back soon: the node is busy with us, which is no failure of it."""
    NodeState.objects.filter(pk=state.pk).update(next_attempt_at=timezone.now() + TURN_WAIT)
    Transfer.objects.filter(pk=transfer.pk, status__in=OPEN).update(
        status=Transfer.Status.QUEUED, last_error=reason[:300]
    )


def _answered(state: NodeState) -> None:
    NodeState.objects.filter(pk=state.pk).update(
        failures=0, down_since=None, last_success_at=timezone.now(), next_attempt_at=timezone.now()
    )


def _run(transfer: Transfer, node: Node, state: NodeState) -> None:
    Transfer.objects.filter(pk=transfer.pk).update(
        status=Transfer.Status.RUNNING,
        attempts=F("attempts") + 1,
        started_at=transfer.started_at or timezone.now(),
        last_error="",
    )
    try:
        if transfer.kind == Transfer.Kind.SEND:
            _send(transfer, node, state)
        else:
            _retrieve(transfer, node, state)
    except (NodeUnavailable, _Stopped):
        raise
    except NodeRefuses as error:
        _answered(state)
        _end(transfer, Transfer.Status.FAILED, str(error))
    except Exception:  # whatever is wrong with one transfer must not hold up those behind it
        logger.exception("transfer failed", extra={"transfer": transfer.pk})
        _end(transfer, Transfer.Status.FAILED, _("An unexpected fault; the log has it."))


def _end(transfer: Transfer, status: str, error: str = "") -> None:
    with transaction.atomic():
        ended = Transfer.objects.filter(pk=transfer.pk, status__in=OPEN).update(
            status=status, ended_at=timezone.now(), last_error=error[:300]
        )
        if not ended:
            return
        transfer.refresh_from_db()
        is_done = status == Transfer.Status.DONE
        if not is_done:
            NodeState.objects.filter(node_id=transfer.node_id, kind=transfer.kind).update(
                last_error=error[:300], last_error_at=timezone.now()
            )
        study = transfer.study
        record(
            AuditEvent.Action.EXPORT if transfer.kind == Transfer.Kind.SEND else AuditEvent.Action.IMPORT,
            principal=_principal_of(transfer),
            outcome=AuditEvent.Outcome.SUCCESS if is_done else AuditEvent.Outcome.FAILURE,
            site_id=transfer.site_id,
            patient_id=study.patient_id_value if study else "",
            patient_name=study.patient_name if study else "",
            study_instance_uid=transfer.study_instance_uid,
            details={
                "what": "sent" if transfer.kind == Transfer.Kind.SEND else "retrieved",
                "node": transfer.node.ae_title,
                "transfer": transfer.pk,
                "origin": transfer.origin,
                "completed": transfer.completed,
                "failed": transfer.failed,
                "deidentified": transfer.deidentification is not None,
            },
        )


def _principal_of(transfer: Transfer) -> Principal:
    if transfer.requested_by is not None:
        return Principal(user=transfer.requested_by)
    return Principal(ae_title=settings.ATRIUM.ae_title)


class _Notes:
    """Writes what became of instances in batches: a commit for each would cost more than the sending."""

    def __init__(self, transfer: Transfer, state: NodeState) -> None:
        self.transfer, self.state = transfer, state
        self.done: list[int] = []
        self.failed: list[TransferItem] = []
        self.sent_bytes = 0
        self.noted_at = time.monotonic()

    def add(self, item: TransferItem, error: str, sent_bytes: int) -> None:
        if error:
            item.status, item.error = TransferItem.Status.FAILED, error[:200]
            item.attempts += 1
            self.failed.append(item)
        else:
            self.done.append(item.pk)
            self.sent_bytes += sent_bytes
        if len(self.done) + len(self.failed) >= NOTE_EVERY or time.monotonic() - self.noted_at > NOTE_SECONDS:
            self.write()

    def write(self) -> None:
        """Commit what is noted. Raises _Stopped when the transfer is to stop here."""
        with transaction.atomic():
            if self.done:
                TransferItem.objects.filter(pk__in=self.done).update(status=TransferItem.Status.DONE, error="")
            TransferItem.objects.bulk_update(self.failed, ["status", "error", "attempts"])
            still_open = Transfer.objects.filter(pk=self.transfer.pk, status__in=OPEN).update(
                completed=F("completed") + len(self.done),
                failed=F("failed") + len(self.failed),
                transferred_bytes=F("transferred_bytes") + self.sent_bytes,
            )
            is_ours = _renew(self.state)
        self.done, self.failed, self.sent_bytes = [], [], 0
        self.noted_at = time.monotonic()
        if not still_open or not is_ours:
            raise _Stopped


def _send(transfer: Transfer, node: Node, state: NodeState) -> None:
    client = client_of(node)
    coercions = [Coercion.of(kept) for kept in transfer.coercions]
    deidentifier = None
    if transfer.deidentification is not None:
        deidentifier = Deidentifier(node.ae_title, Profile.of(transfer.deidentification))
    waiting = transfer.items.filter(status=TransferItem.Status.WAITING).order_by("pk")
    while items := list(waiting.select_related("instance__series__study")[:AT_ONCE]):
        outgoing = [
            Outgoing(
                instance=item.instance,
                coercions=coercions,
                deidentifier=deidentifier,
                allows_lossy=node.allows_lossy,
                modifying_system=settings.ATRIUM.ae_title,
                item=item,
            )
            for item in items
            if item.instance is not None
        ]
        notes = _Notes(transfer, state)
        told = 0
        try:
            with closing(client.store(outgoing)) as answers:
                for stored in answers:
                    told += 1
                    notes.add(stored.outgoing.item, stored.error, stored.sent_bytes)
            notes.write()
        except BrokeOff as error:
            notes.write()
            _blame(outgoing[told].item, transfer, error)
            raise
        except NodeUnavailable:
            notes.write()
            raise
    _answered(state)
    transfer.refresh_from_db(fields=["failed", "completed"])
    if transfer.failed:
        reason = transfer.items.filter(status=TransferItem.Status.FAILED).values_list("error", flat=True).first() or ""
        _end(transfer, Transfer.Status.FAILED, reason)
    else:
        _end(transfer, Transfer.Status.DONE)


def _blame(item: TransferItem, transfer: Transfer, error: BrokeOff) -> None:
    """Count a break in the middle of an instance; one at which the node breaks off again and again is left aside."""
    item.attempts += 1
    if item.attempts >= MOST_BREAKS:
        item.status = TransferItem.Status.FAILED
        item.error = _("%(reason)s That happened %(times)s times; it's left aside.") % {
            "reason": str(error),
            "times": item.attempts,
        }
        Transfer.objects.filter(pk=transfer.pk).update(failed=F("failed") + 1)
    item.error = item.error[:200]
    item.save(update_fields=["attempts", "status", "error"])


def _retrieve(transfer: Transfer, node: Node, state: NodeState) -> None:
    principal = principal_of_node(
        ae_title=node.ae_title, site_id=node.site_id, capabilities=[Capability.STUDY_UPLOAD], ip_address=None
    )
    source = Source(WayIn.RETRIEVE, node.site, principal)

    def receive(path: Path) -> str:
        (outcome,) = ingest([StagedFile(path, path.stat().st_size)], source)
        return "" if outcome.is_in else outcome.reason or _("It couldn't be stored.")

    held = Instance.objects.filter(
        series__study__site_id=node.site_id, series__study__study_instance_uid=transfer.study_instance_uid
    )
    known = set(held.values_list("sop_instance_uid", flat=True))
    noted_at, last = 0.0, None
    client = client_of(node)
    with closing(
        client.retrieve(transfer.study_instance_uid, transfer.series_instance_uid, receive, known=known)
    ) as answers:
        for last in answers:
            if time.monotonic() - noted_at > NOTE_SECONDS:
                noted_at = time.monotonic()
                _note_progress(transfer, last.completed, last.failed, last.total, state)
    _answered(state)
    if last is None or not (last.completed or last.failed):
        raise NodeRefuses(_("The node has no such study."))
    _note_progress(transfer, last.completed, last.failed, last.total or last.completed + last.failed, state)
    study = Study.objects.filter(site_id=node.site_id, study_instance_uid=transfer.study_instance_uid).first()
    Transfer.objects.filter(pk=transfer.pk).update(study=study)
    if last.failed:
        _end(transfer, Transfer.Status.FAILED, _("%(count)s instances didn't come.") % {"count": last.failed})
    else:
        _end(transfer, Transfer.Status.DONE)


def _note_progress(transfer: Transfer, completed: int, failed: int, total: int | None, state: NodeState) -> None:
    still_open = Transfer.objects.filter(pk=transfer.pk, status__in=OPEN).update(
        completed=completed, failed=failed, total=total or 0
    )
    if not _renew(state) or not still_open:
        raise _Stopped


def start_due_queues() -> int:
    """Have workers look at every queue that's due; gives how many."""
    due = due_queues()
    for node_id, kind in due:
        current_app.send_task("studies.dimse.tasks.work_off", [node_id, kind])
    return len(due)
