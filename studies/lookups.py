"""A prefix lookup that uses an ordinary index on SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Lookup

LAST_CHARACTER = "\U0010ffff"


@CharField.register_lookup
class Prefix(Lookup):
    """``field__prefix="DOE"``: case-sensitive, as a range of the index.

    The column must have a byte-wise collation (SQLite's BINARY, PostgreSQL's "C").
    """

    lookup_name = "prefix"
    prepare_rhs = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        first = str(self.rhs)
        if connection.vendor == "postgresql":
            column = f'{column} COLLATE "C"'
        params = (*column_params, first, *column_params, first + LAST_CHARACTER)
        return f"({column} >= %s AND {column} < %s)", params
