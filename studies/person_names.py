"""Person names (PS3.5 §6.2.1.2) made comparable."""

from __future__ import annotations

import unicodedata

# Latin capitals that Unicode doesn't take apart into a letter and a mark, as those write them who haven't the letter.
_BARE = dict(zip("ĐÐƉƊØƆŁĦŦŊƁƘƗɄƏƐƳ", "DDDDOOLHTNBKIUEEY", strict=True))
_BARE |= {"Æ": "AE", "Œ": "OE", "Þ": "TH", "ẞ": "SS"}
_TO_BARE = str.maketrans(_BARE)


def searchable(name: str) -> str:
    """Give the name in upper case, without marks and padding, component and group delimiters kept.

    ``"Đặng^Jürgen^^Dr"`` becomes ``"DANG^JURGEN^^DR"``; trailing empty components are dropped. It's kept in columns:
    whoever changes what this gives lets a migration fold those anew (``studies.folded_columns``).
    """
    return _folded(name).translate(_TO_BARE)[:324]


def identifying(name: str) -> str:
    """Give what tells referring physicians apart: as searchable, but a letter of its own stays one.

    Who is linked to a physician sees their patients: Møller isn't to be taken for Moller.
    """
    return _folded(name)[:324]


def _folded(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c)).upper()
    groups = ["^".join(part.strip() for part in group.split("^")).rstrip("^ ") for group in plain.split("=")]
    return "=".join(groups).rstrip("=")


def displayed(name: str) -> str:
    """Give the first group that isn't empty as people write it: ``"DOE, Jane Ann, Dr"``."""
    for group in name.split("="):
        family, given, middle, prefix, suffix = (*(p.strip() for p in group.split("^")), "", "", "", "", "")[:5]
        forenames = " ".join(p for p in (given, middle) if p)
        shown = ", ".join(p for p in (family, forenames, prefix, suffix) if p)
        if shown:
            return shown
    return ""
