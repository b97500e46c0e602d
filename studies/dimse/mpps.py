"""Modality Performed Procedure Step SCP (PS3.4 Annex F): N-CREATE, N-SET and N-GET."""

from __future__ import annotations

import logging

from django.db import DatabaseError
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.sop_class import ModalityPerformedProcedureStep, ModalityPerformedProcedureStepRetrieve

from studies.dimse.callers import refuse
from studies.dimse.identifiers import read, write_texts
from studies.dimse.scp import (
    DUPLICATE_INSTANCE,
    INVALID_VALUE,
    MISSING_ATTRIBUTE,
    NO_SUCH_INSTANCE,
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
    SUCCESS,
    Service,
    caller_of,
    session_of,
    status,
)
from studies.orders import performed
from studies.orders.errors import OrderRefused

logger = logging.getLogger("atrium.dimse")
# PS3.4 Table F.7.2-2: why an N-SET fails on a step that has ended.
MAY_NO_LONGER_BE_UPDATED = 0xA710
Answer = tuple[int | Dataset, Dataset | None]


def on_create(event: Event) -> Answer:
    """Note that a modality has begun (PS3.4 §F.7.2.1)."""
    caller = caller_of(event)
    if not caller.may_worklist:
        return _not_authorised(event)
    uid = event.request.AffectedSOPInstanceUID
    created = Dataset()
    if not uid:
        uid = generate_uid()
        created.AffectedSOPInstanceUID = uid
    try:
        dataset = read(event.attribute_list, caller.character_set)
        performed.create_performed_step(
            site=caller.site, sop_instance_uid=str(uid), dataset=dataset, principal=caller.principal
        )
    except Exception as error:  # hostile data sets raise what they will
        return _failure(event, error)
    return SUCCESS, created


def on_set(event: Event) -> Answer:
    """Note what a modality adds, or that it has ended (PS3.4 §F.7.2.2)."""
    caller = caller_of(event)
    if not caller.may_worklist:
        return _not_authorised(event)
    try:
        changes = read(event.modification_list, caller.character_set)
        performed.change_performed_step(
            site=caller.site,
            sop_instance_uid=str(event.request.RequestedSOPInstanceUID),
            changes=changes,
            principal=caller.principal,
        )
    except Exception as error:  # hostile data sets raise what they will
        return _failure(event, error)
    return SUCCESS, None


def on_get(event: Event) -> Answer:
    """Give the attributes asked for, or all (PS3.4 §F.8.2.1)."""
    caller = caller_of(event)
    if not caller.may_worklist:
        return _not_authorised(event)
    try:
        uid = str(event.request.RequestedSOPInstanceUID)
        dataset = Dataset.from_json(performed.performed_step(site=caller.site, sop_instance_uid=uid).attributes)
    except Exception as error:
        return _failure(event, error)
    wanted = event.attribute_identifiers
    answer = Dataset()
    for element in dataset:
        if not wanted or element.tag in wanted:
            answer.add(element)
    write_texts(answer, caller.character_set)
    return SUCCESS, answer


def _not_authorised(event: Event) -> Answer:
    caller = caller_of(event)
    refuse(caller.principal, "the node may not tell performed procedure steps", site_id=caller.site.pk)
    return status(NOT_AUTHORISED, "This AE title may not use MPPS."), None


def _failure(event: Event, error: Exception) -> Answer:
    """Give the status that PS3.7 §10.1 and PS3.4 §F.7.2 have for it."""
    session_of(event).last_error = str(error) if isinstance(error, OrderRefused) else "The request can't be read."
    if isinstance(error, performed.StepAlreadyThere):
        return status(DUPLICATE_INSTANCE, str(error)), None
    if isinstance(error, performed.StepUnknown):
        return status(NO_SUCH_INSTANCE, str(error)), None
    if isinstance(error, performed.StepIsOver):
        return status(PROCESSING_FAILURE, str(error), ErrorID=MAY_NO_LONGER_BE_UPDATED), None
    if isinstance(error, performed.AttributeMissing):
        return status(MISSING_ATTRIBUTE, str(error)), None
    if isinstance(error, performed.AttributeNotAllowed):
        return status(INVALID_VALUE, str(error)), None
    logger.exception("the database failed" if isinstance(error, DatabaseError) else "a performed step can't be read")
    return status(PROCESSING_FAILURE, "The request can't be processed."), None


SERVICE = Service(
    "Modality Performed Procedure Step",
    [ModalityPerformedProcedureStep],
    {evt.EVT_N_CREATE: on_create, evt.EVT_N_SET: on_set},
)
RETRIEVE_SERVICE = Service(
    "Modality Performed Procedure Step Retrieve", [ModalityPerformedProcedureStepRetrieve], {evt.EVT_N_GET: on_get}
)
