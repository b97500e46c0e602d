"""Event reports of workitems to subscribers (PS3.4 CC.2.4): N-EVENT-REPORT on an association of our own."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import timedelta
from typing import Any

from django.utils import timezone
from pynetdicom import build_context, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import UnifiedProcedureStepEvent, UnifiedProcedureStepPush

from studies.dimse.calling import associated
from studies.dimse.errors import NodeRefuses
from studies.dimse.models import Node
from studies.dimse.scp import MESSAGE_SYNTAXES
from studies.events import handle
from studies.workitems.models import EventReport
from studies.workitems.reports import REPORTED, mark_delivered
from studies.workitems.selectors import dataset_of

logger = logging.getLogger("atrium.dimse")
# Older news help nobody; the subscriber asks for the state when it's back.
GIVEN_UP_AFTER = timedelta(days=1)


@handle(REPORTED)
def deliver_report(payload: dict[str, Any]) -> None:
    """Tell a subscriber that is a node all that waits for it, in order. Raises NodeError for a later attempt.

    Subscribers that aren't nodes are told by their WebSocket.
    """
    report = EventReport.objects.select_related("workitem").filter(pk=payload["report"]).first()
    if report is None or report.delivered_at is not None:
        return
    node = Node.objects.filter(
        ae_title=report.ae_title, site_id=report.workitem.site_id, is_active=True, kind=Node.Kind.DIMSE
    ).first()
    if node is None or not node.can_be_called or report.created_at < timezone.now() - GIVEN_UP_AFTER:
        return
    waiting = EventReport.objects.filter(
        ae_title=node.ae_title, workitem__site_id=node.site_id, delivered_at__isnull=True, pk__lte=report.pk
    ).select_related("workitem")
    contexts = [build_context(UnifiedProcedureStepEvent, list(MESSAGE_SYNTAXES[:2]))]
    # We call, and are the SCP all the same (PS3.4 CC.2.4.3, PS3.7 D.3.3.4).
    roles = [build_role(UnifiedProcedureStepEvent, scu_role=True, scp_role=True)]
    counts: Counter[str] = Counter()
    with associated(node, contexts, negotiation=roles) as association:
        for one in waiting.order_by("pk"):
            _tell(association, one)
            mark_delivered([one.pk])
            counts[one.get_event_type_display()] += 1
    logger.info("workitem events delivered", extra={"ae_title": node.ae_title, "events": dict(counts)})


def _tell(association: Association, report: EventReport) -> None:
    answer, _ = association.send_n_event_report(
        dataset_of(report.information),
        report.event_type,
        UnifiedProcedureStepPush,
        report.workitem.sop_instance_uid,
        meta_uid=UnifiedProcedureStepEvent,
    )
    code = answer.get("Status")
    # A refusal of one event is an answer; silence is none.
    if code is None:
        raise NodeRefuses("The subscriber broke off.")
    if code != 0x0000:
        logger.warning("event report refused", extra={"ae_title": report.ae_title, "status": f"{code:04X}"})
