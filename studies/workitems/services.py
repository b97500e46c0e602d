"""Every write on workitems: the state machine of PS3.4 Table CC.1.1-2 with its statuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.uid import generate_uid

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.matching import remember_names
from studies.uids import is_uid
from studies.workitems import attributes as a
from studies.workitems.errors import (
    AlreadyCompleted,
    AlreadyInProgress,
    DuplicateWorkitem,
    InvalidWorkitem,
    MissingTransaction,
    MustBeScheduled,
    NoLongerUpdatable,
    NotAuthorised,
    NotInProgress,
    ScheduledOnlyByCreation,
    WrongTransaction,
)
from studies.workitems.models import Workitem, WorkitemKey
from studies.workitems.reports import report_assignment, report_cancel_request, report_progress, report_state
from studies.workitems.subscriptions import subscribe_to_new

State = Workitem.State
DEFAULT_WORKLIST = "GENERAL"


@dataclass(frozen=True)
class Done:
    """What an operation did, and its warning status (PS3.4 CC.2), 0 for none."""

    workitem: Workitem
    warning: int = 0x0000


CREATED_WITH_MODIFICATIONS = 0xB300
ALREADY_CANCELED = 0xB304
ALREADY_COMPLETED = 0xB306
COERCED = 0xB305


@transaction.atomic
def create_workitem(*, site: Site, dataset: Dataset, principal: Principal, sop_instance_uid: str = "") -> Done:
    """Make a workitem in state SCHEDULED (PS3.4 CC.2.5). Without a UID one is made for it.

    Raises NotAuthorised, DuplicateWorkitem, MustBeScheduled, InvalidWorkitem and its kinds.
    """
    _may(principal, Capability.WORKITEM_PERFORM, site.pk)
    content = a.read(dataset)
    state = a.text(content, "ProcedureStepState", 16)
    if state != State.SCHEDULED:
        raise MustBeScheduled
    for keyword in a.EMPTY_AT_FIRST:
        if a.values(content, keyword):
            raise InvalidWorkitem(f"{keyword} must be empty at first.")
    if a.values(content, "TransactionUID"):
        raise InvalidWorkitem("TransactionUID must be empty at first.")
    sop_instance_uid = sop_instance_uid or a.text(content, "SOPInstanceUID", 65) or generate_uid()
    if not is_uid(sop_instance_uid):
        raise InvalidWorkitem("The SOP Instance UID is no valid UID.")
    if Workitem.objects.filter(site=site, sop_instance_uid=sop_instance_uid).exists():
        raise DuplicateWorkitem
    columns = a.columns(content)
    was_modified = not columns["worklist_label"]
    columns["worklist_label"] = columns["worklist_label"] or DEFAULT_WORKLIST
    try:
        with transaction.atomic():
            workitem = Workitem.objects.create(
                site=site,
                sop_instance_uid=sop_instance_uid,
                attributes=_kept(content),
                modified_at=timezone.now(),
                **columns,
            )
    except IntegrityError as error:
        raise DuplicateWorkitem from error
    _keep_keys(workitem)
    remember_names([workitem.patient_name_search])
    subscribe_to_new(workitem)
    report_state(workitem)
    if _is_assigned(content):
        report_assignment(workitem)
    _record("workitem created", workitem, principal)
    return Done(workitem, CREATED_WITH_MODIFICATIONS if was_modified else 0)


@transaction.atomic
def update_workitem(*, workitem: Workitem, dataset: Dataset, principal: Principal, transaction_uid: str = "") -> Done:
    """Change attributes (PS3.4 CC.2.6); a sequence is replaced as a whole.

    In progress, the performer's Transaction UID is needed; it may stand in the data set, too.
    Raises NotAuthorised, NoLongerUpdatable, NotInProgress, WrongTransaction, InvalidWorkitem and its kinds.
    """
    _may(principal, Capability.WORKITEM_PERFORM, workitem.site_id)
    workitem = _locked(workitem)
    content = a.read(dataset)
    transaction_uid = transaction_uid or a.text(content, "TransactionUID", 64)
    if workitem.is_final:
        raise NoLongerUpdatable
    if workitem.state == State.SCHEDULED and transaction_uid:
        raise NotInProgress
    if workitem.state == State.IN_PROGRESS:
        _check_transaction(workitem, transaction_uid)
    content.pop(a.tag_of("TransactionUID"), None)
    forbidden = [k for k in (*a.OURS, *a.FIXED) if a.tag_of(k) in content]
    if forbidden:
        raise InvalidWorkitem(f"Not to be changed: {', '.join(forbidden)}.")
    before, workitem.attributes = workitem.attributes, {**workitem.attributes, **content}
    columns = a.columns(workitem.attributes)
    columns["worklist_label"] = columns["worklist_label"] or workitem.worklist_label
    for name, value in columns.items():
        setattr(workitem, name, value)
    _save(workitem)
    _keep_keys(workitem)
    _report_changes(workitem, before)
    _record("workitem changed", workitem, principal)
    return Done(workitem)


def _report_changes(workitem: Workitem, before: dict[str, Any]) -> None:
    def changed(keyword: str) -> bool:
        return bool(before.get(a.tag_of(keyword)) != workitem.attributes.get(a.tag_of(keyword)))

    if changed("InputReadinessState"):
        report_state(workitem)
    if changed("ProcedureStepProgressInformationSequence"):
        report_progress(workitem)
    if changed("ScheduledStationNameCodeSequence") or changed("ScheduledHumanPerformersSequence"):
        report_assignment(workitem)


@transaction.atomic
def change_state(*, workitem: Workitem, state: str, transaction_uid: str, principal: Principal) -> Done:
    """Claim, complete or cancel a workitem (PS3.4 CC.2.1).

    Claiming it locks it with the performer's Transaction UID, which every later change must name.
    Raises NotAuthorised, ScheduledOnlyByCreation, WrongTransaction, AlreadyInProgress, NoLongerUpdatable,
    NotInProgress, FinalStateNotMet, InvalidWorkitem.
    """
    _may(principal, Capability.WORKITEM_PERFORM, workitem.site_id)
    workitem = _locked(workitem)
    if state == State.SCHEDULED:
        raise ScheduledOnlyByCreation
    if state not in State.values:
        raise InvalidWorkitem("The Procedure Step State is none that can be asked for.")
    if not transaction_uid:
        raise MissingTransaction
    if not is_uid(transaction_uid):
        raise WrongTransaction("The Transaction UID is no valid UID.")
    if workitem.state == State.SCHEDULED:
        if state != State.IN_PROGRESS:
            raise NotInProgress
        workitem.transaction_uid = transaction_uid
    else:
        _check_transaction(workitem, transaction_uid)
        if state == workitem.state and workitem.is_final:
            return Done(workitem, ALREADY_COMPLETED if state == State.COMPLETED else ALREADY_CANCELED)
        if workitem.is_final:
            raise NoLongerUpdatable
        if state == State.IN_PROGRESS:
            raise AlreadyInProgress
        a.check_final_state(workitem.attributes, state)
    _enter(workitem, state)
    _record(f"workitem {state.lower()}", workitem, principal)
    return Done(workitem)


@transaction.atomic
def request_cancellation(*, workitem: Workitem, dataset: Dataset, principal: Principal) -> Done:
    """Ask that a workitem be canceled (PS3.4 CC.2.2).

    One that nobody has claimed is canceled at once; otherwise its performer is told and decides.
    Raises NotAuthorised, AlreadyCompleted, InvalidWorkitem.
    """
    if not principal.may(Capability.WORKITEM_VIEW, workitem.site_id):
        _may(principal, Capability.WORKITEM_PERFORM, workitem.site_id)
    workitem = _locked(workitem)
    request = a.read(dataset)
    if workitem.state == State.COMPLETED:
        raise AlreadyCompleted
    if workitem.state == State.CANCELED:
        return Done(workitem, ALREADY_CANCELED)
    if workitem.state == State.IN_PROGRESS:
        report_cancel_request(workitem, request, requesting=principal.ae_title or principal.name)
        _record("workitem cancellation requested", workitem, principal)
        return Done(workitem)
    workitem.transaction_uid = generate_uid()
    workitem.attributes[a.tag_of("ProcedureStepProgressInformationSequence")] = {
        "vr": "SQ",
        "Value": [_discontinuation(request)],
    }
    _enter(workitem, State.IN_PROGRESS)
    _enter(workitem, State.CANCELED)
    _record("workitem canceled", workitem, principal)
    return Done(workitem)


def _discontinuation(request: dict[str, Any]) -> dict[str, Any]:
    """Give the progress item of a workitem that we cancel (PS3.4 CC.2.2.3), its reason 'unspecified' unless told."""
    reasons = "ProcedureStepDiscontinuationReasonCodeSequence"
    unspecified = {"00080100": ("SH", "110513"), "00080102": ("SH", "DCM")}
    code = {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in unspecified.items()}
    code["00080104"] = {"vr": "LO", "Value": ["Discontinued for unspecified reason"]}
    item = {
        a.tag_of(reasons): {"vr": "SQ", "Value": a.values(request, reasons) or [code]},
        a.tag_of("ProcedureStepCancellationDateTime"): {
            "vr": "DT",
            "Value": [timezone.now().strftime("%Y%m%d%H%M%S+0000")],
        },
    }
    for keyword in ("ReasonForCancellation", "ProcedureStepCommunicationsURISequence"):
        if a.values(request, keyword):
            item[a.tag_of(keyword)] = {"vr": dictionary_VR(keyword), "Value": a.values(request, keyword)}
    return item


def _may(principal: Principal, capability: Capability, site_id: int) -> None:
    if not principal.may(capability, site_id):
        raise NotAuthorised


def _locked(workitem: Workitem) -> Workitem:
    return Workitem.objects.select_for_update().get(pk=workitem.pk)


def _check_transaction(workitem: Workitem, transaction_uid: str) -> None:
    if not transaction_uid:
        raise MissingTransaction
    if transaction_uid != workitem.transaction_uid:
        raise WrongTransaction


def _enter(workitem: Workitem, state: str) -> None:
    workitem.state = state
    _save(workitem)
    report_state(workitem)


def _save(workitem: Workitem) -> None:
    workitem.modified_at = timezone.now()
    workitem.save()


def _kept(content: dict[str, Any]) -> dict[str, Any]:
    ours = {a.tag_of(keyword) for keyword in a.OURS}
    return {tag: element for tag, element in content.items() if tag not in ours}


def _keep_keys(workitem: Workitem) -> None:
    WorkitemKey.objects.filter(workitem=workitem).delete()
    WorkitemKey.objects.bulk_create(
        WorkitemKey(workitem=workitem, path=path, value=value) for path, value in a.sequence_keys(workitem.attributes)
    )


def _is_assigned(content: dict[str, Any]) -> bool:
    return bool(
        a.values(content, "ScheduledStationNameCodeSequence") or a.values(content, "ScheduledHumanPerformersSequence")
    )


def _record(what: str, workitem: Workitem, principal: Principal) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=workitem.site_id,
        patient_id=workitem.patient_id,
        patient_name=workitem.patient_name,
        study_instance_uid=workitem.study_instance_uid,
        details={"what": what, "workitem": workitem.sop_instance_uid, "state": workitem.state},
    )
