"""Matching of workitems (PS3.4 CC.2.8.1.2, C.2.2.2): which rows a set of keys means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from django.db.models import Q

from studies.matching import InvalidKeyValue, Options
from studies.matching.criteria import LONGEST_VALUE
from studies.matching.elements import uids_of
from studies.matching.keywords import vr_of
from studies.matching.moments import date_range, datetime_range
from studies.matching.names import names_sounding_like
from studies.matching.wildcards import has_wildcards, is_universal, pattern
from studies.person_names import searchable
from studies.workitems.attributes import SEQUENCE_PATHS
from studies.workitems.errors import InvalidWorkitem
from studies.workitems.models import WorkitemKey

Matcher = Callable[[str, str, Options], Q]


def _text(column: str, value: str, options: Options) -> Q:
    if is_universal(value):
        return Q()
    if has_wildcards(value):
        return Q(**{f"{column}__fits": rf"(?s)\A{pattern(value)}\Z"})
    alternatives = [v for v in value.split("\\") if v]
    return Q(**{f"{column}__in": alternatives}) if len(alternatives) > 1 else Q(**{column: value})


def _name(column: str, value: str, options: Options) -> Q:
    wanted = searchable(value)
    if is_universal(wanted):
        return Q()
    if has_wildcards(wanted):
        spelt = _text(column, wanted, options)
    else:
        spelt = (
            Q(**{column: wanted}) | Q(**{f"{column}__prefix": f"{wanted}^"}) | Q(**{f"{column}__prefix": f"{wanted}="})
        )
    alike = names_sounding_like(column, wanted) if options.is_fuzzy else Q()
    return spelt | alike if alike else spelt


def _uids(column: str, value: str, options: Options) -> Q:
    return Q(**{f"{column}__in": uids_of(value)})


def _days(column: str, value: str, options: Options) -> Q:
    days = date_range(value)
    return _between(column, days.low, days.high)


def _moments(column: str, value: str, options: Options) -> Q:
    """Match a moment or a range of them; UTC where no zone is given."""
    moments, zone = datetime_range(value)
    return _between(column, *(end and _in_utc(end.replace(tzinfo=zone or UTC)) for end in (moments.low, moments.high)))


def _in_utc(moment: datetime) -> datetime:
    """Give the moment, of those that a year can be written of the nearest."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return (datetime.min if moment.year == 1 else datetime.max).replace(tzinfo=UTC)


def _between(column: str, low: date | None, high: date | None) -> Q:
    matching = Q()
    if low is not None:
        matching &= Q(**{f"{column}__gte": low})
    if high is not None:
        matching &= Q(**{f"{column}__lte": high})
    return matching


def _sequence(path: str) -> Matcher:
    def match(column: str, value: str, options: Options) -> Q:
        return Q(pk__in=WorkitemKey.objects.filter(_text("value", value, options), path=path).values("workitem"))

    return match


KEYS: dict[str, tuple[Matcher, str]] = {
    "SOPInstanceUID": (_uids, "sop_instance_uid"),
    "StudyInstanceUID": (_uids, "study_instance_uid"),
    "ProcedureStepState": (_text, "state"),
    "ScheduledProcedureStepPriority": (_text, "priority"),
    "ProcedureStepLabel": (_text, "procedure_step_label"),
    "WorklistLabel": (_text, "worklist_label"),
    "InputReadinessState": (_text, "input_readiness_state"),
    "ScheduledProcedureStepStartDateTime": (_moments, "scheduled_start_at"),
    "ScheduledProcedureStepModificationDateTime": (_moments, "modified_at"),
    "ExpectedCompletionDateTime": (_moments, "expected_completion_at"),
    "ScheduledProcedureStepExpirationDateTime": (_moments, "expires_at"),
    "PatientID": (_text, "patient_id"),
    "IssuerOfPatientID": (_text, "issuer_of_patient_id"),
    "PatientName": (_name, "patient_name_search"),
    "PatientBirthDate": (_days, "patient_birth_date"),
    "PatientSex": (_text, "patient_sex"),
    "AdmissionID": (_text, "admission_id"),
    **{path: (_sequence(path), "") for path in SEQUENCE_PATHS},
}


def condition(keys: dict[str, str], options: Options | None = None) -> Q:
    """Give what a workitem must meet for all keys, path to value; empty values match all. Raises InvalidWorkitem.

    A code's value and its scheme are matched apart from each other. Several values of a text are matched always.
    """
    options = options or Options()
    meets = Q()
    for path, value in keys.items():
        value = value.strip()
        if path not in KEYS:
            raise InvalidWorkitem(f"{path[:80]} can't be matched.")
        if len(value) > LONGEST_VALUE:
            raise InvalidWorkitem(f"{path}: a value has at most {LONGEST_VALUE} characters.")
        if "\x00" in value:
            raise InvalidWorkitem(f"{path}: no value has the character NUL.")
        if not is_universal(value):
            try:
                meets &= _meets(path, value, options)
            except InvalidKeyValue as error:
                raise InvalidWorkitem(f"{path}: {error}") from error
    return meets


def _meets(path: str, value: str, options: Options) -> Q:
    matcher, column = KEYS[path]
    if value != '""' or not options.takes_empty:
        return matcher(column, value, options)
    if not column:
        return ~Q(pk__in=WorkitemKey.objects.filter(path=path).values("workitem"))
    return Q(**({f"{column}__isnull": True} if matcher in {_days, _moments} else {column: ""}))


def keys_of(parameters: list[tuple[str, str]], *, keyword_of: Callable[[str], Any]) -> tuple[dict[str, str], list[str]]:
    """Split (name, value) pairs into usable keys and the names of attributes that aren't matched.

    ``keyword_of`` turns a keyword or tag into a keyword, empty when there's none. Raises InvalidWorkitem.
    """
    keys: dict[str, str] = {}
    ignored = []
    for name, value in parameters:
        keywords = [keyword_of(part) for part in name.split(".")]
        if not all(keywords):
            raise InvalidWorkitem(f"«{name[:60]}» is no attribute.")
        path = ".".join(keywords)
        if path in KEYS:
            keys[path] = value
        elif vr_of(keywords[-1]) == "SQ" and not is_universal(value):
            raise InvalidWorkitem(f"{path} is a sequence: name an attribute of its items, after a point.")
        else:
            ignored.append(path)
    return keys, ignored
