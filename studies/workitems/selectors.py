"""Reads of workitems; each begins at the gate: the sites where the principal works on or sees them."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.db.models import QuerySet
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID
from pynetdicom.sop_class import UnifiedProcedureStepPush  # type: ignore[attr-defined]

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.access import sites_where
from studies.matching import Options
from studies.tag_order import in_tag_order
from studies.workitems.attributes import tag_of
from studies.workitems.errors import NoSuchWorkitem
from studies.workitems.matching import condition
from studies.workitems.models import EventReport, Workitem

UPS_CLASS: UID = UnifiedProcedureStepPush


def sites_with_workitems_of(principal: Principal) -> QuerySet[Site]:
    """Give the sites whose workitems the principal may see."""
    seen = sites_where(principal, Capability.WORKITEM_VIEW)
    return (seen | sites_where(principal, Capability.WORKITEM_PERFORM)).distinct()


def workitems_visible_to(principal: Principal) -> QuerySet[Workitem]:
    """Give the workitems that the principal may see."""
    return Workitem.objects.filter(site__in=sites_with_workitems_of(principal))


def visible_workitem(principal: Principal, sop_instance_uid: str) -> Workitem:
    """Give one workitem. Raises NoSuchWorkitem alike for one that isn't there and one that isn't theirs."""
    workitem = workitems_visible_to(principal).filter(sop_instance_uid=sop_instance_uid).order_by("pk").first()
    if workitem is None:
        raise NoSuchWorkitem
    return workitem


def search(principal: Principal, keys: dict[str, str], options: Options | None = None) -> QuerySet[Workitem]:
    """Give the visible workitems that meet the keys, the next to be done first. Raises InvalidWorkitem."""
    return workitems_visible_to(principal).filter(condition(keys, options)).order_by("scheduled_start_at", "pk")


def waiting_reports(principal: Principal, ae_title: str, *, after: int = 0) -> QuerySet[EventReport]:
    """Give what a subscriber is still to be told of visible workitems, in order."""
    return (
        EventReport.objects.filter(
            ae_title=ae_title,
            delivered_at__isnull=True,
            pk__gt=after,
            workitem__site__in=sites_with_workitems_of(principal),
        )
        .select_related("workitem")
        .order_by("pk")
    )


def json_of(workitem: Workitem) -> dict[str, Any]:
    """Give the workitem as DICOM JSON; the Transaction UID stays here (PS3.4 CC.2.7.3)."""
    content = dict(workitem.attributes)
    modified = workitem.modified_at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    for keyword, value in (
        ("SOPClassUID", UPS_CLASS),
        ("SOPInstanceUID", workitem.sop_instance_uid),
        ("ProcedureStepState", workitem.state),
        ("ScheduledProcedureStepModificationDateTime", modified),
        ("WorklistLabel", workitem.worklist_label),
    ):
        content[tag_of(keyword)] = {"vr": dictionary_VR(keyword), "Value": [str(value)]}
    return in_tag_order(content)


def dataset_of(content: dict[str, Any]) -> Dataset:
    """Give DICOM JSON as a data set in UTF-8."""
    dataset = Dataset.from_json(content)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset
