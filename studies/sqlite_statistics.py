"""How SQLite is told which index cuts most.

Without statistics it takes every equality for equally good, and walks all of a site's studies where it should look up
one name; with those of a small archive it plans for a small archive for ever. So it gets, after each migration, the
statistics of a large one: for few rows any plan will do. (PostgreSQL keeps its own up to date.)
"""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import connections

ROWS = 1_000_000
# An index on some rows only is on those that still want something done.
PARTIAL_ROWS = 2_000
# How many different values a column has; those not named here tell nearly every row from the others.
DISTINCT = {
    "site_id": 3,
    "status": 5,
    "priority": 5,
    "modality": 15,
    "modalities_in_study": 40,
    "number_of_instances": 300,
    "is_current": 2,
    "version": 2,
    "kind": 2,
    "component": 3,
    "sort_date": 4_000,
    "study_date": 4_000,
    "referring_physician_id": 2_000,
    "patient_name_search": 300_000,
    "patient_id": 300_000,
    "patient_id_value": 300_000,
    "assigned_to_id": 50,
    "claimed_by_id": 50,
}


def tell_sqlite(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Write the statistics of each table of the app (a handler of ``post_migrate``)."""
    connection = connections[using]
    if connection.vendor != "sqlite":
        return
    tables = {model._meta.db_table for model in sender.get_models()} & set(connection.introspection.table_names())
    with connection.cursor() as cursor:
        # Makes the table of statistics where there's none yet.
        cursor.execute("ANALYZE sqlite_schema")
        for table in sorted(tables):
            cursor.execute("DELETE FROM sqlite_stat1 WHERE tbl = %s", [table])
            cursor.execute("SELECT name, partial FROM pragma_index_list(%s)", [table])
            for index, is_partial in cursor.fetchall():
                cursor.execute("SELECT name FROM pragma_index_info(%s) ORDER BY seqno", [index])
                columns = [name for (name,) in cursor.fetchall()]
                cursor.execute(
                    "INSERT INTO sqlite_stat1 VALUES (%s, %s, %s)",
                    [table, index, _statistic(columns, PARTIAL_ROWS if is_partial else ROWS)],
                )
        cursor.execute("ANALYZE sqlite_schema")


def _statistic(columns: list[str], rows: int) -> str:
    """Give the rows of an index, and how many of them are equal in its first column, first two columns, and so on."""
    numbers, equal = [rows], float(rows)
    for column in columns:
        equal = max(equal / DISTINCT.get(column, ROWS), 1.0)
        numbers.append(round(equal))
    return " ".join(map(str, numbers))
