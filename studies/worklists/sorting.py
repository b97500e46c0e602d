"""Orders of the worklist by up to three columns, and cursors that continue a list after a row."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db.models import Q, QuerySet

from studies.models import Study

MOST_COLUMNS = 3
# What a list is sorted by: name, column (never null), and how a cursor's text becomes a value again.
COLUMNS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "date": ("sort_date", date.fromisoformat),
    "arrival": ("received_at", datetime.fromisoformat),
    "name": ("patient_name_search", str),
    "status": ("status", str),
    "priority": ("priority_rank", int),
    "modality": ("modalities_in_study", str),
    "study": ("study_description", str),
    "accession": ("accession_number", str),
    "patient_id": ("patient_id_value", str),
    "referrer": ("referring_physician_name", str),
    "site": ("site_id", int),
    "images": ("number_of_instances", int),
}
DEFAULT_SORT = "-date"


@dataclass(frozen=True)
class Step:
    """One column of an order."""

    name: str
    is_descending: bool

    @property
    def column(self) -> str:
        return COLUMNS[self.name][0]

    @property
    def further(self) -> str:
        return "lt" if self.is_descending else "gt"


@dataclass(frozen=True)
class Sorting:
    """An order of the list; ties are broken by row id, in the direction of the last column."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return ",".join(f"{'-' if s.is_descending else ''}{s.name}" for s in self.steps)

    @property
    def order(self) -> list[str]:
        """Give the columns for ``order_by``."""
        columns = [(s.column, s.is_descending) for s in self.steps] + [("pk", self.steps[-1].is_descending)]
        return [f"{'-' if is_descending else ''}{column}" for column, is_descending in columns]

    def after(self, studies: QuerySet[Study], cursor: str) -> QuerySet[Study]:
        """Give what comes after the cursor's row; all of it where the cursor can't be read."""
        values = self._values(cursor)
        if values is None:
            return studies
        columns = [*((s.column, s.further) for s in self.steps), ("pk", self.steps[-1].further)]
        beyond, same = Q(pk__in=[]), Q()
        for (column, further), value in zip(columns, values, strict=True):
            beyond |= same & Q(**{f"{column}__{further}": value})
            same &= Q(**{column: value})
        # The first column alone bounds the rows, so that an index is entered where the list goes on.
        first = self.steps[0]
        return studies.filter(Q(**{f"{first.column}__{first.further}e": values[0]}) & beyond)

    def cursor(self, study: Study) -> str:
        """Give the cursor of a row."""
        values = [getattr(study, s.column) for s in self.steps]
        texts = [v.isoformat() if isinstance(v, date | datetime) else v for v in values]
        return base64.urlsafe_b64encode(json.dumps([*texts, study.pk]).encode()).decode().rstrip("=")

    def _values(self, cursor: str) -> list[Any] | None:
        if not cursor:
            return None
        try:
            *texts, pk = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            if len(texts) != len(self.steps) or not isinstance(pk, int) or abs(pk) > 2**62:
                return None
            return [*(_value(s, t) for s, t in zip(self.steps, texts, strict=True)), pk]
        except (ValueError, TypeError, binascii.Error, RecursionError):
            return None


def _value(step: Step, text: Any) -> Any:
    value = COLUMNS[step.name][1](text)
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(text)
    if isinstance(value, int) and abs(value) > 2**31:
        raise ValueError(text)
    return value


def sorting(text: str) -> Sorting:
    """Read ``"priority,-date"``; unknown and repeated columns are left out, the default is newest first."""
    steps: dict[str, Step] = {}
    for word in text.split(","):
        name = word.strip().lstrip("-")
        if name in COLUMNS and name not in steps and len(steps) < MOST_COLUMNS:
            steps[name] = Step(name, word.strip().startswith("-"))
    return Sorting(tuple(steps.values())) if steps else sorting(DEFAULT_SORT)


def toggled(current: Sorting, name: str, *, add: bool) -> str:
    """Give the sort that a click on a column's head asks for: turned round if it's there, else first, or added last."""
    found = next((s for s in current.steps if s.name == name), None)
    step = Step(name, not found.is_descending) if found else Step(name, name in {"date", "arrival", "images"})
    if not add:
        return str(Sorting((step,)))
    if found:
        return str(Sorting(tuple(step if s.name == name else s for s in current.steps)))
    return str(Sorting((*current.steps[: MOST_COLUMNS - 1], step)))
