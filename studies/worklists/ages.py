"""How old a patient was on a day."""

from __future__ import annotations

from datetime import date


def age(born: date | None, on: date | None) -> str:
    """Give the age on a day as DICOM's AS (PS3.5 §6.2): ``"034Y"``, ``"005M"`` below two years."""
    if born is None or on is None or on < born:
        return ""
    years = on.year - born.year - ((on.month, on.day) < (born.month, born.day))
    if years >= 2:
        return f"{years:03d}Y"
    months = (on.year - born.year) * 12 + on.month - born.month - (on.day < born.day)
    return f"{months:03d}M"
