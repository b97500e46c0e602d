"""Conditions of routing rules: what they may ask of a study, and whether it's so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, time
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from studies.models import Priority, Series, Study

IS, IS_NOT, MATCHES, MATCHES_NOT, BETWEEN = "is", "is_not", "matches", "matches_not", "between"
OPERATORS = (
    (IS, _("is one of")),
    (IS_NOT, _("is none of")),
    (MATCHES, _("matches (regular expression)")),
    (MATCHES_NOT, _("doesn't match")),
    (BETWEEN, _("is between")),
)
ATTRIBUTES = (
    ("modality", _("Modality of the series")),
    ("body_part", _("Body part of the series")),
    ("station", _("Station name of the series")),
    ("series_description", _("Series description")),
    ("calling_ae", _("AE title that sent it")),
    ("study_description", _("Study description")),
    ("referring_physician", _("Referring physician")),
    ("institution", _("Institution")),
    ("priority", _("Priority")),
    ("patient_id", _("Patient ID")),
    ("weekday", _("Weekday of arrival")),
    ("time", _("Time of arrival")),
)
# These choose series; the others hold for the whole study.
OF_SERIES = {"modality", "body_part", "station", "series_description"}
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
STATION_NAME = "00081010"
LONGEST_PATTERN = 200
# A pattern that repeats a repetition can take for ever on an innocent text.
NESTED_REPETITION = re.compile(r"\([^)]*[+*][^)]*\)[+*{]")


class InvalidCondition(ValueError):
    """The condition can't be asked; the message says why."""


@dataclass(frozen=True)
class Condition:
    """One condition: an attribute, an operator, and the words, pattern or span to compare with."""

    attribute: str
    operator: str
    value: str

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Condition:
        """Read what a rule keeps and check it. Raises InvalidCondition."""
        condition = cls(str(kept.get("attribute", "")), str(kept.get("operator", "")), str(kept.get("value", "")))
        condition.check()
        return condition

    def as_kept(self) -> dict[str, str]:
        """Give it as a rule keeps it."""
        return asdict(self)

    def check(self) -> None:
        """Raise InvalidCondition where it can't be asked."""
        if self.attribute not in dict(ATTRIBUTES):
            raise InvalidCondition(f"“{self.attribute}” is nothing that can be asked.")
        if self.operator not in dict(OPERATORS):
            raise InvalidCondition(f"“{self.operator}” is no comparison.")
        if not self.value.strip():
            raise InvalidCondition("A value is needed.")
        if (self.attribute == "time") is not (self.operator == BETWEEN):
            raise InvalidCondition("A time is compared by “is between”, and nothing else is.")
        if self.operator == BETWEEN:
            _span(self.value)
        if self.operator in {MATCHES, MATCHES_NOT}:
            _pattern(self.value)
        if self.attribute == "weekday" and not set(self._words()) <= {day.upper() for day in WEEKDAYS}:
            raise InvalidCondition("Weekdays are written mon, tue, wed, thu, fri, sat, sun.")
        if self.attribute == "priority" and self.operator in {IS, IS_NOT}:
            unknown = set(self._words()) - set(Priority.values)
            if unknown:
                raise InvalidCondition(f"“{sorted(unknown)[0]}” is no priority.")

    def _words(self) -> list[str]:
        return [word.strip().upper() for word in re.split(r"[,;]", self.value) if word.strip()]

    def holds_for(self, text: str, now: datetime) -> bool:
        """Say whether it holds for the attribute's value."""
        if self.operator == BETWEEN:
            first, last = _span(self.value)
            clock = now.time()
            return first <= clock < last if first <= last else clock >= first or clock < last
        if self.operator in {MATCHES, MATCHES_NOT}:
            return bool(_pattern(self.value).search(text[:1000])) is (self.operator == MATCHES)
        values = {part.strip().upper() for part in text.split("\\")}
        return bool(values & set(self._words())) is (self.operator == IS)


def _pattern(text: str) -> re.Pattern[str]:
    if len(text) > LONGEST_PATTERN or NESTED_REPETITION.search(text):
        raise InvalidCondition("The regular expression is too long, or repeats a repetition.")
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise InvalidCondition(f"“{text}” is no regular expression: {error}.") from error


def _span(text: str) -> tuple[time, time]:
    match = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})\s*", text)
    try:
        assert match is not None
        numbers = [int(group) for group in match.groups()]
        return time(numbers[0], numbers[1]), time(numbers[2], numbers[3])
    except (AssertionError, ValueError) as error:
        raise InvalidCondition("A span of time is written 18:00-07:00.") from error


def study_satisfies(study: Study, conditions: Sequence[Condition], *, now: datetime) -> bool:
    """Say whether all conditions on the study as a whole hold; ``now`` is the time of its arrival."""
    local = timezone.localtime(now)
    values = {
        "calling_ae": study.source_ae_title,
        "study_description": study.study_description,
        "referring_physician": study.referring_physician_name.replace("^", " "),
        "institution": study.institution_name,
        "priority": study.priority,
        "patient_id": study.patient_id_value,
        "weekday": WEEKDAYS[local.weekday()],
        "time": "",
    }
    return all(c.holds_for(values[c.attribute], local) for c in conditions if c.attribute not in OF_SERIES)


def series_satisfying(study: Study, conditions: Sequence[Condition], *, now: datetime) -> list[Series]:
    """Give the study's series for which all conditions on series hold; all of them when there are none."""
    asked = [c for c in conditions if c.attribute in OF_SERIES]
    chosen = []
    for series in study.series.order_by("pk"):
        values = {
            "modality": series.modality,
            "body_part": series.body_part_examined,
            "station": str((series.attributes.get(STATION_NAME, {}).get("Value") or [""])[0]),
            "series_description": series.series_description,
        }
        if all(c.holds_for(values[c.attribute], now) for c in asked):
            chosen.append(series)
    return chosen
