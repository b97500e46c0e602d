"""Lookups that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Lookup, OrderBy

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
    """``field__holds="CT"``: one of the values that the column holds, joined by backslashes.

    On PostgreSQL an index on the array of them finds values that few have.
    """

    lookup_name = "holds"
    prepare_rhs = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        if connection.vendor == "postgresql":
            return f"string_to_array({column}, '\\') @> ARRAY[%s]", (*column_params, str(self.rhs))
        return f"instr('\\' || {column} || '\\', %s) > 0", (*column_params, f"\\{self.rhs}\\")


@CharField.register_lookup
class Has(Lookup):
    """``field__has="TEXT"``: the text stands anywhere in the column, in the same case on both databases."""

    lookup_name = "has"
    prepare_rhs = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        position = "strpos" if connection.vendor == "postgresql" else "instr"
        return f"{position}({column}, %s) > 0", (*column_params, str(self.rhs))


def without_retrying(expression: str) -> str:
    """Give the expression of wildcards (``matching.wildcards.pattern``) so that Python's ``re`` can't take for ever.

    It would try each group again at any place: twenty stars keep a process busy for hours. PostgreSQL's own matching
    doesn't go back, and doesn't know atomic groups.
    """
    return expression.replace("(?:", "(?>")


@CharField.register_lookup
class Fits(Lookup):
    """``field__fits=pattern("D*E")``: a regular expression that wildcards were made into."""

    lookup_name = "fits"
    prepare_rhs = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        if connection.vendor == "postgresql":
            return f"{column} ~ %s", (*column_params, str(self.rhs))
        return f"{column} REGEXP %s", (*column_params, without_retrying(str(self.rhs)))


class _ByteComparison(Lookup):
    """Compares by bytes, as SQLite does and, on PostgreSQL, an index with the operator class varchar_pattern_ops."""

    prepare_rhs = True
    sign = ""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, column_params = self.process_lhs(compiler, connection)
        sign = f"~{self.sign}~" if connection.vendor == "postgresql" else self.sign
        return f"{column} {sign} %s", (*column_params, str(self.rhs))


for name, sign in (("byte_lt", "<"), ("byte_lte", "<="), ("byte_gt", ">"), ("byte_gte", ">=")):
    CharField.register_lookup(type(name, (_ByteComparison,), {"lookup_name": name, "sign": sign}))


class ByBytes(OrderBy):
    """Orders texts by their bytes, so that an index of the operator class varchar_pattern_ops gives the order."""

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Give the order by the operator that the index is made for."""
        sign = "~>~ /* DESC */" if self.descending else "~<~ /* ASC */"  # Django's compiler looks for one of the words
        return self.as_sql(compiler, connection, template=f"%(expression)s USING {sign}")
