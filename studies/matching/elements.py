"""Matching on DICOM JSON kept in a column (PS3.18 Annex F), in SQL of SQLite and of PostgreSQL.

For attributes without a column of their own: indexed keys cut the candidates down first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from django.db.models import BooleanField, F, Func, TextField
from django.db.models.sql.compiler import SQLCompiler

from studies.lookups import without_retrying
from studies.matching.errors import InvalidKeyValue
from studies.matching.keywords import has_several_values, tag_of, vr_of
from studies.matching.letters import folded
from studies.matching.moments import compact, date_range, datetime_range, time_range
from studies.matching.options import Options
from studies.matching.soundex import sounding_alike
from studies.matching.wildcards import has_wildcards, is_universal, pattern
from studies.person_names import searchable
from studies.uids import is_uid

Sql = tuple[str, list[Any]]
WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_AGE = re.compile(r"[0-9]{3}[DWMY]")
_POSTGRESQL = "postgresql"


class Test(Protocol):
    """A condition on the text of one value."""

    def sql(self, text: str, vendor: str) -> Sql:
        """Give the condition on the SQL expression ``text``."""
        ...


@dataclass(frozen=True)
class OneOf:
    """The value is one of these."""

    values: tuple[str, ...]

    def sql(self, text: str, vendor: str) -> Sql:
        return f"{text} IN ({', '.join(['%s'] * len(self.values))})", list(self.values)


@dataclass(frozen=True)
class Fits:
    """The value fits a regular expression."""

    expression: str

    def sql(self, text: str, vendor: str) -> Sql:
        if vendor == _POSTGRESQL:
            return f"{text} ~ %s", [self.expression]
        return f"{text} REGEXP %s", [without_retrying(self.expression)]


@dataclass(frozen=True)
class Between:
    """The value lies between two texts in the order of bytes; None where open."""

    low: str | None
    high: str | None

    def sql(self, text: str, vendor: str) -> Sql:
        ordered = f'{text} COLLATE "C"' if vendor == _POSTGRESQL else text
        ends = [(">=", self.low), ("<=", self.high)]
        parts = [f"{ordered} {sign} %s" for sign, end in ends if end is not None]
        return " AND ".join(parts), [end for _, end in ends if end is not None]


@dataclass(frozen=True)
class AnyOf:
    """One of the tests is passed."""

    tests: tuple[Test, ...]

    def sql(self, text: str, vendor: str) -> Sql:
        return _joined(" OR ", self.tests, text, vendor)


@dataclass(frozen=True)
class AllOf:
    """Every test is passed."""

    tests: tuple[Test, ...]

    def sql(self, text: str, vendor: str) -> Sql:
        return _joined(" AND ", self.tests, text, vendor)


def _joined(sign: str, tests: Sequence[Test], text: str, vendor: str) -> Sql:
    compiled = [test.sql(text, vendor) for test in tests]
    return sign.join(f"({sql})" for sql, _ in compiled), [p for _, params in compiled for p in params]


@dataclass(frozen=True)
class Leaf:
    """An element that has a value for each of the tests; without tests, an element that is absent or empty."""

    tag: str
    vr: str
    tests: tuple[Test, ...]

    @property
    def asks_for_absence(self) -> bool:
        """Whether it matches what is absent or empty."""
        return not self.tests

    def sql(self, source: str, vendor: str, depth: int = 0) -> Sql:
        values, text = _values(self, source, vendor, depth)
        if self.asks_for_absence:
            is_filled = f"{text} <> ''"
            return f"NOT {_exists(values, is_filled)}", []
        compiled = [test.sql(text, vendor) for test in self.tests]
        return " AND ".join(_exists(values, sql) for sql, _ in compiled), [p for _, params in compiled for p in params]


@dataclass(frozen=True)
class Items:
    """A sequence that has an item in which everything matches (PS3.4 §C.2.2.2.6).

    Where nothing but absence is asked for, a sequence that is absent or has no item matches, too: what its items would
    hold is absent as well (§C.2.2.2.7 doesn't say).
    """

    tag: str
    parts: tuple[Leaf | Items, ...]

    @property
    def asks_for_absence(self) -> bool:
        """Whether every part matches what is absent or empty."""
        return all(part.asks_for_absence for part in self.parts)

    def sql(self, source: str, vendor: str, depth: int = 0) -> Sql:
        name = f"v{depth}"
        if vendor == _POSTGRESQL:
            values, item = f"jsonb_path_query({source}, '$.\"{self.tag}\".Value[*]') AS {name}(value)", f"{name}.value"
        else:
            values = f"json_each({source}, '$.\"{self.tag}\".Value') AS {name}"
            item = f"(CASE WHEN {name}.type = 'object' THEN {name}.value END)"
        compiled = [part.sql(item, vendor, depth + 1) for part in self.parts]
        matching = _exists(values, " AND ".join(sql for sql, _ in compiled))
        if self.asks_for_absence:
            matching = f"({matching} OR NOT {_exists(values, '1 = 1')})"
        return matching, [p for _, params in compiled for p in params]


def _exists(values: str, condition: str) -> str:
    # Made of tags and names of columns only; what was asked for goes as parameters.
    return f"EXISTS (SELECT 1 FROM {values} WHERE {condition})"  # noqa: S608


def _values(leaf: Leaf, source: str, vendor: str, depth: int) -> tuple[str, str]:
    """Give the FROM clause of an element's values, of a name's groups, and the expression of one's text."""
    name, group = f"v{depth}", f"g{depth}"
    if vendor == _POSTGRESQL:
        step = ".*" if leaf.vr == "PN" else ""
        values = f"jsonb_path_query({source}, '$.\"{leaf.tag}\".Value[*]{step}') AS {name}(value)"
        return values, f"({name}.value #>> '{{}}')"
    values = f"json_each({source}, '$.\"{leaf.tag}\".Value') AS {name}"
    if leaf.vr != "PN":
        return values, f"CAST({name}.value AS TEXT)" if leaf.vr in NUMBER_VRS else f"{name}.value"
    groups = f"json_each(CASE WHEN {name}.type = 'object' THEN {name}.value END) AS {group}"
    return f"{values}, {groups}", f"{group}.value"


class ElementMatches(Func):
    """Whether DICOM JSON in a column matches; with corrections, elements that they hold are taken from them."""

    output_field = BooleanField()

    def __init__(self, node: Leaf | Items, *columns: Any, **extra: Any) -> None:
        super().__init__(*columns, **extra)
        self.node = node

    def as_sql(self, compiler: SQLCompiler, connection: Any, *args: Any, **extra: Any) -> Any:
        sources = [compiler.compile(expression)[0] for expression in self.get_source_expressions()]
        source = sources[0]
        if len(sources) == 2:
            source = _corrected(self.node.tag, sources[0], sources[1], connection.vendor)
        sql, params = self.node.sql(source, connection.vendor)
        return sql, tuple(params)


class ElementText(Func):
    """The text of an element's first value in DICOM JSON in a column, NULL where there's none."""

    output_field = TextField()

    def __init__(self, keyword: str, *columns: Any, **extra: Any) -> None:
        super().__init__(*columns, **extra)
        self.keyword = keyword

    def as_sql(self, compiler: SQLCompiler, connection: Any, *args: Any, **extra: Any) -> Any:
        source, _ = compiler.compile(self.get_source_expressions()[0])
        tag = tag_of(self.keyword)
        if connection.vendor == _POSTGRESQL:
            return f"(({source} #>> '{{{tag},Value,0}}') COLLATE \"C\")", ()
        return f"json_extract({source}, '$.\"{tag}\".Value[0]')", ()


def _corrected(tag: str, attributes: str, corrections: str, vendor: str) -> str:
    if vendor == _POSTGRESQL:
        return f"(CASE WHEN jsonb_exists({corrections}, '{tag}') THEN {corrections} ELSE {attributes} END)"
    is_corrected = f"json_type({corrections}, '$.\"{tag}\"') IS NOT NULL"
    return f"(CASE WHEN {is_corrected} THEN {corrections} ELSE {attributes} END)"


def element_matches(node: Leaf | Items, *, with_corrections: bool) -> ElementMatches:
    """Give the condition on the column ``attributes``, and ``corrections`` where the row has them."""
    columns = (F("attributes"), F("corrections")) if with_corrections else (F("attributes"),)
    return ElementMatches(node, *columns)


def leaf(keyword: str, value: str, options: Options) -> Leaf | None:
    """Give the node for an attribute and its key value; None for universal matching. Raises InvalidKeyValue."""
    vr = vr_of(keyword)
    if is_universal(value):
        return None
    if value == '""' and options.takes_empty:
        return Leaf(tag_of(keyword), vr, ())
    if vr == "SQ":
        raise InvalidKeyValue("It's a sequence: name an attribute of its items, after a point.")
    if vr == "UI":
        return Leaf(tag_of(keyword), vr, (OneOf(tuple(uids_of(value))),))
    many = options.takes_many or vr == "CS"
    values = [part.strip() for part in value.split("\\")] if many else [value.strip()]
    values = [part for part in values if part] or [value]
    # Each must be among an attribute's several values (PS3.4 §C.2.2.2.8); of one that has a single value, any may be.
    wanted = [[one] for one in values] if options.takes_many and has_several_values(keyword) else [values]
    if vr == "PN":
        return Leaf(tag_of(keyword), vr, tuple(_name_test(names, is_fuzzy=options.is_fuzzy) for names in wanted))
    return Leaf(tag_of(keyword), vr, tuple(_test(vr, those) for those in wanted))


def uids_of(value: str) -> list[str]:
    """Give the UIDs of a list, by commas or backslashes (PS3.18 §8.3.4.1, PS3.4 §C.2.2.2.2). Raises InvalidKeyValue."""
    uids = [uid for part in re.split(r"[\\,]", value) if (uid := part.strip())]
    if not uids or not all(map(is_uid, uids)):
        raise InvalidKeyValue("A UID is digits and points, at most 64, without wildcards.")
    return uids


def _name_test(names: Sequence[str], *, is_fuzzy: bool) -> Test:
    """Match one group of a name, its case and marks ignored; components left out at the end match anything."""
    spelt = Fits("|".join(rf"(\A{folded(searchable(name))}(\^.*)?\Z)" for name in names))
    heard = [sounding_alike(searchable(name)) for name in names] if is_fuzzy else []
    alike = [AllOf(tuple(Fits(expression) for expression in expressions)) for expressions in heard if expressions]
    return AnyOf((spelt, *alike)) if alike else spelt


def _test(vr: str, values: Sequence[str]) -> Test:
    if vr == "DA":
        days = date_range(values[0])
        low, high = (f"{end:%Y%m%d}" if end is not None else None for end in (days.low, days.high))
        return Between(low, high)
    if vr == "TM":
        times = time_range(values[0])
        # "~" comes after every digit and the point: what was stored with a fraction of the last second lies before it.
        return Between(
            f"{times.low:%H%M%S}" if times.low is not None else None,
            f"{times.high:%H%M%S}~" if times.high is not None else None,
        )
    if vr == "DT":
        moments, _ = datetime_range(values[0])
        return Between(
            compact(moments.low) if moments.low is not None else None,
            f"{compact(moments.high)}~" if moments.high is not None else None,
        )
    if vr == "AS" and not all(map(_AGE.fullmatch, values)):
        raise InvalidKeyValue("An age is written like 045Y, with D, W, M or Y.")
    if vr in NUMBER_VRS:
        return OneOf(tuple(spelling for value in values for spelling in _spellings(value)))
    if vr in WILDCARD_VRS and any(has_wildcards(value) for value in values):
        return Fits("(?s)" + "|".join(rf"(\A{pattern(value)}\Z)" for value in values))
    return OneOf(tuple(values))


def _spellings(value: str) -> list[str]:
    """Give the ways in which JSON may write a number."""
    try:
        number = float(value)
    except ValueError as error:
        raise InvalidKeyValue("A number was expected.") from error
    if number != number or abs(number) > 1e18:
        raise InvalidKeyValue("A number was expected.")
    spellings = {value, repr(number)}
    if number.is_integer():
        spellings.add(str(int(number)))
    return sorted(spellings)
