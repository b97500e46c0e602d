"""Names that sound alike, as regular expressions: for names that no index of sounds holds.

Soundex is a regular language: which words share a code can be asked of the spelling, in either database.
"""

from __future__ import annotations

import re
from functools import lru_cache

import jellyfish

from studies.matching.letters import MARKS, folded, letters, ligatures
from studies.matching.wildcards import is_universal

# Letters that share a digit; those that part two letters of one digit; those that don't.
_DIGITS = ("BFPV", "CGJKQSXZ", "DT", "L", "MN", "R")
_VOWELS, _SILENT = "AEIOUY", "HW"
_BETWEEN = r"\s,.'’-"
_WORDS = re.compile(rf"[{_BETWEEN}]+")


def sounding_alike(name: str) -> list[str]:
    """Give the expressions that a group of a name fits when every word of the searchable name sounds like one of it.

    A key with ``^`` is heard by family name and other names, one without by words in any place; an initial stands for
    a name. Empty where nothing can be heard.
    """
    group = next((group for group in name.split("=") if group and not is_universal(group)), "")
    has_components = "^" in group
    expressions = []
    for component, text in enumerate(group.split("^")):
        for word in _WORDS.split(text.replace("*", " ").replace("?", " ")):
            if not word:
                continue
            if "*" in text and len(word) < 3:
                return []
            place = "any" if not has_components else "family" if component == 0 else "other"
            expressions.append(_somewhere(_word(word), place))
    return expressions


def _somewhere(word: str, place: str) -> str:
    before = {
        "any": rf"(\A|[{_BETWEEN[:-1]}\^-])",
        "family": rf"\A([^\^]*[{_BETWEEN}])?",
        "other": rf"\^(.*[{_BETWEEN[:-1]}\^-])?",
    }[place]
    return rf"{before}{word}([{_BETWEEN[:-1]}\^-]|\Z)"


def _word(word: str) -> str:
    if len(word) == 1 and word.isascii():
        return rf"{folded(word)}[^{_BETWEEN[:-1]}\^-]*"
    return soundex_pattern(word) if word.isascii() and word.isalpha() else folded(word)


@lru_cache(1024)
def soundex_pattern(word: str) -> str:
    """Give the expression of all words with the Soundex code of a word in ASCII capitals, without anchors."""
    code = jellyfish.soundex(word)
    first, digits = code[0], code[1:]
    before = next((letters for letters in _DIGITS if first in letters), "")
    expression = _one(first)
    for digit in digits:
        gap = f"{_one(_VOWELS)}{_any(_VOWELS + _SILENT)}"
        expression += _any(before + _SILENT)
        if digit == "0":
            return f"{expression}({gap})?"
        current = _DIGITS[int(digit) - 1]
        expression += (gap if current == before else f"({gap})?") + _one(current)
        before = current
    return expression + _any("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _one(capitals: str) -> str:
    return f"[{_members(capitals)}][{MARKS}]*"


def _any(capitals: str) -> str:
    return f"[{_members(capitals)}{MARKS}]*"


@lru_cache(64)
def _members(capitals: str) -> str:
    # Of a letter that's written as two the second is of the first's digit, or of none.
    return "".join(
        letters()[capital] + "".join(members for pair, members in ligatures().items() if pair[0] == capital)
        for capital in capitals
    )
