"""Instance Availability Notification (PS3.4 Annex R): we take it, and tell of what has come and what is withdrawn."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from django.db import DatabaseError, transaction
from django.db.models import Q, QuerySet
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import InstanceAvailabilityNotification

from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.dimse.callers import refuse
from studies.dimse.calling import associated, our_title
from studies.dimse.errors import NodeRefuses
from studies.dimse.identifiers import InvalidIdentifier, read
from studies.dimse.models import AvailabilityNotice, Node
from studies.dimse.scp import (
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
    SUCCESS,
    Service,
    caller_of,
    status,
)
from studies.matching.results import AVAILABILITY
from studies.models import Instance, Study

logger = logging.getLogger("atrium.dimse")
INVALID_VALUE, DUPLICATE, MISSING_ATTRIBUTE = 0x0106, 0x0111, 0x0120
DUE, GONE = "availability.due", "availability.gone"
Answer = tuple[int | Dataset, Dataset | None]


def on_create(event: Event) -> Answer:
    """Record what a node says is available, and where (PS3.4 R.3.2)."""
    caller = caller_of(event)
    if not caller.may_store:
        refuse(caller.principal, "the node may not notify", site_id=caller.site.pk)
        return status(NOT_AUTHORISED, "This AE title may not notify."), None
    try:
        notice = read(event.attribute_list, caller.character_set)
        content = json.loads(json.dumps(notice.to_json_dict(), allow_nan=False))
    except (InvalidIdentifier, ValueError, TypeError):
        return status(INVALID_VALUE, "The notification can't be read."), None
    study_instance_uid = str(notice.get("StudyInstanceUID") or "")
    series = notice.get("ReferencedSeriesSequence") or []
    if not study_instance_uid or not series:
        return status(MISSING_ATTRIBUTE, "StudyInstanceUID or ReferencedSeriesSequence is missing."), None
    uid = str(event.request.AffectedSOPInstanceUID or generate_uid())
    try:
        with transaction.atomic():
            _, is_new = AvailabilityNotice.objects.get_or_create(
                site=caller.site,
                sop_instance_uid=uid,
                defaults={
                    "ae_title": caller.principal.ae_title,
                    "study_instance_uid": study_instance_uid[:64],
                    "instances": sum(len(one.get("ReferencedSOPSequence") or []) for one in series),
                    "content": content,
                },
            )
            if is_new:
                record(
                    AuditEvent.Action.CHANGE,
                    principal=caller.principal,
                    site_id=caller.site.pk,
                    study_instance_uid=study_instance_uid,
                    details={"what": "availability notified"},
                )
    except DatabaseError:
        logger.exception("the database failed")
        return status(PROCESSING_FAILURE, "The database isn't available."), None
    if not is_new:
        return status(DUPLICATE, "This notification is here already."), None
    created = Dataset()
    if event.request.AffectedSOPInstanceUID is None:
        created.AffectedSOPInstanceUID = uid
    return SUCCESS, created


SERVICE = Service(
    "Instance Availability Notification", [InstanceAvailabilityNotification], {evt.EVT_N_CREATE: on_create}
)


@events.handle("study.settled")
@events.handle("instances.rejected")
@events.handle("instances.restored")
def notify_nodes(payload: dict[str, Any]) -> None:
    """Put a notification for each node that wants one in the outbox, so that one node's absence stops no other."""
    study = Study.objects.filter(pk=payload["study"]).first()
    if study is None or not _told_of(study).exists():
        return
    for node in _wanting(study.site_id):
        events.emit(DUE, study=study.pk, node=node.pk)


@events.handle("instances.deleted")
def notify_nodes_of_deletion(payload: dict[str, Any]) -> None:
    """Put a notification of what was deleted in the outbox for each node that wants one."""
    for node in _wanting(payload["site"]):
        events.emit(
            GONE, node=node.pk, study_instance_uid=payload["study_instance_uid"], instances=payload["instances"]
        )


def _wanting(site_id: int) -> list[Node]:
    nodes = Node.objects.filter(
        site_id=site_id, wants_availability_notification=True, is_active=True, kind=Node.Kind.DIMSE
    )
    return [node for node in nodes if node.can_be_called]


@events.handle(DUE)
def send_notice(payload: dict[str, Any]) -> None:
    """Tell a node which instances of a study can be had here. Raises NodeError for a later attempt."""
    study = Study.objects.filter(pk=payload["study"]).first()
    node = Node.objects.filter(pk=payload["node"], is_active=True).first()
    if study is None or node is None:
        return
    _send(node, notice_of(study, node))


@events.handle(GONE)
def send_notice_of_deletion(payload: dict[str, Any]) -> None:
    """Tell a node that instances, each by (series, class, instance), are gone. Raises NodeError for a later attempt."""
    node = Node.objects.filter(pk=payload["node"], is_active=True).first()
    if node is None:
        return
    here = Instance.objects.filter(
        series__study__site=node.site_id, series__study__study_instance_uid=payload["study_instance_uid"]
    ).filter(sop_instance_uid__in=[uid for _, _, uid in payload["instances"]])
    # What was sent again meanwhile is told of when it has settled.
    back = set(here.values_list("sop_instance_uid", flat=True))
    gone = [
        Told(series, sop_class, uid, "UNAVAILABLE")
        for series, sop_class, uid in payload["instances"]
        if uid not in back
    ]
    if gone:
        _send(node, _notice(payload["study_instance_uid"], gone, node))


def _send(node: Node, notice: Dataset) -> None:
    with associated(node, [build_context(InstanceAvailabilityNotification)]) as association:
        answer, _ = association.send_n_create(notice, InstanceAvailabilityNotification, generate_uid())
    code = answer.get("Status")
    if code not in {SUCCESS, DUPLICATE}:
        raise NodeRefuses("The node doesn't take the notification.")


class Told(NamedTuple):
    """An instance as a notification names it."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    availability: str


def _told_of(study: Study) -> QuerySet[Instance]:
    """Give what a notification names: what can be had, and what was rejected."""
    return Instance.objects.filter(Q(is_current=True) | ~Q(rejection_code=""), series__study=study)


def notice_of(study: Study, node: Node) -> Dataset:
    """Give the notification of a study's instances (PS3.4 Table R.3.2-1); what is rejected is unavailable."""
    available = AVAILABILITY[study.tier]
    rows = _told_of(study).order_by("series_id", "instance_number", "pk").select_related("series")
    told = (
        Told(
            i.series.series_instance_uid,
            i.sop_class_uid,
            i.sop_instance_uid,
            available if i.is_current else "UNAVAILABLE",
        )
        for i in rows.iterator(chunk_size=1000)
    )
    return _notice(study.study_instance_uid, told, node)


def _notice(study_instance_uid: str, told: Iterable[Told], node: Node) -> Dataset:
    """Give a notification of instances that come series by series."""
    notice = Dataset()
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.StudyInstanceUID = study_instance_uid
    notice.ReferencedSeriesSequence = []
    for series_instance_uid, instances in groupby(told, key=lambda one: one.series_instance_uid):
        series = Dataset()
        series.SeriesInstanceUID = series_instance_uid
        series.ReferencedSOPSequence = []
        for one in instances:
            reference = Dataset()
            reference.ReferencedSOPClassUID = one.sop_class_uid
            reference.ReferencedSOPInstanceUID = one.sop_instance_uid
            reference.InstanceAvailability = one.availability
            reference.RetrieveAETitle = our_title(node)
            series.ReferencedSOPSequence.append(reference)
        notice.ReferencedSeriesSequence.append(series)
    return notice
