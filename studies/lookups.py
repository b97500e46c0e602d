"""Lookups that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Lookup

LAST_CHARACTER = "\U0010ffff"


@CharField.register_lookup
class Prefix(Lookup):
    """``field__prefix="DOE"``: case-sensitive, as a range of the index.

    The index must order bytes: SQLite's does by default, PostgreSQL's with the operator class varchar_pattern_ops.
    """

    lookup_name = "prefix"
    prepare_rhs = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        first = str(self.rhs)
        params = (*column_params, first, *column_params, first + LAST_CHARACTER)
        if connection.vendor == "postgresql":
            return f"({column} ~>=~ %s AND {column} ~<~ %s)", params
        return f"({column} >= %s AND {column} < %s)", params


@CharField.register_lookup
class Holds(Lookup):
    """``field__holds="CT"``: one of the values that the column holds, joined by backslashes."""

    lookup_name = "holds"
    prepare_rhs = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        position = "strpos" if connection.vendor == "postgresql" else "instr"
        return f"{position}('\\' || {column} || '\\', %s) > 0", (*column_params, f"\\{self.rhs}\\")


@CharField.register_lookup
class Has(Lookup):
    """``field__has="TEXT"``: the text stands anywhere in the column, in the same case on both databases."""

    lookup_name = "has"
    prepare_rhs = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        position = "strpos" if connection.vendor == "postgresql" else "instr"
        return f"{position}({column}, %s) > 0", (*column_params, str(self.rhs))
