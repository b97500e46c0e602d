"""Dates and times in keys (PS3.4 §C.2.2.2.1 and .5): single values, ranges with open ends, time zones."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Generic, TypeVar

from studies.matching.errors import InvalidKeyValue

_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d)(\d\d)?(\d\d)?(?:\.(\d{1,6}))?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)", re.ASCII)
_DATETIME = r"(\d{4}(?:\d\d){0,5}(?:(?<=\d{14})\.\d{1,6})?)([+-](?:0\d|1[0-4])[0-5]\d)?"
_DATETIMES = re.compile(rf"(?:{_DATETIME})?(\s*-\s*)?(?:{_DATETIME})?", re.ASCII)
_HOURS = 14


T = TypeVar("T", date, time)


@dataclass(frozen=True)
class Range(Generic[T]):
    """From ``low`` to ``high``, both included; None where the end is open."""

    low: T | None
    high: T | None


def date_range(value: str) -> Range[date]:
    """Read a date or a range of dates. Raises InvalidKeyValue."""
    first, dash, last = (part.strip() for part in value.partition("-"))
    if not dash:
        day = _date(first)
        return Range(day, day)
    return _checked(Range(_date(first) if first else None, _date(last) if last else None))


def time_range(value: str) -> Range[time]:
    """Read a time or a range of times; a time without seconds stands for its whole minute. Raises InvalidKeyValue."""
    first, dash, last = (part.strip() for part in value.partition("-"))
    if not dash:
        return Range(_time(first, is_end=False), _time(first, is_end=True))
    return _checked(Range(_time(first, is_end=False) if first else None, _time(last, is_end=True) if last else None))


def _checked(found: Range[T]) -> Range[T]:
    if found.low is None and found.high is None:
        raise InvalidKeyValue("A range needs one end at least.")
    return found


def _date(text: str) -> date:
    match = _DATE.fullmatch(text)
    if match is None:
        raise InvalidKeyValue("A date is written YYYYMMDD.")
    try:
        return date(*(int(part) for part in match.groups() if part))
    except ValueError as error:
        raise InvalidKeyValue("There is no such day.") from error


def _time(text: str, *, is_end: bool) -> time:
    match = _TIME.fullmatch(text.replace(":", ""))
    if match is None or (match[4] and not match[3]):
        raise InvalidKeyValue("A time is written HHMMSS.FFFFFF.")
    hour, minute, second = (
        int(part) if part else (filler if is_end else 0)
        for part, filler in zip(match.groups()[:3], (23, 59, 59), strict=True)
    )
    fraction = (match[4] or "").ljust(6, "9" if is_end else "0")
    try:
        return time(hour, minute, min(second, 59) if second == 60 else second, int(fraction))
    except ValueError as error:
        raise InvalidKeyValue("There is no such time of day.") from error


def offset_of(value: str) -> timezone:
    """Read a Timezone Offset From UTC such as ``"+0100"`` (PS3.3 §C.12.1.1.8). Raises InvalidKeyValue."""
    match = _OFFSET.fullmatch(value.strip())
    if match is None or int(match[2]) > _HOURS or int(match[3]) > 59:
        raise InvalidKeyValue("A time zone is written like +0100 (in an address %2B0100).")
    minutes = int(match[2]) * 60 + int(match[3])
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))


@dataclass(frozen=True)
class Moments:
    """A span of moments in local time without zone, both ends included; None where open."""

    low: datetime | None
    high: datetime | None

    def seen_from(self, asked: timezone, there: timezone) -> Moments:
        """Give the same span, asked in one zone, in the local time of another."""
        return Moments(*(_moved(moment, asked, there) for moment in (self.low, self.high)))


def _moved(moment: datetime | None, asked: timezone, there: timezone) -> datetime | None:
    if moment is None or not 2 <= moment.year <= 9998:
        return moment
    return moment.replace(tzinfo=asked).astimezone(UTC).astimezone(there).replace(tzinfo=None)


def combined(dates: Range[date], times: Range[time] | None) -> Moments:
    """Give the moments from the first day at the first time to the last day at the last time (PS3.4 §C.2.2.2.5.3)."""
    low_time = times.low if times and times.low is not None else time.min
    high_time = times.high if times and times.high is not None else time.max
    return Moments(
        datetime.combine(dates.low, low_time) if dates.low else None,
        datetime.combine(dates.high, high_time) if dates.high else None,
    )


def compact(moment: datetime) -> str:
    """Give a moment as DT writes it, to the second."""
    return f"{moment.year:04}{moment:%m%d%H%M%S}"


def datetime_range(value: str) -> tuple[Moments, timezone | None]:
    """Read a DT or a range of them, and the time zone that it names (PS3.4 §C.2.2.2.5.4).

    A DT that is written to the day, or less, stands for all of it. Where both ends name a zone, the span is given in
    the first's. A hyphen before four digits that can be an offset is taken for one. Raises InvalidKeyValue.
    """
    match = _DATETIMES.fullmatch(value)
    if match is None or not (match[1] or match[4]) or (match[1] and match[4] and not match[3]):
        raise InvalidKeyValue(
            "A date with time is written YYYYMMDDHHMMSS.FFFFFF, its offset, if any, like +0100 (in an address %2B0100)."
        )
    low_zone, high_zone = (offset_of(text) if text else None for text in (match[2], match[5]))
    low = _datetime(match[1], is_end=False) if match[1] else None
    last = match[4] or (match[1] if not match[3] else None)
    high = _datetime(last, is_end=True) if last else None
    zone = low_zone or high_zone
    if low_zone and high_zone and high_zone != low_zone:
        high = _moved(high, high_zone, low_zone)
    return Moments(low, high), zone


def _datetime(text: str, *, is_end: bool) -> datetime:
    whole, _, fraction = text.partition(".")
    parts = [int(whole[:4]), *(int(whole[n : n + 2]) for n in range(4, len(whole), 2))]
    year, month = parts[0], parts[1] if len(parts) > 1 else (12 if is_end else 1)
    try:
        last_day = monthrange(year, month)[1]
        rest = [last_day, 23, 59, 59] if is_end else [1, 0, 0, 0]
        day, hour, minute, second = (*parts[2:], *rest[len(parts[2:]) :])
        return datetime(year, month, day, hour, minute, min(second, 59), int(fraction.ljust(6, "9" if is_end else "0")))
    except (ValueError, IndexError) as error:
        raise InvalidKeyValue("There is no such moment.") from error
