"""From keys to conditions on the index (PS3.4 §C.2.2.2): what C-FIND identifiers and QIDO-RS queries have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q

from studies.matching.dated import conditions_on_moments
from studies.matching.elements import Items, Leaf, element_matches, leaf, uids_of
from studies.matching.errors import InvalidKeyValue
from studies.matching.keywords import Level, level_of, path_of, tag_of, vr_of
from studies.matching.moments import Range, date_range, time_range
from studies.matching.names import name_matches, walking_its_index
from studies.matching.options import Options
from studies.matching.results import AVAILABILITY
from studies.matching.wildcards import has_wildcards, is_universal, literal_start, longest_literal, pattern
from studies.models import Instance
from studies.person_names import identifying

LONGEST_VALUE = 5000
SEVERAL = "Several values are matched with multiplevaluematching=true, and only where one by one they can be."
# What a database's integers hold, and IS twice (PS3.5 §6.2).
LONGEST_NUMBER = 18
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


@dataclass
class Criteria:
    """The conditions at each level, and what of the keys was used.

    PATIENT and STUDY conditions are both on studies. ``paths`` are the attributes asked for, matched or not;
    ``used`` those that cut the result, with their values; ``unsupported`` those that the index doesn't know.
    """

    conditions: dict[Level, Q] = field(default_factory=lambda: {level: Q() for level in Level})
    paths: list[tuple[str, ...]] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)

    @property
    def study(self) -> Q:
        """Give the condition on studies and their patients."""
        return self.conditions[Level.PATIENT] & self.conditions[Level.STUDY]

    @property
    def series(self) -> Q:
        """Give the condition on series alone."""
        return self.conditions[Level.SERIES]

    @property
    def instance(self) -> Q:
        """Give the condition on instances alone."""
        return self.conditions[Level.INSTANCE]

    def and_also(self, level: Level, condition: Q) -> None:
        """Add a condition at a level."""
        self.conditions[level] &= condition


def criteria_of(keys: Iterable[tuple[str, str]], options: Options | None = None) -> Criteria:
    """Read pairs of attribute path and key value.

    A path is keywords or tags joined by points, ``"PatientID"`` or ``"00400275.00400009"``; several values are joined
    by backslashes. Keys of every level may be given whatever is searched (relational queries). Raises UnknownAttribute
    and InvalidKeyValue; attributes that the index doesn't know are left out and named in ``unsupported``.
    """
    options = options or Options()
    criteria = Criteria()
    simple: dict[str, str] = {}
    sequences: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name, value in keys:
        path = path_of(name)
        if len(value) > LONGEST_VALUE:
            raise InvalidKeyValue(f"{path[-1]}: a value has at most {LONGEST_VALUE} characters.")
        if "\x00" in value:
            raise InvalidKeyValue(f"{path[-1]}: no value has the character NUL.")
        criteria.paths.append(path)
        if path[0] == "SpecificCharacterSet":
            continue
        if level_of(path[0]) is None:
            criteria.unsupported.append(".".join(path))
        elif len(path) > 1:
            sequences.setdefault(path[0], []).append((path[1:], value))
        elif path[0] in simple:
            raise InvalidKeyValue(f"{path[0]}: an attribute is asked for once, by keyword or by tag.")
        else:
            simple[path[0]] = value
    _use_moments(criteria, simple, options)
    for keyword, value in simple.items():
        _use(criteria, keyword, value, options)
    for keyword, parts in sequences.items():
        _use_sequence(criteria, keyword, parts, options)
    return criteria


def _mark_used(criteria: Criteria, name: str, value: str) -> None:
    criteria.used[name] = value[:200]


def _use(criteria: Criteria, keyword: str, value: str, options: Options) -> None:
    level = level_of(keyword)
    assert level is not None
    value = value.strip()
    if is_universal(value):
        return
    try:
        if keyword in COLUMNS:
            matcher, column = COLUMNS[keyword]
            condition = _is_empty(column) if value == '""' and options.takes_empty else matcher(column, value, options)
        elif keyword in _UNMATCHABLE:
            criteria.unsupported.append(keyword)
            return
        else:
            node = leaf(keyword, value, options)
            condition = Q(element_matches(node, with_corrections=level <= Level.STUDY)) if node else Q()
    except InvalidKeyValue as error:
        if "\\" in value and not options.takes_many and vr_of(keyword) != "UI":
            raise InvalidKeyValue(f"{keyword}: {SEVERAL}") from error
        raise InvalidKeyValue(f"{keyword}: {error}") from error
    if condition:
        criteria.and_also(level, condition)
        _mark_used(criteria, keyword, value)


def _use_sequence(criteria: Criteria, keyword: str, parts: list[tuple[tuple[str, ...], str]], options: Options) -> None:
    level = level_of(keyword)
    assert level is not None
    node = _items(keyword, parts, options)
    if node is None:
        return
    criteria.and_also(level, Q(element_matches(node, with_corrections=level <= Level.STUDY)))
    for path, value in parts:
        if not is_universal(value):
            _mark_used(criteria, ".".join((keyword, *path)), value)


def _items(keyword: str, parts: list[tuple[tuple[str, ...], str]], options: Options) -> Items | None:
    """Give one node for all keys of a sequence: they must match in the same item."""
    nested: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    nodes: list[Leaf | Items] = []
    for path, value in parts:
        if len(path) > 1:
            nested.setdefault(path[0], []).append((path[1:], value))
            continue
        try:
            found = leaf(path[0], value, options)
        except InvalidKeyValue as error:
            raise InvalidKeyValue(f"{keyword}.{path[0]}: {error}") from error
        if found is not None:
            nodes.append(found)
    for name, below in nested.items():
        inner = _items(name, below, options)
        if inner is not None:
            nodes.append(inner)
    return Items(tag_of(keyword), tuple(nodes)) if nodes else None


def _values(value: str) -> list[str]:
    return [part.strip() for part in value.split("\\") if part.strip()]


def _any_of(values: Iterable[str], condition_of: Callable[[str], Q]) -> Q:
    condition = Q()
    for value in values:
        if is_universal(value):
            return Q()
        condition |= condition_of(value)
    return condition


def _text(column: str, value: str, options: Options) -> Q:
    values = _values(value) if options.takes_many else [value]
    return _any_of(values, lambda one: _one_text(column, one))


def _code(column: str, value: str, options: Options) -> Q:
    return _any_of(_values(value), lambda one: _one_text(column, one))


def _one_text(column: str, value: str) -> Q:
    if not has_wildcards(value):
        return Q(**{column: value})
    start, literal = literal_start(value), longest_literal(value)
    cut = Q(**{f"{column}__prefix": start}) if start else Q()
    if value == f"{start}*":
        return cut
    if literal:
        cut &= Q(**{f"{column}__has": literal})
    if value != f"*{literal}*":
        cut &= Q(**{f"{column}__fits": rf"(?s)\A{pattern(value)}\Z"})
    return cut if start else walking_its_index(column, cut)


def _name(column: str, value: str, options: Options) -> Q:
    values = _values(value) if options.takes_many else [value]
    return _any_of(values, lambda one: name_matches(column, one, is_fuzzy=options.is_fuzzy))


def _referrer(column: str, value: str, options: Options) -> Q:
    values = _values(value) if options.takes_many else [value]
    return _any_of(values, lambda one: name_matches(column, one, is_fuzzy=options.is_fuzzy, fold=identifying))


def _uids(column: str, value: str, options: Options) -> Q:
    return Q(**{f"{column}__in": uids_of(value)})


def _number(column: str, value: str, options: Options) -> Q:
    numbers = _values(value) if options.takes_many else [value]
    if not all(_WHOLE_NUMBER.fullmatch(number) for number in numbers):
        raise InvalidKeyValue("A whole number was expected.")
    if any(len(number) > LONGEST_NUMBER for number in numbers):
        raise InvalidKeyValue("The number is too large.")
    return Q(**{f"{column}__in": [int(number) for number in numbers]})


def _held(column: str, value: str, options: Options) -> Q:
    """Match a column that holds several values: any of those asked for, or all (PS3.4 §C.2.2.2.8)."""
    values = _values(value.replace(",", "\\"))
    if not options.takes_many:
        return _any_of(values, lambda one: _one_held(column, one))
    condition = Q()
    for one in values:
        condition &= Q() if is_universal(one) else _one_held(column, one)
    return condition


def _one_held(column: str, value: str) -> Q:
    if not has_wildcards(value):
        return Q(**{f"{column}__holds": value})
    expression = pattern(value, any_character=r"[^\\]")
    return Q(**{f"{column}__fits": rf"(?s)(\A|\\){expression}(\\|\Z)"})


def _dates(column: str, value: str, options: Options) -> Q:
    return _within(column, date_range(value))


def _study_dates(column: str, value: str, options: Options) -> Q:
    span = date_range(value)
    # By the column that lists are sorted by, so that one walk of an index gives both range and order.
    condition = _within(column, span)
    return condition & Q(study_date__isnull=False) if span.low is None else condition


def _times(column: str, value: str, options: Options) -> Q:
    return _within(column, time_range(value))


def _within(column: str, span: Range[Any]) -> Q:
    if span.low == span.high:
        return Q(**{column: span.low})
    condition = Q()
    if span.low is not None:
        condition &= Q(**{f"{column}__gte": span.low})
    if span.high is not None:
        condition &= Q(**{f"{column}__lte": span.high})
    return condition


def _classes_in_study(column: str, value: str, options: Options) -> Q:
    uids = _uids("sop_class_uid", value, options)
    return Q(pk__in=Instance.objects.filter(uids, is_current=True).values("series__study"))


def _availability(column: str, value: str, options: Options) -> Q:
    tiers = [tier for tier, availability in AVAILABILITY.items() if availability in _values(value)]
    return Q() if len(tiers) == len(AVAILABILITY) else Q(**{f"{column}__in": tiers})


def _is_empty(column: str) -> Q:
    """Match what is absent or empty (PS3.4 §C.2.2.2.7)."""
    if column == "sort_date":
        return Q(study_date__isnull=True)
    if column in _NULLABLE:
        return Q(**{f"{column}__isnull": True})
    if column == _REFERRER:
        # Who isn't named has no row.
        return Q(referring_physician__isnull=True)
    if not column:
        return Q(pk__in=[])
    return Q(**{column: 0 if column.startswith("number_of_") else ""})


_REFERRER = "referring_physician__name_search"
Matcher = Callable[[str, str, Options], Q]
COLUMNS: dict[str, tuple[Matcher, str]] = {
    "PatientID": (_text, "patient_id_value"),
    "PatientName": (_name, "patient_name_search"),
    "IssuerOfPatientID": (_text, "patient__issuer_of_patient_id"),
    "PatientBirthDate": (_dates, "patient__patient_birth_date"),
    "PatientSex": (_code, "patient__patient_sex"),
    "StudyDate": (_study_dates, "sort_date"),
    "StudyTime": (_times, "study_time"),
    "AccessionNumber": (_text, "accession_number"),
    "StudyInstanceUID": (_uids, "study_instance_uid"),
    "StudyID": (_text, "study_id"),
    "StudyDescription": (_text, "study_description"),
    "ReferringPhysicianName": (_referrer, _REFERRER),
    "ModalitiesInStudy": (_held, "modalities_in_study"),
    "SOPClassesInStudy": (_classes_in_study, ""),
    "NumberOfStudyRelatedSeries": (_number, "number_of_series"),
    "NumberOfStudyRelatedInstances": (_number, "number_of_instances"),
    "InstanceAvailability": (_availability, "tier"),
    "Modality": (_code, "modality"),
    "SeriesInstanceUID": (_uids, "series_instance_uid"),
    "SeriesNumber": (_number, "series_number"),
    "SeriesDescription": (_text, "series_description"),
    "BodyPartExamined": (_code, "body_part_examined"),
    "NumberOfSeriesRelatedInstances": (_number, "number_of_instances"),
    "SOPInstanceUID": (_uids, "sop_instance_uid"),
    "SOPClassUID": (_uids, "sop_class_uid"),
    "InstanceNumber": (_number, "instance_number"),
    "Rows": (_number, "rows"),
    "Columns": (_number, "columns"),
    "BitsAllocated": (_number, "bits_allocated"),
    "NumberOfFrames": (_number, "number_of_frames"),
    "AvailableTransferSyntaxUID": (_uids, "transfer_syntax_uid"),
}
_NULLABLE = {
    *("patient__patient_birth_date", "study_time", "series_number", "instance_number"),
    *("rows", "columns", "bits_allocated"),
}
_UNMATCHABLE = {
    *("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances"),
}


def _use_moments(criteria: Criteria, keys: dict[str, str], options: Options) -> None:
    """Take out of ``keys`` the dates and times that are matched together or in another time zone, and match them."""
    zone_text = keys.pop("TimezoneOffsetFromUTC", "").strip()
    if zone_text:
        _mark_used(criteria, "TimezoneOffsetFromUTC", zone_text)
    for level, used, condition in conditions_on_moments(keys, zone_text, combines=options.combines_datetime):
        criteria.and_also(level, condition)
        for keyword in used:
            _mark_used(criteria, keyword, keys.pop(keyword))
