"""Modality Worklist SCP (PS3.4 Annex K): scheduled procedure steps of the caller's site, from the orders."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import Any

from django.db import DatabaseError
from django.db.models import Q, QuerySet
from django.utils import timezone
from pydicom import DataElement, Dataset
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.sop_class import ModalityWorklistInformationFind

from accounts.models import Site
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dimse.callers import refuse
from studies.dimse.identifiers import NOT_KEYS, InvalidIdentifier, read, text_of, write_texts
from studies.dimse.query import Answer
from studies.dimse.scp import (
    CANCELLED,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_WITH_UNSUPPORTED_KEYS,
    UNABLE_TO_PROCESS,
    Service,
    caller_of,
    session_of,
    status,
)
from studies.lookups import without_retrying
from studies.matching import InvalidKeyValue
from studies.matching.moments import combined, date_range, time_range
from studies.matching.wildcards import is_universal, pattern
from studies.orders.models import Order, ScheduledProcedureStep
from studies.person_names import searchable

logger = logging.getLogger("atrium.dimse")
Status = ScheduledProcedureStep.Status
# What a modality is offered unless it asks by status.
OPEN = (Status.SCHEDULED, Status.ARRIVED, Status.READY)
STEP_SEQUENCE = "ScheduledProcedureStepSequence"
# Return keys of PS3.4 Table K.6-1 that orders say nothing of: they come back empty.
EMPTY_STEP_KEYS = ("PreMedication", "RequestedContrastAgent", "CommentsOnTheScheduledProcedureStep")
EMPTY_KEYS = (
    *("RequestingPhysician", "PatientTransportArrangements", "PatientState", "PregnancyStatus", "MedicalAlerts"),
    *("Allergies", "SpecialNeeds", "PatientWeight", "PatientSize", "ConfidentialityConstraintOnPatientDataDescription"),
    *("ReferencedStudySequence", "ReferencedPatientSequence", "PatientComments", "EthnicGroup", "OtherPatientIDs"),
    *("NamesOfIntendedRecipientsOfResults", "RequestedProcedureComments", "ImagingServiceRequestComments"),
    *(
        "AdditionalPatientHistory",
        "LastMenstrualDate",
        "RequestedProcedureLocation",
        "ReferringPhysicianTelephoneNumbers",
    ),
)
# Byte 3 and 4 of the extended negotiation (PS3.4 Table K.5-1): fuzzy names and time zones aren't matched.
RELATIONAL, DATE_TIME = 1, 1


def negotiate(sop_class: str, asked: bytes) -> bytes:
    """Grant combined date-time matching; dates and times of a step are one moment anyway (PS3.4 §K.6.1.2.2)."""
    return bytes(min(a, b) for a, b in zip(asked, (RELATIONAL, DATE_TIME, 0, 0), strict=False))


def on_find(event: Event) -> Iterator[Answer]:
    """Answer C-FIND with a pending response for each scheduled step that matches (PS3.4 §K.4.1)."""
    caller = caller_of(event)
    if not caller.may_worklist:
        refuse(caller.principal, "the node may not ask for the worklist", site_id=caller.site.pk)
        yield status(NOT_AUTHORISED, "This AE title may not ask for the worklist."), None
        return
    found = 0
    used: dict[str, str] = {}
    try:
        identifier = read(event.identifier, caller.character_set)
        used = dict(_used(identifier))
        own_set = text_of(identifier["SpecificCharacterSet"]) if "SpecificCharacterSet" in identifier else ""
        for step in candidates(caller.site, identifier).iterator(chunk_size=200):
            item = worklist_item(step)
            if not matches(identifier, item):
                continue
            if event.is_cancelled:
                yield CANCELLED, None
                return
            response, is_whole = _requested(identifier, item)
            write_texts(response, caller.character_set, own_set)
            found += 1
            yield (PENDING if is_whole else PENDING_WITH_UNSUPPORTED_KEYS), response
    except (InvalidIdentifier, InvalidKeyValue) as error:
        session_of(event).last_error = str(error)
        yield status(UNABLE_TO_PROCESS, str(error)), None
    except DatabaseError:
        logger.exception("the database failed")
        yield status(OUT_OF_RESOURCES, "The database isn't available."), None
    finally:
        record(
            AuditEvent.Action.SEARCH,
            principal=caller.principal,
            site_id=caller.site.pk,
            details={"way": "modality worklist", "keys": used, "results": found},
        )


def _used(identifier: Dataset, prefix: str = "") -> Iterator[tuple[str, str]]:
    for element in identifier:
        if element.VR == "SQ":
            for item in element.value:
                yield from _used(item, f"{element.keyword}.")
        elif element.keyword not in NOT_KEYS and (text := text_of(element)) and not is_universal(text):
            yield f"{prefix}{element.keyword}", text[:200]


def _step_keys(identifier: Dataset) -> Dataset:
    items = identifier.get(STEP_SEQUENCE)
    return items[0] if items else Dataset()


def candidates(site: Site, identifier: Dataset) -> QuerySet[ScheduledProcedureStep]:
    """Give the site's steps that can match, cut by what is indexed. Raises InvalidKeyValue."""
    keys = _step_keys(identifier)
    steps = ScheduledProcedureStep.objects.filter(order__site=site).exclude(order__status=Order.Status.CANCELLED)
    if not keys.get("ScheduledProcedureStepStatus"):
        steps = steps.filter(status__in=OPEN)
    days = text_of(keys["ScheduledProcedureStepStartDate"]) if "ScheduledProcedureStepStartDate" in keys else ""
    times = text_of(keys["ScheduledProcedureStepStartTime"]) if "ScheduledProcedureStepStartTime" in keys else ""
    steps = steps.filter(_when(days.strip(), times.strip()))
    if modality := str(keys.get("Modality") or "").strip("* "):
        wanted = [part for part in re.split(r"\\", modality) if part]
        if not any({"*", "?"} & set(part) for part in wanted):
            steps = steps.filter(modality__in=wanted)
    accession_number = str(identifier.get("AccessionNumber") or "").strip()
    if accession_number and not {"*", "?"} & set(accession_number):
        steps = steps.filter(order__accession_number=accession_number)
    return steps.select_related("order__patient").order_by("scheduled_at", "pk")


def _when(days: str, times: str) -> Q:
    """Give the condition on when a step begins; a range of both is one span of moments (PS3.4 §K.6.1.2.2)."""
    if is_universal(days):
        return Q()
    dates = date_range(days)
    span = combined(dates, time_range(times) if times and not is_universal(times) else None)
    condition = Q()
    if span.low is not None:
        condition &= Q(scheduled_at__gte=_aware(span.low))
    if span.high is not None:
        condition &= Q(scheduled_at__lte=_aware(span.high))
    return condition


def _aware(moment: datetime) -> datetime:
    if not 2 <= moment.year <= 9998:
        return moment.replace(tzinfo=UTC)
    return timezone.make_aware(moment)


def worklist_item(step: ScheduledProcedureStep) -> Dataset:
    """Give all that is known of a scheduled step (PS3.4 Table K.6-1)."""
    order = step.order
    begins = timezone.localtime(step.scheduled_at)
    scheduled = Dataset()
    scheduled.ScheduledStationAETitle = step.scheduled_station_ae_title
    scheduled.ScheduledStationName = step.scheduled_station_name
    scheduled.ScheduledProcedureStepLocation = step.scheduled_procedure_step_location
    scheduled.ScheduledProcedureStepStartDate = f"{begins:%Y%m%d}"
    scheduled.ScheduledProcedureStepStartTime = f"{begins:%H%M%S}"
    scheduled.Modality = step.modality
    scheduled.ScheduledPerformingPhysicianName = step.scheduled_performing_physician_name
    scheduled.ScheduledProcedureStepDescription = step.scheduled_procedure_step_description
    scheduled.ScheduledProtocolCodeSequence = _codes(step.scheduled_protocol_code)
    scheduled.ScheduledProcedureStepID = step.scheduled_procedure_step_id
    scheduled.ScheduledProcedureStepStatus = step.status
    for keyword in EMPTY_STEP_KEYS:
        setattr(scheduled, keyword, None)
    item = Dataset()
    for keyword in EMPTY_KEYS:
        setattr(item, keyword, None if not keyword.endswith("Sequence") else [])
    setattr(item, STEP_SEQUENCE, [scheduled])
    patient = order.patient
    item.PatientName = patient.patient_name
    item.PatientID = patient.patient_id
    item.IssuerOfPatientID = patient.issuer_of_patient_id
    item.PatientBirthDate = f"{patient.patient_birth_date:%Y%m%d}" if patient.patient_birth_date else ""
    item.PatientSex = patient.patient_sex
    item.AccessionNumber = order.accession_number
    item.StudyInstanceUID = order.study_instance_uid
    item.RequestedProcedureID = order.requested_procedure_id
    item.RequestedProcedureDescription = order.requested_procedure_description[:64]
    item.RequestedProcedureCodeSequence = _codes(order.requested_procedure_code)
    item.RequestedProcedurePriority = order.priority
    item.ReasonForTheRequestedProcedure = order.indication[:64]
    item.ReasonForTheImagingServiceRequest = order.indication[:64]
    item.ReferringPhysicianName = order.referring_physician_name
    item.PlacerOrderNumberImagingServiceRequest = order.placer_order_number
    item.FillerOrderNumberImagingServiceRequest = order.filler_order_number
    item.AdmissionID = order.admission_id
    item.CurrentPatientLocation = order.patient_location
    return item


def _codes(code: dict[str, Any]) -> list[Dataset]:
    if not code.get("value"):
        return []
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = str(code["value"])[:16], str(code.get("scheme", ""))[:16]
    item.CodeMeaning = str(code.get("meaning", ""))[:64]
    return [item]


def matches(identifier: Dataset, item: Dataset) -> bool:
    """Say whether a worklist item matches every key (PS3.4 §C.2.2.2). Raises InvalidKeyValue."""
    has_day = not is_universal(str(identifier.get("ScheduledProcedureStepStartDate") or "").strip())
    for key in identifier:
        if key.keyword in NOT_KEYS or key.tag not in item:
            continue
        if key.keyword == "ScheduledProcedureStepStartTime" and has_day:
            continue  # date and time are one moment, matched by the index
        element = item[key.tag]
        if key.VR == "SQ":
            if key.value and element.value and not any(matches(key.value[0], one) for one in element.value):
                return False
            if key.value and not element.value and any(text_of(k) for k in key.value[0].iterall()):
                return False
        elif not _matches(key, element):
            return False
    return True


def _matches(key: DataElement, element: DataElement) -> bool:
    wanted, value = text_of(key).strip(), text_of(element).strip()
    if is_universal(wanted):
        return True
    if key.keyword == "ScheduledStationAETitle" and not value:
        return True  # a step of no particular station is offered to each
    if key.VR == "UI":
        return value in wanted.split("\\")
    if key.VR == "DA":
        span = date_range(wanted)
        day = date_range(value).low if value else None
        return day is not None and (span.low is None or day >= span.low) and (span.high is None or day <= span.high)
    if key.VR == "TM":
        return bool(value) and _time_matches(wanted, value)
    if key.VR == "PN":
        wanted, value = searchable(wanted), searchable(value)
        names = (value, *value.split("="))
        expression = without_retrying(pattern(wanted)) + ("" if "*" in wanted else r"(\^.*)?")
        return any(re.fullmatch(expression, name, re.DOTALL) for name in names)
    return any(re.fullmatch(without_retrying(pattern(one.strip())), value, re.DOTALL) for one in wanted.split("\\"))


def _time_matches(wanted: str, value: str) -> bool:
    span = time_range(wanted)
    begins = time_range(value).low or time.min
    return (span.low is None or begins >= span.low) and (span.high is None or begins <= span.high)


def _requested(identifier: Dataset, item: Dataset) -> tuple[Dataset, bool]:
    """Give the attributes asked for, and whether all of them are known here."""
    response, is_whole = Dataset(), True
    for key in identifier:
        if key.keyword in NOT_KEYS or key.tag.element == 0:
            continue
        if key.tag not in item:
            is_whole = False
        elif key.VR == "SQ" and key.value and len(key.value[0]) and item[key.tag].value:
            inner = [_requested(key.value[0], one) for one in item[key.tag].value]
            response.add(DataElement(key.tag, "SQ", [one for one, _ in inner]))
            is_whole = is_whole and all(whole for _, whole in inner)
        else:
            response.add(item[key.tag])
    return response, is_whole


SERVICE = Service(
    "Modality Worklist", [ModalityWorklistInformationFind], {evt.EVT_C_FIND: on_find}, negotiate=negotiate
)
