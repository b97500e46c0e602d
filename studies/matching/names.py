"""Matching of person names (PS3.4 §C.2.2.2.1.1 and .4): without regard to case and marks, in all three groups."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

import jellyfish
from django.db import transaction
from django.db.models import Q, QuerySet

from portal.insertion import Insertion
from studies.matching.wildcards import has_wildcards, is_universal, literal_start, longest_literal, pattern
from studies.models import PN_LENGTH, NameForm, Study
from studies.person_names import searchable

# More names than this are left to the database as a subquery; fewer are named, so that an index finds each.
MOST_NAMED = 500
_KNOWN_MOST = 50_000
# Columns of studies that stand first in an index.
_INDEXED = {"patient_name_search", "patient_id_value", "accession_number", "study_id"}
_known: OrderedDict[str, None] = OrderedDict()
_known_lock = Lock()
_insert_forms = Insertion(NameForm, leaves_known=True)
_BETWEEN_WORDS = re.compile(r"[\s,.'’-]+")


def remember_names(names: Iterable[str]) -> None:
    """Make searchable names findable by their other groups and by their sound.

    To be called, in the same transaction, by whoever writes a ``name_search`` column. Names already known cost nothing.
    """
    with _known_lock:
        new = sorted({name for name in names if name and name not in _known})
    if not new:
        return
    _insert_forms.many(
        [
            {"kind": kind, "form": form, "component": component, "name_search": name}
            for name in new
            for kind, form, component in sorted(_forms(name))
        ]
    )
    transaction.on_commit(lambda: _remember(new))


def _remember(names: list[str]) -> None:
    with _known_lock:
        _known.update(dict.fromkeys(names))
        while len(_known) > _KNOWN_MOST:
            _known.popitem(last=False)


def _forms(name: str) -> set[tuple[str, str, int]]:
    groups = name.split("=")
    forms = {(NameForm.Kind.GROUP.value, text[:PN_LENGTH], n) for n, text in enumerate(groups[1:3], start=1) if text}
    for group in groups[:3]:
        for component, text in enumerate(group.split("^")[:3]):
            for word in _words(text):
                forms |= {(NameForm.Kind.SOUND.value, code, component) for code in sounds(word)}
    return forms


def _words(text: str) -> list[str]:
    return [word for word in _BETWEEN_WORDS.split(text) if word]


def sounds(word: str) -> frozenset[str]:
    """Give the phonetic codes of a word in capitals: Metaphone and Soundex; words in other scripts sound as written."""
    if not (word.isascii() and word.isalpha()):
        return frozenset({word[:64]})
    return frozenset(code[:64] for code in (f"M:{jellyfish.metaphone(word)}", f"S:{jellyfish.soundex(word)}"))


def name_matches(column: str, value: str, *, is_fuzzy: bool = False, fold: Callable[[str], str] = searchable) -> Q:
    """Give the condition that a searchable-name column matches a key value.

    A key without ``=`` may match any of the three groups; with it, each group given must match its own. Components
    left out at the end match anything: ``"Doe"`` finds every Doe. With ``is_fuzzy``, names that sound alike match too:
    a key with ``^`` by family name and other names, one without by words in any place.
    """
    wanted = fold(value)
    if is_universal(wanted.replace("=", "").replace("^", "")) or not wanted:
        return Q()
    groups = wanted.split("=")
    if len(groups) == 1:
        matching = _first_group(column, wanted) | _among(column, _names_by_group(wanted))
    else:
        matching = Q()
        for number, group in enumerate(groups[:3]):
            if group and not is_universal(group):
                matching &= _among(column, _names_by_group(group, number)) if number else _first_group(column, group)
    alike = names_sounding_like(column, wanted) if is_fuzzy else Q()
    return matching | alike if alike else matching


def names_sounding_like(column: str, wanted: str) -> Q:
    """Give the condition that a searchable-name column sounds like a searchable name; Q() where none can be heard."""
    alike = Q()
    for group in wanted.split("=")[:3]:
        alike &= _sounding(column, group) if group and not is_universal(group) else Q()
    return alike


def walking_its_index(column: str, condition: Q) -> Q:
    """Give a condition that no range of an index serves as one walk of its column's index, not of the whole rows."""
    if column not in _INDEXED:
        return condition
    return Q(pk__in=Study.objects.filter(condition).order_by().values("pk"))


def _first_group(column: str, wanted: str) -> Q:
    start = literal_start(wanted)
    cut = Q(**{f"{column}__prefix": start}) if start else Q()
    if not has_wildcards(wanted):
        ends = (
            Q(**{column: wanted}) | Q(**{f"{column}__prefix": f"{wanted}^"}) | Q(**{f"{column}__prefix": f"{wanted}="})
        )
        return cut & ends
    if wanted == f"{start}*":
        return cut
    literal = longest_literal(wanted)
    if literal:
        cut &= Q(**{f"{column}__has": literal})
    cut &= Q(**{f"{column}__fits": rf"(?s)\A{pattern(wanted, '[^=]')}(\^[^=]*)?(=.*)?\Z"})
    return cut if start else walking_its_index(column, cut)


def _names_by_group(wanted: str, number: int | None = None) -> QuerySet[NameForm]:
    forms = NameForm.objects.filter(kind=NameForm.Kind.GROUP)
    if number is not None:
        forms = forms.filter(component=number)
    start = literal_start(wanted)
    if start:
        forms = forms.filter(form__prefix=start)
    if not has_wildcards(wanted):
        forms = forms.filter(Q(form=wanted) | Q(form__prefix=f"{wanted}^"))
    elif wanted != f"{start}*":
        forms = forms.filter(form__fits=rf"(?s)\A{pattern(wanted, '.')}(\^.*)?\Z")
    return forms


def _among(column: str, forms: QuerySet[NameForm]) -> Q:
    names: QuerySet[NameForm, Any] = forms.order_by().values_list("name_search", flat=True).distinct()
    few = list(names[: MOST_NAMED + 1])
    return Q(**{f"{column}__in": few if len(few) <= MOST_NAMED else names})


def _sounding(column: str, group: str) -> Q:
    """Give the condition that every word of the key sounds like one of the name; Q() where none can be heard."""
    has_components = "^" in group
    matching: QuerySet[NameForm] | None = None
    initials = Q()
    for component, text in enumerate(group.split("^")):
        for word in _words(text.replace("*", " ").replace("?", " ")):
            if len(word) == 1 and word.isascii():
                initials &= Q(**{f"{column}__regex": rf"(\A|[\^ =,.'’-]){re.escape(word)}"})
                continue
            if "*" in text and len(word) < 3:
                return Q()
            forms = NameForm.objects.filter(kind=NameForm.Kind.SOUND, form__in=sorted(sounds(word)))
            if has_components:
                forms = forms.filter(component=0) if component == 0 else forms.filter(component__gt=0)
            if matching is not None:
                forms = forms.filter(name_search__in=matching.values("name_search"))
            matching = forms
    return _among(column, matching) & initials if matching is not None else Q()
