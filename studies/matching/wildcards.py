"""Wildcards (PS3.4 §C.2.2.2.4) and other forms of key values, as texts."""

from __future__ import annotations

import re
from collections.abc import Callable

# Stars and question marks in a row.
_WILDCARDS = re.compile(r"[*?]+")


def has_wildcards(value: str) -> bool:
    """Say whether the value has ``*`` or ``?``."""
    return "*" in value or "?" in value


def is_universal(value: str) -> bool:
    """Say whether the value matches everything: nothing, or stars alone (PS3.4 §C.2.2.2.3)."""
    return not value.strip("*")


def literal_start(value: str) -> str:
    """Give what stands before the first wildcard."""
    return re.split(r"[*?]", value, maxsplit=1)[0]


def longest_literal(value: str) -> str:
    """Give the longest piece between wildcards: what matches has it, and looking for it is cheap."""
    return max(re.split(r"[*?]+", value), key=len)


def pattern(value: str, any_character: str = ".", *, literal: Callable[[str], str] | None = None) -> str:
    """Give the regular expression of a value with wildcards, without anchors; ``literal`` gives that of a character.

    PostgreSQL takes it as it is, Python's ``re`` (and so SQLite) as ``lookups.without_retrying`` gives it. What stands
    between two stars is a group: its first occurrence serves as well as any later one.
    """
    one = literal or _escaped
    value = _WILDCARDS.sub(lambda run: "?" * run[0].count("?") + "*" * ("*" in run[0]), value)
    first, *between = ("".join(any_character if c == "?" else one(c) for c in piece) for piece in value.split("*"))
    if not between:
        return first
    last = between.pop()
    return first + "".join(f"(?:{any_character}*?{piece})" for piece in between) + f"{any_character}*{last}"


def _escaped(character: str) -> str:
    # A backslash before a letter or digit would mean a class; before other ASCII it takes the character as it is.
    return f"\\{character}" if character.isascii() and not character.isalnum() else character
