"""Letters in any case and with any mark, as regular expressions that both databases understand."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from studies.matching.wildcards import pattern
from studies.person_names import searchable

MARKS = "\u0300-\u036f"
# What one letter may be written as, by those who haven't it.
_PAIRS = ("AE", "OE", "SS", "TH")
# Stand for the pairs while an expression is made; no text has them.
_SIGNS = {chr(0xFDD0 + number): pair for number, pair in enumerate(_PAIRS)}


def folded(value: str) -> str:
    """Give the regular expression by which each letter of a searchable name matches itself in any case and mark."""
    for sign, pair in _SIGNS.items():
        value = value.replace(pair, sign)
    return pattern(value, literal=_folded_letter)


def _folded_letter(character: str) -> str:
    if character in _SIGNS:
        pair = _SIGNS[character]
        return f"(?:{''.join(map(_folded_letter, pair))}|[{ligatures()[pair]}][{MARKS}]*)"
    return f"[{letters()[character]}][{MARKS}]*" if character in letters() else pattern(character)


@lru_cache(maxsize=1)
def letters() -> dict[str, str]:
    """Give, for each Latin, Greek and Cyrillic capital without marks, all letters that are made of it."""
    found = {base: members | {base} for base, members in _made_of().items() if len(base) == 1}
    return {base: "".join(sorted(members)) for base, members in found.items() if unicodedata.category(base) == "Lu"}


@lru_cache(maxsize=1)
def ligatures() -> dict[str, str]:
    """Give, for each pair of capitals that one letter may be written as, the letters that are."""
    return {pair: "".join(sorted(_made_of()[pair])) for pair in _PAIRS}


def _made_of() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for character in map(chr, (*range(0x41, 0x600), *range(0x1E00, 0x2000))):
        if character.isalpha():
            found.setdefault(searchable(character), set()).add(character)
    return found
