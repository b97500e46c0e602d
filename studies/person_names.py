"""Person names (PS3.5 §6.2.1.2) made comparable."""

from __future__ import annotations

import unicodedata


def searchable(name: str) -> str:
    """Give the name in upper case, without marks and padding, component and group delimiters kept.

    ``"Müller^Jürgen^^Dr"`` becomes ``"MULLER^JURGEN^^DR"``; trailing empty components are dropped.
    """
    decomposed = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c)).upper()
    groups = ["^".join(part.strip() for part in group.split("^")).rstrip("^ ") for group in plain.split("=")]
    return "=".join(groups).rstrip("=")[:324]


def displayed(name: str) -> str:
    """Give the first group that isn't empty as people write it: ``"DOE, Jane Ann, Dr"``."""
    for group in name.split("="):
        family, given, middle, prefix, suffix = (*(p.strip() for p in group.split("^")), "", "", "", "", "")[:5]
        forenames = " ".join(p for p in (given, middle) if p)
        shown = ", ".join(p for p in (family, forenames, prefix, suffix) if p)
        if shown:
            return shown
    return ""
