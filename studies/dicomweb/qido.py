"""QIDO-RS: search (PS3.18 §10.6), thin over :mod:`studies.matching`."""

from __future__ import annotations

import gzip
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.gates import principal_of, program_capability_required
from portal.audit.models import AuditEvent
from portal.audit.services import record
from portal.audit.viewing import record_viewing
from studies.archive.metadata import series_metadata
from studies.archive.native_model import MEDIA_TYPE as XML
from studies.archive.native_model import to_native_xml
from studies.dicomweb.errors import DicomWebError, answers_errors, empty, warn
from studies.dicomweb.media_types import accepted
from studies.dicomweb.parameters import NOT_KEYS, THERE_ARE_MORE, attributes, matching_options, natural
from studies.matching import (
    Criteria,
    Level,
    MatchingError,
    UnknownAttribute,
    counted_attributes,
    criteria_of,
    instance_attributes,
    level_of,
    matching_instances,
    matching_series,
    matching_studies,
    series_attributes,
    study_attributes,
    tag_of,
    tags_at,
)
from studies.matching.criteria import SEVERAL
from studies.matching.keywords import path_of, tags_of, vr_of
from studies.matching.pages import page_of_studies
from studies.matching.results import INSTANCE_COLUMNS, SERIES_COLUMNS, STUDY_COLUMNS, Content, element
from studies.models import Instance, Series, Study
from studies.trail import subject_of

MOST_RESULTS = 1000
MOST_KEYS = 100
MOST_NAMED = 30
JSON = "application/dicom+json"
MAY_SEARCH = (Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)
may_search = program_capability_required(*MAY_SEARCH)

# Returned without being asked for, empty where unknown (PS3.18 Tables 10.6.3-3 to -5).
_ALWAYS: dict[Level, tuple[str, ...]] = {
    Level.STUDY: (
        *("StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName"),
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
        *("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "InstanceAvailability"),
    ),
    Level.SERIES: ("Modality", "SeriesInstanceUID", "SeriesNumber", "NumberOfSeriesRelatedInstances"),
    Level.INSTANCE: ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "InstanceAvailability"),
}
# Returned without being asked for, left out where unknown.
_WHERE_KNOWN: dict[Level, tuple[str, ...]] = {
    Level.STUDY: ("SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyDescription", "IssuerOfPatientID"),
    Level.SERIES: (
        *("TimezoneOffsetFromUTC", "SeriesDescription", "BodyPartExamined", "RequestAttributesSequence"),
        *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
    ),
    Level.INSTANCE: (*("TimezoneOffsetFromUTC", "Rows", "Columns", "BitsAllocated", "NumberOfFrames"),),
}
_EMPTY = {level: dict(element(keyword) for keyword in keywords) for level, keywords in _ALWAYS.items()}
_CHARACTER_SET = tags_of(("SpecificCharacterSet",))
_DEFAULT_TAGS = {level: tags_of((*_ALWAYS[level], *_WHERE_KNOWN[level])) for level in _ALWAYS}


@dataclass
class Search:
    """A parsed query: the criteria, the page, and which attributes are returned at each level."""

    criteria: Criteria
    limit: int
    offset: int
    tags: dict[Level, frozenset[str]]
    # Of these, what was asked for: by name, as a key, or all.
    asked: dict[Level, frozenset[str]]
    # Attributes to return that no index holds, by tag: keywords.
    beyond: dict[str, str]
    warnings: list[str]

    def selected(self, level: Level, content: Content) -> Content:
        """Give what is returned of a level's content."""
        wanted = self.tags[level]
        return _EMPTY[level] | {tag: value for tag, value in content.items() if tag in wanted}


def parse(request: HttpRequest) -> Search:
    """Read the query (PS3.18 §8.3.4). Raises DicomWebError."""
    options = matching_options(request)
    keys = [(name, "\\".join(values)) for name, values in attributes(request, other_than=NOT_KEYS)]
    if len(keys) > MOST_KEYS:
        raise DicomWebError(400, "There are too many keys.")
    try:
        criteria = criteria_of(keys, options)
    except MatchingError as error:
        raise DicomWebError(400, str(error)) from error
    for name, value in criteria.used.items():
        # No value of theirs has a backslash in it (PS3.5 §6.2): nothing would be found, and nobody told why.
        if "\\" in value and not options.takes_many and vr_of(name.rpartition(".")[2]) in {"LO", "PN", "SH"}:
            raise DicomWebError(400, f"{name}: {SEVERAL}")
    included, is_all, unknown = _included(request)
    paths = [*criteria.paths, *included]
    named = tags_of(path[0] for path in paths)
    asked = {level: tags_at(level) | tags_at(Level.PATIENT) if is_all else named for level in _ALWAYS}
    limit = min(natural(request, "limit", MOST_RESULTS), MOST_RESULTS)
    return Search(
        criteria=criteria,
        limit=limit,
        offset=natural(request, "offset", 0),
        tags=asked if is_all else {level: _DEFAULT_TAGS[level] | named for level in _ALWAYS},
        asked=asked,
        beyond={tag_of(path[0]): path[0] for path in included if level_of(path[0]) is None},
        warnings=_ignored([*criteria.unsupported, *unknown]),
    )


def _ignored(names: Iterable[str]) -> list[str]:
    ordered = sorted(set(names))
    if not ordered:
        return []
    # Clients and proxies take headers of a few thousand characters.
    rest = f" and {len(ordered) - MOST_NAMED} more" if len(ordered) > MOST_NAMED else ""
    return [f"These attributes are not supported and were ignored: {', '.join(ordered[:MOST_NAMED])}{rest}."]


def _included(request: HttpRequest) -> tuple[list[tuple[str, ...]], bool, list[str]]:
    """Give the attributes of ``includefield``, whether it's all, and names that aren't attributes (PS3.18 §8.3.4.3)."""
    names = [name.strip() for value in request.GET.getlist("includefield") for name in value.split(",")]
    paths, unknown, is_all = [], [], False
    for name in names[:1000]:
        if name.lower() == "all":
            is_all = True
        elif name:
            try:
                paths.append(path_of(name))
            except UnknownAttribute:
                # Private and unknown attributes may be asked for; what isn't supported isn't returned.
                unknown.append(re.sub(r"[^\w.]", "?", name, flags=re.ASCII)[:60])
    return paths, is_all, unknown


@may_search
@answers_errors
def search_studies(request: HttpRequest) -> HttpResponseBase:
    """Search for studies (``/studies``)."""
    return find_studies(request)


@may_search
@answers_errors
def search_series(request: HttpRequest, study_instance_uid: str = "") -> HttpResponseBase:
    """Search for series (``/series``, ``/studies/{study}/series``)."""
    return find_series(request, study_instance_uid)


@may_search
@answers_errors
def search_instances(
    request: HttpRequest, study_instance_uid: str = "", series_instance_uid: str = ""
) -> HttpResponseBase:
    """Search for instances (``/instances`` and below a study or series)."""
    return find_instances(request, study_instance_uid, series_instance_uid)


def find_studies(request: HttpRequest) -> HttpResponse:
    """Answer a search for studies by one who may search. Raises DicomWebError."""
    search = parse(request)
    search.warnings += _ignored(search.beyond.values())
    return _answer(request, search, matching_studies(principal_of(request), search.criteria), _study_results)


def find_series(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Answer a search for series, of one study or of all, by one who may search. Raises DicomWebError."""
    search = parse(request)
    search.warnings += _ignored(search.beyond.values())
    series = matching_series(principal_of(request), search.criteria, study_instance_uid=study_instance_uid)
    return _answer(
        request,
        search,
        series,
        lambda root, search, page: _series_results(root, search, page, with_study=not study_instance_uid),
        study_instance_uid,
    )


def find_instances(request: HttpRequest, study_instance_uid: str, series_instance_uid: str) -> HttpResponse:
    """Answer a search for instances, of a series, a study or all, by one who may search. Raises DicomWebError."""
    search = parse(request)
    if not series_instance_uid:
        search.warnings += _ignored(search.beyond.values())
    instances = matching_instances(
        principal_of(request),
        search.criteria,
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
    )
    return _answer(
        request,
        search,
        instances,
        lambda root, search, page: _instance_results(
            root, search, page, with_study=not study_instance_uid, with_series=not series_instance_uid
        ),
        study_instance_uid,
    )


def _media_type(request: HttpRequest) -> str:
    """Give JSON or XML, whichever is wanted more (PS3.18 §8.7.4). Raises DicomWebError 406."""
    for wanted in accepted(request):
        if not wanted.is_multipart and (wanted.matches(JSON) or wanted.media_type == "application/json"):
            return JSON
        if wanted.matches(XML) and (wanted.is_multipart or wanted.takes_every_form or wanted.media_type == XML):
            return XML
    raise DicomWebError(
        406, "Search results are given as JSON or XML.", available=[JSON, f'multipart/related; type="{XML}"']
    )


Results = Callable[[str, Search, list[Any]], list[Content]]


def _answer(
    request: HttpRequest, search: Search, rows: QuerySet[Any], results: Results, study_instance_uid: str = ""
) -> HttpResponse:
    media_type = _media_type(request)
    if rows.model is Study:
        ids = page_of_studies(rows, offset=search.offset, limit=search.limit + 1)
    else:
        ids = list(rows.values_list("pk", flat=True)[search.offset : search.offset + search.limit + 1])
    is_cut = len(ids) > search.limit
    page = _in_order(rows.model, ids[: search.limit])
    if study_instance_uid and page:
        # Who lists what a study holds has seen it: once for a quarter of an hour, as OHIF does it for each opening.
        study = page[0].study if isinstance(page[0], Series) else page[0].series.study
        record_viewing(
            AuditEvent.Action.SEARCH, principal=principal_of(request), **subject_of(study), details={"way": "qido"}
        )
    if search.criteria.used or not (study_instance_uid and page):
        record(
            AuditEvent.Action.SEARCH,
            principal=principal_of(request),
            details={"way": "qido", "keys": search.criteria.used, "results": len(page)},
        )
    root = request.build_absolute_uri("/dicom-web/")
    contents = results(root, search, page)
    if not contents:
        response: HttpResponse = empty(204)
    elif media_type == JSON:
        response = HttpResponse(orjson.dumps(contents), content_type=JSON)
    else:
        response = _multipart(contents)
    if is_cut and search.limit > 0:
        search.warnings.insert(0, THERE_ARE_MORE)
    warn(request, response, *search.warnings)
    response["Cache-Control"] = "no-store"
    return response


# What each level's results read, from the row itself and from those above it.
_ABOVE_SERIES = tuple(f"study__{column}" for column in STUDY_COLUMNS)
_ABOVE_INSTANCE = tuple(f"series__{column}" for column in (*SERIES_COLUMNS, *_ABOVE_SERIES))
_COLUMNS: dict[type[Any], tuple[str, tuple[str, ...]]] = {
    Study: ("", STUDY_COLUMNS),
    Series: ("study", (*SERIES_COLUMNS, *_ABOVE_SERIES)),
    Instance: ("series__study", (*INSTANCE_COLUMNS, *_ABOVE_INSTANCE)),
}


def _in_order(model: type[Any], ids: list[int]) -> list[Any]:
    """Give the rows of a page in its order; finding ids first keeps the walk to the page inside an index."""
    above, columns = _COLUMNS[model]
    rows = model.objects.filter(pk__in=ids).only(*columns)
    found = {row.pk: row for row in (rows.select_related(above) if above else rows)}
    return [found[pk] for pk in ids if pk in found]


def _multipart(contents: Iterable[Content]) -> HttpResponse:
    boundary = secrets.token_hex(16)
    parts = [
        b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (boundary.encode(), XML.encode(), to_native_xml(content))
        for content in contents
    ]
    return HttpResponse(
        b"".join(parts) + f"--{boundary}--\r\n".encode(),
        content_type=f'multipart/related; type="{XML}"; boundary={boundary}',
    )


def _study_results(root: str, search: Search, studies: list[Study]) -> list[Content]:
    """Give studies as PS3.18 Table 10.6.3-3 has them."""
    counted = counted_attributes(studies, search.tags[Level.STUDY])
    results = []
    for study in studies:
        content = search.selected(Level.STUDY, study_attributes(study) | counted[study.pk])
        content.update([element("RetrieveURL", f"{root}studies/{study.study_instance_uid}")])
        results.append(dict(sorted(content.items())))
    return results


def _series_results(root: str, search: Search, rows: list[Series], *, with_study: bool) -> list[Content]:
    """Give series as PS3.18 Table 10.6.3-4 has them, with their study's attributes where all were searched."""
    studies = {series.study_id: series.study for series in rows}
    above = _above(root, search, studies.values(), is_whole=with_study)
    results = []
    for series in rows:
        content = above[series.study_id] | search.selected(Level.SERIES, series_attributes(series))
        address = f"{root}studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
        content.update([element("RetrieveURL", address)])
        results.append(dict(sorted(content.items())))
    return results


def _instance_results(
    root: str, search: Search, rows: list[Instance], *, with_study: bool, with_series: bool
) -> list[Content]:
    """Give instances as PS3.18 Table 10.6.3-5 has them, with what lies above the resource searched."""
    all_series = {instance.series_id: instance.series for instance in rows}
    studies = {series.study_id: series.study for series in all_series.values()}
    above = _above(root, search, studies.values(), is_whole=with_study)
    asked = search.asked[Level.SERIES]
    read = {} if with_series or not search.beyond else _beyond_the_index(search, all_series.values())
    results = []
    for instance in rows:
        series = instance.series
        of_series = series_attributes(series)
        content = above[series.study_id] | (
            search.selected(Level.SERIES, of_series)
            if with_series
            else {tag: value for tag, value in of_series.items() if tag in asked}
        )
        content |= read.get(instance.sop_instance_uid, {})
        content |= search.selected(Level.INSTANCE, instance_attributes(instance))
        address = f"{root}studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
        content.update(
            [
                element("SeriesInstanceUID", series.series_instance_uid),
                element("RetrieveURL", f"{address}/instances/{instance.sop_instance_uid}"),
            ]
        )
        results.append(dict(sorted(content.items())))
    return results


def _beyond_the_index(search: Search, all_series: Iterable[Series]) -> dict[str, Content]:
    """Give, by SOP Instance UID, what of the attributes asked for only the files hold: from their series' metadata."""
    found = {}
    for series in all_series:
        for content in orjson.loads(gzip.decompress(bytes(series_metadata(series).content))):
            uid = content["00080018"]["Value"][0]
            found[uid] = {tag: value for tag, value in content.items() if tag in search.beyond}
    return found


def _above(root: str, search: Search, studies: Iterable[Study], *, is_whole: bool) -> dict[int, Content]:
    """Give, by study id, what a narrower result says of its study: all, or its UID and what was asked for."""
    studies = list(studies)
    if is_whole:
        return {s.pk: r for s, r in zip(studies, _study_results(root, search, studies), strict=True)}
    asked = search.asked[Level.STUDY] | _CHARACTER_SET
    counted = counted_attributes(studies, asked)
    contents = {}
    for study in studies:
        known = study_attributes(study) | counted[study.pk]
        contents[study.pk] = {tag: value for tag, value in known.items() if tag in asked}
        contents[study.pk].update([element("StudyInstanceUID", study.study_instance_uid)])
    return contents
