"""Searchable names kept in columns, folded anew by migrations when ``person_names.searchable`` changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from django.db import transaction
from django.db.migrations import RunPython

from studies.matching.names import remember_names
from studies.person_names import identifying, searchable

BATCH = 2000


@lru_cache(maxsize=1)
def letters_of_their_own() -> str:
    """Give the letters that searchable takes for others and identifying doesn't, in either case and with marks."""
    characters = map(chr, (*range(0x80, 0x600), *range(0x1D00, 0x2000), *range(0x2C60, 0x2C80), *range(0xA720, 0xA800)))
    return "".join(c for c in characters if searchable(c) != identifying(c))


def folding(app: str, model: str, *, source: str) -> RunPython:
    """Give the migration's operation: fold the names of a model anew, and back as the version before asks for them."""

    def by(fold: Callable[[str], str]) -> Callable[[Any, Any], None]:
        return lambda apps, editor: fold_anew(
            apps.get_model(app, model), source=source, fold=fold, alias=editor.connection.alias
        )

    return RunPython(by(searchable), by(identifying))


def fold_anew(model: Any, *, source: str, fold: Callable[[str], str], alias: str) -> None:
    """Set ``patient_name_search`` of the rows whose name, at the path ``source``, has such letters.

    Some rows at a time in the order of their keys, each batch a short transaction: nobody waits for all of them, and
    what was done stays done when it's stopped and begun again. A name that changes meanwhile is left to who changes it.
    """
    rows = model.objects.using(alias).filter(**{f"{source}__regex": f"[{letters_of_their_own()}]"}).order_by("pk")
    last = 0
    while batch := list(rows.filter(pk__gt=last).values_list("pk", source, "patient_name_search")[:BATCH]):
        of_name: dict[str, list[int]] = defaultdict(list)
        for pk, name, kept in batch:
            if kept != fold(name):
                of_name[name].append(pk)
        with transaction.atomic(using=alias):
            for name, keys in sorted(of_name.items()):
                model.objects.using(alias).filter(pk__in=keys, **{source: name}).update(patient_name_search=fold(name))
            remember_names(map(fold, of_name))
        last = batch[-1][0]
