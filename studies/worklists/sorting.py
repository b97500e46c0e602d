"""Orders of the worklist by up to three columns, and cursors that continue a list after a row."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol, TypeVar

from django.db.models import Case, F, Model, OrderBy, Q, QuerySet, Value, When
from django.db.models.expressions import Combinable

from studies.lookups import ByBytes
from studies.reading import OPEN_STATUSES

Row = TypeVar("Row", bound=Model)


class HasPk(Protocol):
    """A row of a list, whether a model or not."""

    pk: Any


MOST_COLUMNS = 3
# When a case is due that isn't: after all others.
NEVER = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SortColumn:
    """What a list is sorted by: a column (never null), and how a cursor's text becomes a value again.

    ``is_indexed``: an index gives the whole archive in this order. Texts among these are ordered by their bytes, as
    that index is; the others cost a sort of all that the list holds. ``expression``: the value, where no column of a
    study has it.
    """

    column: str
    parse: Callable[[str], Any]
    is_indexed: bool = False
    expression: Combinable | None = None

    @property
    def is_by_bytes(self) -> bool:
        return self.is_indexed and self.parse is str


def _day_or_moment(text: str) -> date:
    return datetime.fromisoformat(text) if "T" in text else date.fromisoformat(text)


COLUMNS = {
    "date": SortColumn("sort_date", _day_or_moment, is_indexed=True),
    "arrival": SortColumn("received_at", datetime.fromisoformat, is_indexed=True),
    "name": SortColumn("patient_name_search", str, is_indexed=True),
    "status": SortColumn("status", str),
    "priority": SortColumn("priority_rank", int),
    "due": SortColumn(
        "next_due_at",
        datetime.fromisoformat,
        expression=Case(
            When(status__in=OPEN_STATUSES, clock__due_at__isnull=False, then=F("clock__due_at")), default=Value(NEVER)
        ),
    ),
    "modality": SortColumn("modalities_in_study", str),
    "study": SortColumn("study_description", str),
    "accession": SortColumn("accession_number", str, is_indexed=True),
    "patient_id": SortColumn("patient_id_value", str, is_indexed=True),
    "referrer": SortColumn("referring_physician_name", str),
    "site": SortColumn("site_id", int),
    "images": SortColumn("number_of_instances", int),
}
DEFAULT_SORT = "-date"


@dataclass(frozen=True)
class Step:
    """One column of an order."""

    name: str
    is_descending: bool

    @property
    def column(self) -> str:
        return COLUMNS[self.name].column

    @property
    def further(self) -> str:
        """Give the lookup of what comes after a value."""
        prefix = "byte_" if COLUMNS[self.name].is_by_bytes else ""
        return f"{prefix}{'lt' if self.is_descending else 'gt'}"

    @property
    def order(self) -> OrderBy:
        """Give the column for ``order_by``."""
        kind = ByBytes if COLUMNS[self.name].is_by_bytes else OrderBy
        return kind(F(self.column), descending=self.is_descending)


@dataclass(frozen=True)
class Sorting:
    """An order of the list; ties are broken by row id, in the direction of the last column."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return ",".join(f"{'-' if s.is_descending else ''}{s.name}" for s in self.steps)

    @property
    def order(self) -> list[OrderBy]:
        """Give the columns for ``order_by``."""
        return [*(s.order for s in self.steps), OrderBy(F("pk"), descending=self.steps[-1].is_descending)]

    @property
    def is_indexed(self) -> bool:
        """Say whether an index gives the whole archive in this order: its first column decides."""
        return COLUMNS[self.steps[0].name].is_indexed

    def after(self, studies: QuerySet[Row], cursor: str) -> QuerySet[Row]:
        """Give what comes after the cursor's row; all of it where the cursor can't be read."""
        studies = self.named(studies)
        values = self._values(cursor)
        if values is None:
            return studies
        columns = [
            *((s.column, s.further) for s in self.steps),
            ("pk", "lt" if self.steps[-1].is_descending else "gt"),
        ]
        beyond, same = Q(pk__in=[]), Q()
        for (column, further), value in zip(columns, values, strict=True):
            beyond |= same & Q(**{f"{column}__{further}": value})
            same &= Q(**{column: value})
        # The first column alone bounds the rows, so that an index is entered where the list goes on.
        first = self.steps[0]
        return studies.filter(Q(**{f"{first.column}__{first.further}e": values[0]}) & beyond)

    def named(self, studies: QuerySet[Row]) -> QuerySet[Row]:
        """Give the rows with what they are sorted by and no column holds."""
        for step in self.steps:
            expression = COLUMNS[step.name].expression
            if expression is not None and step.column not in studies.query.annotations:
                studies = studies.annotate(**{step.column: expression})
        return studies

    def cursor(self, row: HasPk) -> str:
        """Give the cursor of a row."""
        values = [getattr(row, s.column) for s in self.steps]
        texts = [v.isoformat() if isinstance(v, date | datetime) else v for v in values]
        return base64.urlsafe_b64encode(json.dumps([*texts, row.pk]).encode()).decode().rstrip("=")

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
    value = COLUMNS[step.name].parse(text)
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


def bounded(order: Sorting, *, is_short: bool) -> Sorting:
    """Give the order itself where an index gives it or the list is short, else the usual one."""
    return order if is_short or order.is_indexed else sorting(DEFAULT_SORT)
