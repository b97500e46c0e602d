"""Unified Procedure Step SCP: Push, Pull, Watch, Query (PS3.4 Annex CC). The rules are ``studies.workitems``' own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from django.db import DatabaseError
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
    UPSFilteredGlobalSubscriptionInstance,
    UPSGlobalSubscriptionInstance,
)

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dimse.callers import Caller, refuse
from studies.dimse.identifiers import InvalidIdentifier, answer, keys_of, read, requested, write_texts
from studies.dimse.models import Node
from studies.dimse.scp import (
    CANCELLED,
    IDENTIFIER_DOES_NOT_MATCH,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_WITH_UNSUPPORTED_KEYS,
    PROCESSING_FAILURE,
    SUCCESS,
    UNABLE_TO_PROCESS,
    Service,
    caller_of,
    status,
)
from studies.workitems import matching, selectors, services, subscriptions
from studies.workitems.attributes import tag_of
from studies.workitems.errors import InappropriateAction, InvalidWorkitem, WorkitemError
from studies.workitems.models import Workitem

logger = logging.getLogger("atrium.dimse")
Answer = tuple[int | Dataset, Dataset | None]

# Action Type IDs (PS3.4 Table CC.2.1-1, CC.2.2-1, CC.2.3-1).
CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = range(1, 6)
NO_SUCH_ACTION = 0x0123
MISSING_ATTRIBUTE = 0x0120
OPTIONAL_NOT_SUPPORTED = 0x0001
UNKNOWN_RECEIVING_AE = 0xC308
GLOBAL = {UPSGlobalSubscriptionInstance, UPSFilteredGlobalSubscriptionInstance}


def answers_errors(handler: Callable[[Event, Caller], Answer]) -> Callable[[Event], Answer]:
    """Turn who may not and what can't be done into a status with its comment."""

    @wraps(handler)
    def handled(event: Event) -> Answer:
        caller = caller_of(event)
        if not caller.may_perform:
            refuse(caller.principal, "the node may not work on workitems", site_id=caller.site.pk)
            return status(NOT_AUTHORISED, "This AE title may not work on workitems."), None
        try:
            return handler(event, caller)
        except WorkitemError as error:
            return status(error.status, error.reason), None
        except InvalidIdentifier as error:
            return status(InvalidWorkitem.status, str(error)), None
        except DatabaseError:
            logger.exception("the database failed")
            return status(PROCESSING_FAILURE, "The database isn't available."), None

    return handled


def _read(event: Event, dataset: Dataset, caller: Caller) -> Dataset:
    """Give the request's data set with its texts decoded. Raises InvalidIdentifier."""
    return read(dataset, caller.character_set)


def _done(done: services.Done, dataset: Dataset | None) -> Answer:
    return (status(done.warning) if done.warning else SUCCESS), dataset


@answers_errors
def on_create(event: Event, caller: Caller) -> Answer:
    """Create a workitem (PS3.4 CC.2.5)."""
    done = services.create_workitem(
        site=caller.site,
        dataset=_read(event, event.attribute_list, caller),
        principal=caller.principal,
        sop_instance_uid=str(event.request.AffectedSOPInstanceUID or ""),
    )
    created = selectors.dataset_of(selectors.json_of(done.workitem))
    if event.request.AffectedSOPInstanceUID is None:
        created.AffectedSOPInstanceUID = done.workitem.sop_instance_uid
    return _done(done, created)


def _workitem(principal: Principal, uid: Any) -> Workitem:
    return selectors.visible_workitem(principal, str(uid or ""))


@answers_errors
def on_set(event: Event, caller: Caller) -> Answer:
    """Change attributes (PS3.4 CC.2.6); the Transaction UID stands in the modification list."""
    done = services.update_workitem(
        workitem=_workitem(caller.principal, event.request.RequestedSOPInstanceUID),
        dataset=_read(event, event.modification_list, caller),
        principal=caller.principal,
    )
    return _done(done, None)


@answers_errors
def on_get(event: Event, caller: Caller) -> Answer:
    """Give a workitem's attributes, those asked for or all (PS3.4 CC.2.7)."""
    workitem = _workitem(caller.principal, event.request.RequestedSOPInstanceUID)
    content = selectors.json_of(workitem)
    wanted = {f"{tag:08X}" for tag in event.attribute_identifiers}
    given = {tag: element for tag, element in content.items() if not wanted or tag in wanted}
    record(
        AuditEvent.Action.VIEW,
        principal=caller.principal,
        site_id=workitem.site_id,
        patient_id=workitem.patient_id,
        patient_name=workitem.patient_name,
        study_instance_uid=workitem.study_instance_uid,
        details={"way": "N-GET", "workitem": workitem.sop_instance_uid},
    )
    dataset = selectors.dataset_of(given)
    unknown = {tag for tag in wanted - content.keys() if not keyword_for_tag(int(tag, 16))}
    return (status(OPTIONAL_NOT_SUPPORTED) if unknown else SUCCESS), dataset


@answers_errors
def on_action(event: Event, caller: Caller) -> Answer:
    """Change the state, request cancellation, or subscribe (PS3.4 CC.2.1 to CC.2.3)."""
    information = _read(event, event.action_information or Dataset(), caller)
    uid = str(event.request.RequestedSOPInstanceUID or "")
    if event.action_type in {SUBSCRIBE, UNSUBSCRIBE, SUSPEND}:
        return _subscription(event.action_type, uid, information, caller)
    if event.action_type == CHANGE_STATE:
        done = services.change_state(
            workitem=_workitem(caller.principal, uid),
            state=str(information.get("ProcedureStepState") or ""),
            transaction_uid=str(information.get("TransactionUID") or ""),
            principal=caller.principal,
        )
        return _done(done, None)
    if event.action_type == REQUEST_CANCEL:
        done = services.request_cancellation(
            workitem=_workitem(caller.principal, uid), dataset=information, principal=caller.principal
        )
        return _done(done, None)
    return status(NO_SUCH_ACTION, "There is no such action."), None


def _subscription(action: int, uid: str, information: Dataset, caller: Caller) -> Answer:
    ae_title = str(information.get("ReceivingAE") or "").strip()
    if not ae_title:
        return status(MISSING_ATTRIBUTE, "ReceivingAE is missing."), None
    if not Node.objects.filter(ae_title=ae_title, site=caller.site, is_active=True).exists():
        return status(UNKNOWN_RECEIVING_AE, "The receiving AE title is unknown here."), None
    deletion_lock = str(information.get("DeletionLock") or "").strip().upper() == "TRUE"
    if uid in GLOBAL:
        at: dict[str, Any] = {"site": caller.site, "ae_title": ae_title, "principal": caller.principal}
        if action == SUBSCRIBE:
            subscriptions.subscribe_globally(**at, keys=_filter(uid, information), deletion_lock=deletion_lock)
        elif action == UNSUBSCRIBE:
            subscriptions.unsubscribe_globally(**at)
        else:
            subscriptions.suspend_globally(**at)
        return SUCCESS, None
    workitem = _workitem(caller.principal, uid)
    if action == SUBSCRIBE:
        subscriptions.subscribe(
            workitem=workitem, ae_title=ae_title, principal=caller.principal, deletion_lock=deletion_lock
        )
    elif action == UNSUBSCRIBE:
        subscriptions.unsubscribe(workitem=workitem, ae_title=ae_title, principal=caller.principal)
    else:
        raise InappropriateAction
    return SUCCESS, None


def _filter(uid: str, information: Dataset) -> dict[str, str]:
    if uid == UPSGlobalSubscriptionInstance:
        return {}
    keys = {path: value for path, value in keys_of(information) if path not in {"ReceivingAE", "DeletionLock"}}
    if not any(keys.values()):
        raise InvalidWorkitem("The filtered subscription has no filter.")
    return {path: value for path, value in keys.items() if value}


def on_find(event: Event) -> Iterator[Answer]:
    """Answer C-FIND with one pending response for each workitem that matches (PS3.4 CC.2.8)."""
    caller = caller_of(event)
    if not caller.may_perform:
        refuse(caller.principal, "the node may not work on workitems", site_id=caller.site.pk)
        yield status(NOT_AUTHORISED, "This AE title may not work on workitems."), None
        return
    try:
        identifier = read(event.identifier, caller.character_set)
        keys = dict(keys_of(identifier))
        used = {path: value for path, value in keys.items() if path in matching.KEYS}
        rows = selectors.search(caller.principal, used)
    except (InvalidIdentifier, InvalidWorkitem) as error:
        yield status(IDENTIFIER_DOES_NOT_MATCH, str(error)), None
        return
    except Exception:  # pydicom raises what it will on garbage
        logger.exception("an identifier can't be read")
        yield status(UNABLE_TO_PROCESS, "The identifier can't be read."), None
        return
    code = PENDING_WITH_UNSUPPORTED_KEYS if any(v for p, v in keys.items() if p not in matching.KEYS) else PENDING
    wanted = requested(identifier)
    wanted.setdefault(tag_of("SOPInstanceUID"), None)
    wanted.setdefault(tag_of("SOPClassUID"), None)
    found = 0
    try:
        for workitem in rows.iterator(chunk_size=200):
            if event.is_cancelled:
                yield CANCELLED, None
                return
            response = answer(wanted, selectors.json_of(workitem), wanted)
            write_texts(response, caller.character_set)
            found += 1
            yield code, response
    except DatabaseError:
        logger.exception("the database failed")
        yield status(OUT_OF_RESOURCES, "The database isn't available."), None
    finally:
        record(
            AuditEvent.Action.SEARCH,
            principal=caller.principal,
            site_id=caller.site.pk,
            details={
                "way": "C-FIND",
                "level": "UPS",
                "keys": {k: v[:200] for k, v in used.items() if v},
                "results": found,
            },
        )


SERVICE = Service(
    "Unified Procedure Step",
    [UnifiedProcedureStepPush, UnifiedProcedureStepPull, UnifiedProcedureStepWatch, UnifiedProcedureStepQuery],
    {
        evt.EVT_N_CREATE: on_create,
        evt.EVT_N_SET: on_set,
        evt.EVT_N_GET: on_get,
        evt.EVT_N_ACTION: on_action,
        evt.EVT_C_FIND: on_find,
    },
)
