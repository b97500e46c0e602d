"""Query SCP (PS3.4 Annex C): C-FIND in the Patient Root, Study Root and Patient/Study Only information models."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientStudyOnlyQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.access import studies_visible_to
from studies.dimse.callers import refuse
from studies.dimse.identifiers import InvalidIdentifier, answer, keys_of, read, requested, text_of, write_texts
from studies.dimse.scp import (
    CANCELLED,
    IDENTIFIER_DOES_NOT_MATCH,
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
from studies.matching import (
    Criteria,
    Level,
    MatchingError,
    Options,
    counted_attributes,
    criteria_of,
    instance_attributes,
    matching_instances,
    matching_patients,
    matching_series,
    matching_studies,
    patient_attributes,
    series_attributes,
    study_attributes,
    tag_of,
    tags_at,
)
from studies.matching.results import AVAILABILITY, Content, element
from studies.models import Instance, Series, Study

logger = logging.getLogger("atrium.dimse")
PAGE = 200
Answer = tuple[int | Dataset, Dataset | None]

LEVELS = {"PATIENT": Level.PATIENT, "STUDY": Level.STUDY, "SERIES": Level.SERIES, "IMAGE": Level.INSTANCE}
LEVEL_NAMES = {level: name for name, level in LEVELS.items()}
# PS3.4 Tables C.6.1-1, C.6.2-1 and C.6.3-1: the levels of each information model.
MODELS: dict[str, tuple[Level, ...]] = {
    PatientRootQueryRetrieveInformationModelFind: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE),
    StudyRootQueryRetrieveInformationModelFind: (Level.STUDY, Level.SERIES, Level.INSTANCE),
    PatientStudyOnlyQueryRetrieveInformationModelFind: (Level.PATIENT, Level.STUDY),
}
# Returned whether asked for or not: they name the entity (PS3.4 §C.4.1.1.3.2).
UNIQUE_KEYS = {
    Level.PATIENT: ("PatientID",),
    Level.STUDY: ("StudyInstanceUID",),
    Level.SERIES: ("StudyInstanceUID", "SeriesInstanceUID"),
    Level.INSTANCE: ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}
# The bytes of SOP Class Extended Negotiation (PS3.4 Table C.5-1).
RELATIONAL, DATE_TIME, FUZZY, TIME_ZONE, ENHANCED_CONVERSION = range(5)
SUPPORTED_EXTENSIONS = bytes((1, 1, 1, 1, 0))


def negotiate(sop_class: str, asked: bytes) -> bytes:
    """Grant of the extensions asked for those that we have: relational, date-time, fuzzy names, time zone."""
    return bytes(min(a, b) for a, b in zip(asked, SUPPORTED_EXTENSIONS, strict=False))


def options_of(event: Event) -> Options:
    """Give what was negotiated for the request's SOP class."""
    granted = (
        session_of(event).extensions.get(event.context.abstract_syntax, b"").ljust(len(SUPPORTED_EXTENSIONS), b"\0")
    )
    return Options(is_fuzzy=bool(granted[FUZZY]), combines_datetime=bool(granted[DATE_TIME]))


def on_find(event: Event) -> Iterator[Answer]:
    """Answer C-FIND with one pending response for each match (PS3.4 §C.4.1.3)."""
    caller = caller_of(event)
    if not caller.may_query:
        refuse(caller.principal, "the node may not query", site_id=caller.site.pk)
        yield status(NOT_AUTHORISED, "This AE title may not query."), None
        return
    try:
        identifier = read(event.identifier, caller.character_set)
        level = _level(identifier, event.context.abstract_syntax)
        criteria = criteria_of(keys_of(identifier), options_of(event))
    except InvalidIdentifier as error:
        yield status(IDENTIFIER_DOES_NOT_MATCH, str(error)), None
        return
    except MatchingError as error:
        yield status(UNABLE_TO_PROCESS, str(error)), None
        return
    except Exception:  # pydicom raises what it will on garbage
        logger.exception("an identifier can't be read")
        yield status(UNABLE_TO_PROCESS, "The identifier can't be read."), None
        return
    code = PENDING_WITH_UNSUPPORTED_KEYS if criteria.unsupported else PENDING
    found = 0
    try:
        for response in _responses(caller.principal, criteria, identifier, level):
            if event.is_cancelled:
                yield CANCELLED, None
                return
            write_texts(
                response,
                caller.character_set,
                text_of(identifier["SpecificCharacterSet"]) if "SpecificCharacterSet" in identifier else "",
            )
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
            details={"way": "C-FIND", "level": LEVEL_NAMES[level], "keys": criteria.used, "results": found},
        )


def _level(identifier: Dataset, model: str) -> Level:
    name = str(identifier.get("QueryRetrieveLevel") or "").strip()
    if name not in LEVELS:
        raise InvalidIdentifier("The Query/Retrieve Level is missing or unknown.")
    if LEVELS[name] not in MODELS[model]:
        raise InvalidIdentifier("The information model has no such level.")
    return LEVELS[name]


def _responses(principal: Principal, criteria: Criteria, identifier: Dataset, level: Level) -> Iterator[Dataset]:
    wanted = requested(identifier)
    wanted.update({tag_of(keyword): None for keyword in UNIQUE_KEYS[level] if tag_of(keyword) not in wanted})
    known = frozenset[str]().union(*(tags_at(one) for one in LEVELS.values() if one <= level))
    always = dict(
        [element("QueryRetrieveLevel", LEVEL_NAMES[level]), element("RetrieveAETitle", settings.ATRIUM.ae_title)]
    )
    wanted.update(dict.fromkeys(always))
    for content in _CONTENTS[level](principal, criteria, wanted):
        yield answer(wanted, content | always, known)


def _pages(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), PAGE):
        yield ids[start : start + PAGE]


def _patients(principal: Principal, criteria: Criteria, wanted: Mapping[str, Any]) -> Iterator[Content]:
    """Give each matching patient once, as their newest study that the caller may see knows them."""
    ids = list(matching_patients(principal, criteria).values_list("pk", flat=True))
    for page in _pages(ids):
        newest: dict[int, Study] = {}
        tiers: dict[int, str] = {}
        rows = studies_visible_to(principal).filter(patient__in=page, number_of_instances__gt=0)
        for study in rows.order_by("sort_date", "pk"):
            newest[study.patient_id] = study
            if tiers.get(study.patient_id) != Study.Tier.COLD:
                tiers[study.patient_id] = study.tier
        counted = counted_attributes(newest.values(), wanted)
        for pk in page:
            if pk in newest:
                yield (
                    patient_attributes(newest[pk])
                    | counted[newest[pk].pk]
                    | dict([element("InstanceAvailability", AVAILABILITY[tiers[pk]])])
                )


def _studies(principal: Principal, criteria: Criteria, wanted: Mapping[str, Any]) -> Iterator[Content]:
    ids = list(matching_studies(principal, criteria).values_list("pk", flat=True))
    for page in _pages(ids):
        rows = Study.objects.in_bulk(page)
        counted = counted_attributes(rows.values(), wanted)
        for pk in page:
            if pk in rows:
                yield study_attributes(rows[pk]) | counted[pk]


def _series(principal: Principal, criteria: Criteria, wanted: Mapping[str, Any]) -> Iterator[Content]:
    ids = list(matching_series(principal, criteria).values_list("pk", flat=True))
    for page in _pages(ids):
        rows = Series.objects.select_related("study").in_bulk(page)
        counted = counted_attributes({row.study for row in rows.values()}, wanted)
        for pk in page:
            if pk in rows:
                row = rows[pk]
                yield study_attributes(row.study) | counted[row.study_id] | series_attributes(row)


def _instances(principal: Principal, criteria: Criteria, wanted: Mapping[str, Any]) -> Iterator[Content]:
    ids = list(matching_instances(principal, criteria).values_list("pk", flat=True))
    for page in _pages(ids):
        rows = Instance.objects.select_related("series__study").in_bulk(page)
        counted = counted_attributes({row.series.study for row in rows.values()}, wanted)
        for pk in page:
            if pk in rows:
                row = rows[pk]
                above = (
                    study_attributes(row.series.study) | counted[row.series.study_id] | series_attributes(row.series)
                )
                yield above | instance_attributes(row)


_CONTENTS = {
    Level.PATIENT: _patients,
    Level.STUDY: _studies,
    Level.SERIES: _series,
    Level.INSTANCE: _instances,
}

SERVICE = Service("Query", list(MODELS), {evt.EVT_C_FIND: on_find}, negotiate=negotiate)
