"""QIDO-RS: search (PS3.18 §10.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, time
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.tag import Tag

from accounts.capabilities import Capability
from accounts.gates import program_capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.access import instances_visible_to, series_visible_to, studies_visible_to
from studies.dicomweb.errors import DicomWebError, answers_errors
from studies.models import Instance, Series, Study
from studies.person_names import searchable

MOST_RESULTS = 1000
may_search = program_capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)
Matcher = Callable[[str, str], Q]


def _text(column: str, value: str) -> Q:
    """Match by single value or wildcard (PS3.4 §C.2.2.2.1 and .4), several values by backslash or comma elsewhere."""
    if not value or set(value) == {"*"}:
        return Q()
    if "*" not in value and "?" not in value:
        return Q(**{column: value})
    if value.endswith("*") and not set(value[:-1]) & {"*", "?"}:
        return Q(**{f"{column}__prefix": value[:-1]})
    return Q(**{f"{column}__regex": _pattern(value)})


def _pattern(value: str) -> str:
    return "^" + "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in value) + "$"


def _name(column: str, value: str) -> Q:
    """Match person names without regard to case and marks; a name without delimiter matches what begins with it."""
    wanted = searchable(value)
    if not wanted or set(wanted) == {"*"}:
        return Q()
    if "*" not in wanted and "?" not in wanted:
        return (
            Q(**{column: wanted}) | Q(**{f"{column}__prefix": f"{wanted}^"}) | Q(**{f"{column}__prefix": f"{wanted}="})
        )
    return _text(column, wanted)


def _uids(column: str, value: str) -> Q:
    uids = [uid for uid in re.split(r"[\\,]", value) if uid]
    return Q(**{f"{column}__in": uids}) if uids else Q()


def _number(column: str, value: str) -> Q:
    if not re.fullmatch(r"-?\d{1,18}", value.strip()):
        raise DicomWebError(400, "A number was expected.")
    return Q(**{column: int(value)})


def _dates(column: str, value: str) -> Q:
    return _range(column, value, _date)


def _times(column: str, value: str) -> Q:
    return _range(column, value, _time)


def _range(column: str, value: str, parse: Callable[[str, bool], Any]) -> Q:
    """Match a single value or a range with open ends (PS3.4 §C.2.2.2.5)."""
    first, dash, last = value.strip().partition("-")
    if not dash:
        low, high = parse(first, False), parse(first, True)
        return Q(**{column: low}) if low == high else Q(**{f"{column}__range": (low, high)})
    matching = Q()
    if first:
        matching &= Q(**{f"{column}__gte": parse(first, False)})
    if last:
        matching &= Q(**{f"{column}__lte": parse(last, True)})
    return matching


def _date(text: str, is_end: bool) -> date:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:])) if re.fullmatch(r"\d{8}", text) else _refuse_date()
    except ValueError as error:
        raise DicomWebError(400, "A date is written YYYYMMDD.") from error


def _refuse_date() -> date:
    raise ValueError


def _time(text: str, is_end: bool) -> time:
    match = re.fullmatch(r"(\d\d)(\d\d)?(\d\d)?(?:\.(\d{1,6}))?", text)
    if match is None:
        raise DicomWebError(400, "A time is written HHMMSS.FFFFFF.")
    last = (23, 59, 59) if is_end else (0, 0, 0)
    hour, minute, second = (int(part) if part else last[n] for n, part in enumerate(match.groups()[:3]))
    fraction = match[4]
    microsecond = int(fraction.ljust(6, "0")) if fraction else (999999 if is_end else 0)
    try:
        return time(hour, minute, min(second, 59), microsecond)
    except ValueError as error:
        raise DicomWebError(400, "That is no time of day.") from error


def _modalities(column: str, value: str) -> Q:
    wanted = [m for m in re.split(r"[\\,]", value) if m]
    if not wanted or wanted == ["*"]:
        return Q()
    return Q(pk__in=Series.objects.filter(modality__in=wanted).values("study"))


# Attribute to (matcher, column), for each level (PS3.18 Tables 10.6.1-5, PS3.4 Tables C.6-1 to -5).
STUDY_KEYS: dict[str, tuple[Matcher, str]] = {
    "PatientID": (_text, "patient_id_value"),
    "PatientName": (_name, "patient_name_search"),
    "IssuerOfPatientID": (_text, "patient__issuer_of_patient_id"),
    "PatientBirthDate": (_dates, "patient__patient_birth_date"),
    "PatientSex": (_text, "patient__patient_sex"),
    "StudyDate": (_dates, "study_date"),
    "StudyTime": (_times, "study_time"),
    "AccessionNumber": (_text, "accession_number"),
    "StudyInstanceUID": (_uids, "study_instance_uid"),
    "StudyID": (_text, "study_id"),
    "StudyDescription": (_text, "study_description"),
    "ReferringPhysicianName": (_name, "referring_physician__name_search"),
    "InstitutionName": (_text, "institution_name"),
    "ModalitiesInStudy": (_modalities, ""),
}
SERIES_KEYS: dict[str, tuple[Matcher, str]] = {
    "Modality": (_text, "modality"),
    "SeriesInstanceUID": (_uids, "series_instance_uid"),
    "SeriesNumber": (_number, "series_number"),
    "SeriesDescription": (_text, "series_description"),
    "BodyPartExamined": (_text, "body_part_examined"),
}
INSTANCE_KEYS: dict[str, tuple[Matcher, str]] = {
    "SOPInstanceUID": (_uids, "sop_instance_uid"),
    "SOPClassUID": (_uids, "sop_class_uid"),
    "InstanceNumber": (_number, "instance_number"),
}
NOT_KEYS = {"limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "accept"}


class Search:
    """A parsed search: the matching keys of each level, the page, and what could not be used."""

    def __init__(self, request: HttpRequest) -> None:
        self.study, self.series, self.instance = Q(), Q(), Q()
        self.used: dict[str, str] = {}
        self.ignored: list[str] = []
        self.includes = {
            _keyword(name) or name for value in request.GET.getlist("includefield") for name in value.split(",")
        }
        for name, values in request.GET.lists():
            if name.lower() not in NOT_KEYS:
                self._add(name, ",".join(values) if len(values) > 1 else values[0])
        self.limit = min(_natural(request, "limit", MOST_RESULTS), MOST_RESULTS)
        self.offset = _natural(request, "offset", 0)

    def _add(self, name: str, value: str) -> None:
        keyword = _keyword(name)
        if "\x00" in value or len(value) > 5000:
            raise DicomWebError(400, "A value has characters that can't be matched.")
        for keys, level in ((STUDY_KEYS, "study"), (SERIES_KEYS, "series"), (INSTANCE_KEYS, "instance")):
            if keyword in keys:
                matcher, column = keys[keyword]
                if value:
                    setattr(self, level, getattr(self, level) & matcher(column, value))
                    self.used[keyword] = value[:200]
                return
        if not keyword:
            raise DicomWebError(400, f"«{name[:60]}» is no attribute.")
        self.ignored.append(keyword)


def _keyword(name: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return keyword_for_tag(int(name, 16)) or ""
    return name if tag_for_keyword(name) is not None else ""


def _natural(request: HttpRequest, name: str, default: int) -> int:
    value = request.GET.get(name, "")
    if not value:
        return default
    if not re.fullmatch(r"\d{1,9}", value):
        raise DicomWebError(400, f"{name} must be a natural number.")
    return int(value)


@require_GET
@may_search
@answers_errors
def search_studies(request: HttpRequest) -> HttpResponseBase:
    """Search for studies (``/studies``)."""
    search = Search(request)
    studies = studies_visible_to(_principal(request)).filter(search.study)
    if search.series:
        studies = studies.filter(pk__in=Series.objects.filter(search.series).values("study"))
    studies = studies.select_related("patient").order_by("-study_date", "-pk")
    return _answer(request, search, studies, lambda page: [study_result(request, s) for s in page])


@require_GET
@may_search
@answers_errors
def search_series(request: HttpRequest, study_instance_uid: str = "") -> HttpResponseBase:
    """Search for series (``/series``, ``/studies/{study}/series``)."""
    search = Search(request)
    series = series_visible_to(_principal(request)).filter(search.series)
    series = _below_study(series, search, "study", study_instance_uid)
    series = series.select_related("study__patient").order_by("study_id", "series_number", "pk")
    is_relational = not study_instance_uid
    return _answer(
        request, search, series, lambda page: [series_result(request, s, with_study=is_relational) for s in page]
    )


@require_GET
@may_search
@answers_errors
def search_instances(
    request: HttpRequest, study_instance_uid: str = "", series_instance_uid: str = ""
) -> HttpResponseBase:
    """Search for instances (``/instances`` and below a study or series)."""
    search = Search(request)
    instances = instances_visible_to(_principal(request)).filter(search.instance)
    if search.series:
        instances = instances.filter(series__in=Series.objects.filter(search.series))
    if series_instance_uid:
        instances = instances.filter(series__series_instance_uid=series_instance_uid)
    instances = _below_study(instances, search, "series__study", study_instance_uid)
    instances = instances.select_related("series__study__patient").order_by("series_id", "instance_number", "pk")
    return _answer(
        request,
        search,
        instances,
        lambda page: [
            instance_result(request, i, with_study=not study_instance_uid, with_series=not series_instance_uid)
            for i in page
        ],
    )


def _below_study(rows: QuerySet[Any], search: Search, path: str, study_instance_uid: str) -> QuerySet[Any]:
    if study_instance_uid:
        rows = rows.filter(**{f"{path}__study_instance_uid": study_instance_uid})
    if search.study:
        rows = rows.filter(**{f"{path}__in": Study.objects.filter(search.study)})
    return rows


def _principal(request: HttpRequest) -> Principal:
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def _answer(
    request: HttpRequest, search: Search, rows: QuerySet[Any], results: Callable[[Iterable[Any]], list[dict[str, Any]]]
) -> HttpResponseBase:
    page = list(rows[search.offset : search.offset + search.limit + 1])
    is_cut = len(page) > search.limit
    if search.used:
        record(
            AuditEvent.Action.SEARCH,
            principal=_principal(request),
            details={"way": "qido", "keys": search.used, "results": len(page[: search.limit])},
        )
    response = JsonResponse(
        results(page[: search.limit]),
        safe=False,
        content_type="application/dicom+json",
        json_dumps_params={"separators": (",", ":")},
    )
    warnings = []
    if is_cut and search.limit == MOST_RESULTS:
        warnings.append('299 atrium "The number of results exceeded the maximum; there are more."')
    if search.ignored:
        warnings.append(f'299 atrium "Not used for matching: {", ".join(search.ignored)}."')
    if warnings:
        response["Warning"] = ", ".join(warnings)
    response["Cache-Control"] = "no-store"
    return response


def _element(keyword: str, *values: Any) -> tuple[str, dict[str, Any]]:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    element: dict[str, Any] = {"vr": dictionary_VR(Tag(tag))}
    present = [v for v in values if v not in ("", None)]
    if present:
        element["Value"] = present
    return f"{tag:08X}", element


# Present in every result, empty where unknown (PS3.18 Tables 10.6.3-3 to -5).
_STUDY_ALWAYS = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID"),
    *("PatientBirthDate", "PatientSex", "StudyID", "StudyDescription"),
)
_SERIES_ALWAYS = ("SeriesNumber", "SeriesDescription")


def study_result(request: HttpRequest, study: Study) -> dict[str, Any]:
    """Give a study as DICOM JSON (PS3.18 Table 10.6.3-3)."""
    result = dict(_element(keyword) for keyword in _STUDY_ALWAYS)
    result |= study.attributes
    result |= dict(
        [
            _element("StudyInstanceUID", study.study_instance_uid),
            _element("ModalitiesInStudy", *study.modalities),
            _element("NumberOfStudyRelatedSeries", study.number_of_series),
            _element("NumberOfStudyRelatedInstances", study.number_of_instances),
            _element("InstanceAvailability", "ONLINE"),
            _element("RetrieveURL", _url(request, f"studies/{study.study_instance_uid}")),
        ]
    )
    return dict(sorted(result.items()))


def series_result(request: HttpRequest, series: Series, *, with_study: bool) -> dict[str, Any]:
    """Give a series as DICOM JSON (PS3.18 Table 10.6.3-4)."""
    uid = series.study.study_instance_uid
    result = study_result(request, series.study) if with_study else {}
    result |= dict(_element(keyword) for keyword in _SERIES_ALWAYS)
    result |= series.attributes
    result |= dict(
        [
            _element("Modality", series.modality),
            _element("StudyInstanceUID", uid),
            _element("SeriesInstanceUID", series.series_instance_uid),
            _element("NumberOfSeriesRelatedInstances", series.number_of_instances),
            _element("RetrieveURL", _url(request, f"studies/{uid}/series/{series.series_instance_uid}")),
        ]
    )
    return dict(sorted(result.items()))


def instance_result(request: HttpRequest, instance: Instance, *, with_study: bool, with_series: bool) -> dict[str, Any]:
    """Give an instance as DICOM JSON (PS3.18 Table 10.6.3-5)."""
    series = instance.series
    uids = f"studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
    result = series_result(request, series, with_study=with_study) if with_series else {}
    result |= dict(
        [
            _element("SOPClassUID", instance.sop_class_uid),
            _element("SOPInstanceUID", instance.sop_instance_uid),
            _element("InstanceAvailability", "ONLINE"),
            _element("StudyInstanceUID", series.study.study_instance_uid),
            _element("SeriesInstanceUID", series.series_instance_uid),
            _element("InstanceNumber", instance.instance_number),
            _element("Rows", instance.rows),
            _element("Columns", instance.columns),
            _element("BitsAllocated", instance.bits_allocated),
            _element("NumberOfFrames", instance.number_of_frames or None),
            _element("RetrieveURL", _url(request, f"{uids}/instances/{instance.sop_instance_uid}")),
        ]
    )
    return dict(sorted(result.items()))


def _url(request: HttpRequest, path: str) -> str:
    return request.build_absolute_uri(f"/dicom-web/{path}")
