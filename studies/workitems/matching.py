"""Matching of workitems (PS3.4 CC.2.8.1.2, C.2.2.2): which rows a set of keys means."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import Q

from studies.matching.wildcards import pattern
from studies.person_names import searchable
from studies.workitems.attributes import SEQUENCE_PATHS
from studies.workitems.errors import InvalidWorkitem
from studies.workitems.models import WorkitemKey

Matcher = Callable[[str, str], Q]
_DT = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6}))?([+-]\d{4})?")


def _text(column: str, value: str) -> Q:
    if set(value) <= {"*"}:
        return Q()
    if "*" in value or "?" in value:
        return Q(**{f"{column}__fits": rf"(?s)\A{pattern(value)}\Z"})
    alternatives = [v for v in value.split("\\") if v]
    return Q(**{f"{column}__in": alternatives}) if len(alternatives) > 1 else Q(**{column: value})


def _name(column: str, value: str) -> Q:
    wanted = searchable(value)
    if set(wanted) <= {"*"}:
        return Q()
    if "*" in wanted or "?" in wanted:
        return _text(column, wanted)
    return Q(**{column: wanted}) | Q(**{f"{column}__prefix": f"{wanted}^"}) | Q(**{f"{column}__prefix": f"{wanted}="})


def _uids(column: str, value: str) -> Q:
    return Q(**{f"{column}__in": [uid for uid in re.split(r"[\\,]", value) if uid]})


def _days(column: str, value: str) -> Q:
    low, high = _ends(value)
    matching = Q()
    if low:
        matching &= Q(**{f"{column}__gte": _day(low)})
    if high:
        matching &= Q(**{f"{column}__lte": _day(high)})
    return matching


def _day(value: str) -> date:
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:8]))
    except ValueError as error:
        raise InvalidWorkitem("A date is written YYYYMMDD.") from error


def _moments(column: str, value: str) -> Q:
    low, high = _ends(value)
    matching = Q()
    if low:
        matching &= Q(**{f"{column}__gte": _span(low)[0]})
    if high:
        matching &= Q(**{f"{column}__lt": _span(high)[1]})
    return matching


def _ends(value: str) -> tuple[str, str]:
    """Split a range (PS3.4 C.2.2.2.5). A hyphen before four digits at an end may be a zone's sign."""
    if match := re.fullmatch(r"([\d.]*(?:[+-]\d{4}(?=-))?)-([\d.]*(?:[+-]\d{4})?)", value):
        low, high = match[1], match[2]
        # «20260901120000-0500» alone is one moment in a zone; a year can't follow a time so closely.
        if len(low) >= 10 and re.fullmatch(r"\d{4}", high):
            return value, value
        return low, high
    return value, value


def _span(value: str) -> tuple[datetime, datetime]:
    """Give the first moment of a DT and the first after it, as its precision says; UTC where no zone is given."""
    match = _DT.fullmatch(value)
    if match is None:
        raise InvalidWorkitem("A date and time is written YYYYMMDDHHMMSS.")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        if not 1 < int(year) < 9999:
            raise ValueError(year)
        first = datetime(
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),
            int(fraction.ljust(6, "0")) if fraction else 0,
            tzinfo=datetime.strptime(zone, "%z").tzinfo if zone else UTC,
        )
        if month is None:
            return first, first.replace(year=first.year + 1)
        if day is None:
            return first, (first + timedelta(days=32)).replace(day=1)
        steps = ((hour, timedelta(days=1)), (minute, timedelta(hours=1)), (second, timedelta(minutes=1)))
        step = next((s for part, s in steps if part is None), None)
        return first, first + (step or timedelta(microseconds=1 if fraction else 1_000_000))
    except (ValueError, OverflowError) as error:
        raise InvalidWorkitem("That is no date and time.") from error


def _sequence(path: str) -> Matcher:
    def match(column: str, value: str) -> Q:
        return Q(pk__in=WorkitemKey.objects.filter(_text("value", value), path=path).values("workitem"))

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


def condition(keys: dict[str, str]) -> Q:
    """Give what a workitem must meet for all keys, path to value; empty values match all. Raises InvalidWorkitem.

    A code's value and its scheme are matched apart from each other.
    """
    meets = Q()
    for path, value in keys.items():
        if path not in KEYS:
            raise InvalidWorkitem(f"{path[:80]} can't be matched.")
        if "\x00" in value or len(value) > 2000:
            raise InvalidWorkitem("A value has characters that can't be matched.")
        if value:
            matcher, column = KEYS[path]
            meets &= matcher(column, value)
    return meets


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
        else:
            ignored.append(path)
    return keys, ignored
