"""Event reports: what subscribers are told (PS3.4 CC.2.4), put in the outbox in the caller's transaction."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from pydicom.datadict import dictionary_VR

from studies import events
from studies.tag_order import in_tag_order
from studies.workitems.attributes import tag_of, values
from studies.workitems.models import EventReport, Subscription, Workitem

Type = EventReport.Type
REPORTED = "workitem.reported"


def report_state(workitem: Workitem, *, only: str = "") -> None:
    """Tell of the workitem's state and readiness; why, too, when it's canceled (PS3.4 Table CC.2.4-1)."""
    information = {
        tag_of("ProcedureStepState"): {"vr": "CS", "Value": [workitem.state]},
        tag_of("InputReadinessState"): {"vr": "CS", "Value": [workitem.input_readiness_state]},
    }
    if workitem.state == Workitem.State.CANCELED:
        progress = values(workitem.attributes, "ProcedureStepProgressInformationSequence")
        for keyword in ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"):
            if progress and (found := values(progress[0], keyword)):
                information[tag_of(keyword)] = {"vr": dictionary_VR(keyword), "Value": found}
    _report(workitem, Type.STATE, information, only=only)


def report_progress(workitem: Workitem) -> None:
    """Tell how far the performer is."""
    _report(workitem, Type.PROGRESS, _copied(workitem.attributes, "ProcedureStepProgressInformationSequence"))


def report_assignment(workitem: Workitem) -> None:
    """Tell for which station and which people the workitem is meant."""
    performers = values(workitem.attributes, "ScheduledHumanPerformersSequence")
    people = [code for performer in performers for code in values(performer, "HumanPerformerCodeSequence")]
    information = _copied(workitem.attributes, "ScheduledStationNameCodeSequence")
    if people:
        information[tag_of("HumanPerformerCodeSequence")] = {"vr": "SQ", "Value": people}
    if performers and (organization := values(performers[0], "HumanPerformerOrganization")):
        information[tag_of("HumanPerformerOrganization")] = {"vr": "LO", "Value": organization}
    _report(workitem, Type.ASSIGNED, information)


def report_cancel_request(workitem: Workitem, request: dict[str, Any], *, requesting: str) -> None:
    """Tell the performer that somebody wants the workitem canceled, and why."""
    information = {tag_of("RequestingAE"): {"vr": "AE", "Value": [requesting[:16]]}}
    for keyword in (
        *("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"),
        *("ContactURI", "ContactDisplayName"),
    ):
        information |= _copied(request, keyword)
    _report(workitem, Type.CANCEL_REQUESTED, information)


def mark_delivered(reports: list[int]) -> None:
    """Forget that these reports wait."""
    EventReport.objects.filter(pk__in=reports, delivered_at__isnull=True).update(delivered_at=timezone.now())


def _copied(content: dict[str, Any], keyword: str) -> dict[str, Any]:
    tag = tag_of(keyword)
    return {tag: content[tag]} if tag in content else {}


def _report(workitem: Workitem, event_type: Type, information: dict[str, Any], *, only: str = "") -> None:
    information = in_tag_order(information)
    subscribers = Subscription.objects.filter(workitem=workitem)
    if only:
        subscribers = subscribers.filter(ae_title=only)
    for ae_title in subscribers.order_by("pk").values_list("ae_title", flat=True):
        report = EventReport.objects.create(
            workitem=workitem, ae_title=ae_title, event_type=event_type, information=information
        )
        events.emit(REPORTED, report=report.pk)
