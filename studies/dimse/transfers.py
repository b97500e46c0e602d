"""Every write by which people and rules put transfers into the nodes' queues, stop them or run them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from celery import current_app
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.archive.deidentification import Profile
from studies.dimse.errors import NotAllowed
from studies.dimse.models import Node, NodeState, RoutingRule, Transfer, TransferItem
from studies.models import Instance, Study

KEPT_DAYS, BATCH = 90, 200
OPEN = (Transfer.Status.QUEUED, Transfer.Status.RUNNING)


@transaction.atomic
def send_study(
    *,
    study: Study,
    node: Node,
    principal: Principal,
    series_instance_uid: str = "",
    profile: Profile | None = None,
) -> Transfer:
    """Put a study, or one series of it, into a node's queue for a person. Raises NotAllowed with the reason."""
    if not principal.may(Capability.STUDY_SEND, study.site_id):
        raise NotAllowed(_("You may not send studies of this site."))
    if node.site_id != study.site_id or not node.may_receive or not node.is_active or not node.can_be_called:
        raise NotAllowed(_("Studies of this site can't be sent to this node."))
    instances = current_instances(study)
    if series_instance_uid:
        instances = instances.filter(series__series_instance_uid=series_instance_uid)
    transfer = queue_sending(
        study=study,
        node=node,
        instances=instances,
        series_instance_uid=series_instance_uid,
        deidentification=profile.as_options() if profile is not None else None,
        requested_by=principal.user,
    )
    if transfer is None:
        raise NotAllowed(_("There's nothing in it to be sent."))
    _record("sending queued", transfer, principal)
    return transfer


def current_instances(study: Study) -> Any:
    """Give the study's instances that queries and views show, in the order in which they're sent."""
    return Instance.objects.filter(series__study=study, is_current=True, rejection_code="").order_by(
        "series__series_number", "series_id", "instance_number", "pk"
    )


@transaction.atomic
def queue_sending(
    *,
    study: Study,
    node: Node,
    instances: Iterable[Instance],
    series_instance_uid: str = "",
    origin: str = Transfer.Origin.PERSON,
    rule: RoutingRule | None = None,
    coercions: list[Mapping[str, Any]] | None = None,
    deidentification: Mapping[str, Any] | None = None,
    requested_by: User | None = None,
) -> Transfer | None:
    """Put instances of a study at the end of a node's queue; None when there are none."""
    chosen = list(instances.only("pk", "sop_instance_uid")) if hasattr(instances, "only") else list(instances)
    if not chosen:
        return None
    transfer = Transfer.objects.create(
        kind=Transfer.Kind.SEND,
        origin=origin,
        node=node,
        site_id=study.site_id,
        study=study,
        study_instance_uid=study.study_instance_uid,
        series_instance_uid=series_instance_uid,
        rule=rule,
        coercions=list(coercions or []),
        deidentification=dict(deidentification) if deidentification is not None else None,
        requested_by=requested_by,
        total=len(chosen),
    )
    TransferItem.objects.bulk_create(
        [TransferItem(transfer=transfer, instance=i, sop_instance_uid=i.sop_instance_uid) for i in chosen],
        batch_size=500,
    )
    wake(node.pk, Transfer.Kind.SEND)
    return transfer


@transaction.atomic
def retrieve_study(
    *, node: Node, study_instance_uid: str, principal: Principal, series_instance_uid: str = ""
) -> Transfer:
    """Put the retrieval of a study from a node into its queue for a person. Raises NotAllowed with the reason."""
    if not principal.may(Capability.STUDY_SEND, node.site_id):
        raise NotAllowed(_("You may not retrieve studies for this site."))
    if not node.may_be_queried or not node.is_active or not node.can_be_called:
        raise NotAllowed(_("Nothing can be retrieved from this node."))
    transfer = queue_retrieval(
        node=node,
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        requested_by=principal.user,
    )
    _record("retrieval queued", transfer, principal)
    return transfer


@transaction.atomic
def queue_retrieval(
    *,
    node: Node,
    study_instance_uid: str,
    series_instance_uid: str = "",
    origin: str = Transfer.Origin.PERSON,
    requested_by: User | None = None,
) -> Transfer:
    """Put a retrieval at the end of the node's queue; the same one that still waits there is given instead."""
    same = Transfer.objects.filter(
        kind=Transfer.Kind.RETRIEVE,
        node=node,
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        status__in=OPEN,
    ).first()
    if same is not None:
        return same
    transfer = Transfer.objects.create(
        kind=Transfer.Kind.RETRIEVE,
        origin=origin,
        node=node,
        site_id=node.site_id,
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        requested_by=requested_by,
    )
    wake(node.pk, Transfer.Kind.RETRIEVE)
    return transfer


@transaction.atomic
def cancel(*, transfer: Transfer, principal: Principal) -> None:
    """Take a transfer out of its queue; what the node has already, it keeps. One that's over stays as it is."""
    changed = Transfer.objects.filter(pk=transfer.pk, status__in=OPEN).update(
        status=Transfer.Status.CANCELLED, ended_at=timezone.now()
    )
    if changed:
        _record("transfer cancelled", transfer, principal)


@transaction.atomic
def run_again(*, transfer: Transfer, principal: Principal) -> None:
    """Queue again what of a transfer failed or was cancelled; one that waits for a node's return is tried at once."""
    over = (Transfer.Status.FAILED, Transfer.Status.CANCELLED)
    Transfer.objects.filter(pk=transfer.pk, status__in=over).update(
        status=Transfer.Status.QUEUED, ended_at=None, failed=0, last_error=""
    )
    transfer.items.filter(status=TransferItem.Status.FAILED).update(
        status=TransferItem.Status.WAITING, attempts=0, error=""
    )
    NodeState.objects.filter(node_id=transfer.node_id, kind=transfer.kind).update(next_attempt_at=timezone.now())
    _record("transfer run again", transfer, principal)
    wake(transfer.node_id, transfer.kind)


def forget_old() -> int:
    """Remove transfers that were done or cancelled long ago, a batch at a time; the trail keeps that they were."""
    oldest = timezone.now() - timedelta(days=KEPT_DAYS)
    over = Transfer.objects.filter(
        status__in=(Transfer.Status.DONE, Transfer.Status.CANCELLED), ended_at__lt=oldest
    ).order_by("pk")
    forgotten = 0
    while batch := list(over.values_list("pk", flat=True)[:BATCH]):
        Transfer.objects.filter(pk__in=batch).delete()
        forgotten += len(batch)
    return forgotten


def wake(node_id: int, kind: str) -> None:
    """Have a worker look at the node's queue after the commit."""
    transaction.on_commit(lambda: current_app.send_task("studies.dimse.tasks.work_off", [node_id, kind]), robust=True)


def _record(what: str, transfer: Transfer, principal: Principal) -> None:
    study = transfer.study
    record(
        AuditEvent.Action.EXPORT if transfer.kind == Transfer.Kind.SEND else AuditEvent.Action.IMPORT,
        principal=principal,
        site_id=transfer.site_id,
        patient_id=study.patient_id_value if study else "",
        patient_name=study.patient_name if study else "",
        study_instance_uid=transfer.study_instance_uid,
        details={
            "what": what,
            "node": transfer.node.ae_title,
            "transfer": transfer.pk,
            "instances": transfer.total,
            "deidentified": transfer.deidentification is not None,
        },
    )
