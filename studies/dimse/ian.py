"""Instance Availability Notification (PS3.4 Annex R): we take it, and tell of what has come and what is withdrawn."""

from __future__ import annotations

import json
import logging
from typing import Any

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
DUE = "availability.due"
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
    wanting = Node.objects.filter(
        site_id=study.site_id, wants_availability_notification=True, is_active=True, kind=Node.Kind.DIMSE
    )
    for node in wanting:
        if node.can_be_called:
            events.emit(DUE, study=study.pk, node=node.pk)


@events.handle(DUE)
def send_notice(payload: dict[str, Any]) -> None:
    """Tell a node which instances of a study can be had here. Raises NodeError for a later attempt."""
    study = Study.objects.filter(pk=payload["study"]).first()
    node = Node.objects.filter(pk=payload["node"], is_active=True).first()
    if study is None or node is None:
        return
    with associated(node, [build_context(InstanceAvailabilityNotification)]) as association:
        answer, _ = association.send_n_create(notice_of(study, node), InstanceAvailabilityNotification, generate_uid())
    code = answer.get("Status")
    if code not in {SUCCESS, DUPLICATE}:
        raise NodeRefuses("The node doesn't take the notification.")


def _told_of(study: Study) -> QuerySet[Instance]:
    """Give what a notification names: what can be had, and what was rejected."""
    return Instance.objects.filter(Q(is_current=True) | ~Q(rejection_code=""), series__study=study)


def notice_of(study: Study, node: Node) -> Dataset:
    """Give the notification of a study's instances (PS3.4 Table R.3.2-1); what is rejected is unavailable."""
    notice = Dataset()
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.StudyInstanceUID = study.study_instance_uid
    notice.ReferencedSeriesSequence = []
    instances = _told_of(study).select_related("series")
    uid = ""
    for instance in instances.order_by("series_id", "instance_number", "pk").iterator(chunk_size=1000):
        if instance.series.series_instance_uid != uid:
            uid = instance.series.series_instance_uid
            series = Dataset()
            series.SeriesInstanceUID = uid
            series.ReferencedSOPSequence = []
            notice.ReferencedSeriesSequence.append(series)
        reference = Dataset()
        reference.ReferencedSOPClassUID = instance.sop_class_uid
        reference.ReferencedSOPInstanceUID = instance.sop_instance_uid
        reference.InstanceAvailability = AVAILABILITY[study.tier] if instance.is_current else "UNAVAILABLE"
        reference.RetrieveAETitle = our_title(node)
        series.ReferencedSOPSequence.append(reference)
    return notice
