"""INSERT statements composed once.

For a single row Django takes several times longer to compose its statement than a database to run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from django.db import connection
from django.db.models import BinaryField, DateField, DurationField, Field, JSONField, Model, TimeField
from django.utils import timezone

# What a driver doesn't take as it is; asking each field for each value costs more than the insertion.
_CONVERTED = (BinaryField, DateField, DurationField, JSONField, TimeField)
Row = Mapping[str, Any]


class Insertion:
    """The insertion of a model's rows, given by their columns' values (``study_id``, not ``study``).

    What a row doesn't give gets its field's default, or the time where the field is set on creation. With
    ``leaves_known``, rows that a unique constraint knows already are left as they are.
    """

    def __init__(self, model: type[Model], *, leaves_known: bool = False) -> None:
        self._model, self._leaves_known = model, leaves_known

    @cached_property
    def _columns(self) -> list[tuple[str, Callable[[], Any], Field[Any, Any] | None]]:
        """Give each column's name, what makes its default, and its field where that converts values."""
        return [(f.attname, _default(f), f if isinstance(f, _CONVERTED) else None) for f in self._fields]

    @cached_property
    def _fields(self) -> list[Field[Any, Any]]:
        return [f for f in self._model._meta.local_concrete_fields if not f.primary_key and not f.generated]

    @cached_property
    def _start(self) -> str:
        columns = ", ".join(str(f.column) for f in self._fields)
        return f"INSERT INTO {self._model._meta.db_table} ({columns}) VALUES "  # noqa: S608  our own names

    @cached_property
    def _place(self) -> str:
        return f"({', '.join(['%s'] * len(self._fields))})"

    @property
    def _end(self) -> str:
        return " ON CONFLICT DO NOTHING" if self._leaves_known else ""

    def _values(self, row: Row) -> list[Any]:
        values = []
        for name, default, converting in self._columns:
            value = row[name] if name in row else default()
            values.append(value if converting is None else converting.get_db_prep_save(value, connection))
        return values

    def many(self, rows: Sequence[Row]) -> None:
        """Insert any number of rows."""
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(f"{self._start}{self._place}{self._end}", [self._values(row) for row in rows])

    def few(self, rows: Sequence[Row]) -> list[int]:
        """Insert as many rows as a commit makes of a kind by one statement, and give their keys, in order."""
        if not rows:
            return []
        places = ", ".join([self._place] * len(rows))
        with connection.cursor() as cursor:
            cursor.execute(
                f"{self._start}{places} RETURNING {self._model._meta.pk.column}",
                [value for row in rows for value in self._values(row)],
            )
            return [pk for (pk,) in cursor.fetchall()]


def _default(field: Field[Any, Any]) -> Callable[[], Any]:
    is_set = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
    return (lambda: timezone.now()) if is_set else field.get_default
