"""Letters in any case and with any mark, as regular expressions that both databases understand."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from studies.matching.wildcards import pattern
from studies.person_names import searchable

MARKS = "\u0300-\u036f"


def folded(value: str) -> str:
    """Give the regular expression by which each letter of a searchable name matches itself in any case and mark."""
    return pattern(value, literal=_folded_letter)


def _folded_letter(character: str) -> str:
    return f"[{letters()[character]}][{MARKS}]*" if character in letters() else pattern(character)


@lru_cache(maxsize=1)
def letters() -> dict[str, str]:
    """Give, for each Latin, Greek and Cyrillic capital without marks, all letters that are made of it."""
    found: dict[str, set[str]] = {}
    for code in (*range(0x41, 0x600), *range(0x1E00, 0x2000)):
        character = chr(code)
        base = searchable(character)
        if character.isalpha() and len(base) == 1:
            found.setdefault(base, set()).update({character, base})
    return {base: "".join(sorted(members)) for base, members in found.items() if unicodedata.category(base) == "Lu"}
