"""Dates and times matched as moments: a date with its time, or any of them in a time zone (PS3.4 §C.2.2.2.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import Any

from django.db.models import Case, F, Model, Q, TextField, Value, When
from django.db.models.functions import Concat, Right, RPad
from django.db.models.lookups import Exact, GreaterThanOrEqual, IsNull, LessThanOrEqual, Regex

from studies.matching.elements import ElementText
from studies.matching.errors import InvalidKeyValue, MatchingError
from studies.matching.keywords import Level, level_of, vr_of
from studies.matching.moments import Moments, combined, compact, date_range, datetime_range, offset_of, time_range
from studies.matching.wildcards import is_universal
from studies.models import Instance, Series, Study

# Pairs of a date and a time that are one moment (PS3.4 §C.2.2.2.5.3), each with its level. Dates and times of birth
# are no such moments: no time zone moves a birthday (PS3.3 §C.12.1.1.8).
_PAIRS = (
    ("StudyDate", "StudyTime", Level.STUDY),
    ("SeriesDate", "SeriesTime", Level.SERIES),
    ("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", Level.SERIES),
    ("AcquisitionDate", "AcquisitionTime", Level.INSTANCE),
    ("ContentDate", "ContentTime", Level.INSTANCE),
)
_ROWS: dict[Level, type[Model]] = {Level.STUDY: Study, Level.SERIES: Series, Level.INSTANCE: Instance}
_DAY = timedelta(days=1)
# The length of a DT that is written to the second.
SECONDS = 14
Used = tuple[str, ...]


@dataclass(frozen=True)
class _Clock:
    """A moment that rows of a level hold: a date and a time, or, without the time's keyword, a DT."""

    level: Level
    date: str
    time: str = ""

    def within(self, moments: Moments) -> Q:
        """Match rows whose moment, as it's written, lies in the span."""
        if self.date == "StudyDate":
            return _study_within(moments)
        text: Any = self._text
        condition = Q(IsNull(ElementText(self.date, F("attributes")), False))
        if moments.low is not None:
            condition &= Q(GreaterThanOrEqual(text, Value(compact(moments.low))))
        if moments.high is not None:
            condition &= Q(LessThanOrEqual(text, Value(f"{compact(moments.high)}~")))
        return condition

    @property
    def _text(self) -> Any:
        """Give the expression of the moment to the second; what isn't written of it is 0."""
        text: Any = ElementText(self.date, F("attributes"))
        if self.time:
            text = Concat(text, ElementText(self.time, F("attributes")), output_field=TextField())
        return RPad(text, SECONDS, Value("0"))

    @property
    def offset(self) -> Any:
        """Give the expression of the time zone in which the row's moment is written, NULL where it's unknown."""
        offset = ElementText("TimezoneOffsetFromUTC", F("attributes"))
        if self.time:
            return offset
        # What a DT says itself goes before what its data set says (PS3.3 §C.12.1.1.8).
        text = ElementText(self.date, F("attributes"))
        return Case(
            When(Regex(text, Value(r"[+-][0-9]{4}$")), then=Right(text, 5)), default=offset, output_field=TextField()
        )


def conditions_on_moments(
    keys: Mapping[str, str], zone_text: str, *, combines: bool
) -> Iterator[tuple[Level, Used, Q]]:
    """Give the conditions on moments that the keys name, each with its level and the keys that it used up.

    ``zone_text`` is the query's Timezone Offset From UTC; ``combines`` says whether ranges of dates and times are
    matched together. Raises InvalidKeyValue.
    """
    asked = offset_of(zone_text) if zone_text else None
    for date_keyword, time_keyword, level in _PAIRS:
        clock = _Clock(level, date_keyword, time_keyword)
        date_text, time_text = keys.get(date_keyword, "").strip(), keys.get(time_keyword, "").strip()
        if is_universal(date_text) or '""' in {date_text, time_text}:
            continue
        is_pair = combines and _same_form(date_text, time_text)
        is_one_day = asked is not None and "-" not in date_text and not is_universal(time_text)
        if not is_pair and asked is None:
            continue
        with_time = is_pair or is_one_day
        try:
            moments = combined(date_range(date_text), time_range(time_text) if with_time else None)
        except InvalidKeyValue as error:
            raise InvalidKeyValue(f"{date_keyword}, {time_keyword}: {error}") from error
        used = (date_keyword, time_keyword) if with_time else (date_keyword,)
        yield level, used, clock.within(moments) if asked is None else _moved(clock, moments, asked)
    yield from _conditions_on_datetimes(keys, asked)


def _conditions_on_datetimes(keys: Mapping[str, str], asked: timezone | None) -> Iterator[tuple[Level, Used, Q]]:
    for keyword, value in list(keys.items()):
        level = level_of(keyword)
        if vr_of(keyword) != "DT" or level not in _ROWS or is_universal(value.strip()) or value.strip() == '""':
            continue
        try:
            moments, zone = datetime_range(value.strip())
        except InvalidKeyValue as error:
            raise InvalidKeyValue(f"{keyword}: {error}") from error
        zone = zone or asked
        if zone is not None:
            yield level, (keyword,), _moved(_Clock(level, keyword), moments, zone)


def _same_form(dates: str, times: str) -> bool:
    return (
        "-" in dates
        and "-" in times
        and dates.startswith("-") == times.startswith("-")
        and dates.endswith("-") == times.endswith("-")
    )


def _study_within(moments: Moments) -> Q:
    condition = Q(study_date__isnull=False)
    if moments.low is not None:
        condition &= _beside(moments.low, time.min, "gt", "gte")
    if moments.high is not None:
        condition &= _beside(moments.high, time.max, "lt", "lte")
    return condition


def _beside(moment: datetime, whole_day: time, further: str, or_same: str) -> Q:
    day = Q(**{f"sort_date__{or_same}": moment.date()})
    if moment.time() == whole_day:
        return day
    within = Q(**{"sort_date": moment.date(), f"study_time__{or_same}": moment.time()})
    return day & (Q(**{f"sort_date__{further}": moment.date()}) | within)


def _moved(clock: _Clock, moments: Moments, asked: timezone) -> Q:
    """Match moments asked in one time zone with rows that know their own; those that don't are taken as they are."""
    around = Moments(
        moments.low - _DAY if moments.low and moments.low.year > 1 else None,
        moments.high + _DAY if moments.high and moments.high.year < 9999 else None,
    )
    near = _ROWS[clock.level]._default_manager.filter(clock.within(around))
    condition = Q(IsNull(clock.offset, True)) & clock.within(moments)
    for text in near.order_by().annotate(offset=clock.offset).values_list("offset", flat=True).distinct():
        try:
            there = offset_of(text) if text else None
        except MatchingError:
            there = None
        if text:
            span = moments if there is None else moments.seen_from(asked, there)
            condition |= Q(Exact(clock.offset, Value(text))) & clock.within(span)
    return clock.within(around) & condition
