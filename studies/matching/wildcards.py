"""Wildcards (PS3.4 §C.2.2.2.4) and other forms of key values, as texts."""

from __future__ import annotations

import re


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


def pattern(value: str, any_character: str = ".") -> str:
    """Give the regular expression of a value with wildcards, without anchors; it means the same to both databases."""
    value = re.sub(r"\*+", "*", value)
    return "".join({"*": f"{any_character}*", "?": any_character}.get(c, _escaped(c)) for c in value)


def _escaped(character: str) -> str:
    # A backslash before a letter or digit would mean a class; before other ASCII it takes the character as it is.
    return f"\\{character}" if character.isascii() and not character.isalnum() else character
