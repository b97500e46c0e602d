"""Differences between versions of a report, word by word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from studies.reports.outline import SectionText

_WORD = re.compile(r"\s+|\w+|[^\w\s]", re.UNICODE)


@dataclass(frozen=True)
class Change:
    """A run of words: ``same``, ``added`` or ``removed``."""

    kind: str
    text: str


@dataclass(frozen=True)
class SectionChange:
    """What became of a section's words."""

    title: str
    changes: tuple[Change, ...]

    @property
    def is_changed(self) -> bool:
        return any(change.kind != "same" for change in self.changes)


def word_changes(before: str, after: str) -> tuple[Change, ...]:
    """Give how one text became the other. Joined, ``same`` and ``removed`` give back the first, ``same`` and ``added``
    the second.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    changes: list[Change] = []
    for what, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            changes.append(Change("same", "".join(old[a:b])))
            continue
        if b > a:
            changes.append(Change("removed", "".join(old[a:b])))
        if d > c:
            changes.append(Change("added", "".join(new[c:d])))
    return tuple(changes)


def section_changes(
    before: Mapping[str, str], after: Mapping[str, str], titles: Sequence[SectionText]
) -> list[SectionChange]:
    """Give the changes of each section in the order of the titles, without sections that are empty on both sides."""
    named = {text.id: text.title for text in titles}
    ids = [*named, *(name for name in [*after, *before] if name not in named)]
    return [
        SectionChange(
            named.get(name, name.replace("_", " ").capitalize()),
            word_changes(before.get(name, ""), after.get(name, "")),
        )
        for name in dict.fromkeys(ids)
        if before.get(name) or after.get(name)
    ]
