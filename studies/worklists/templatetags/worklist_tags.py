"""How the lead's figures are written."""

from __future__ import annotations

from django import template

register = template.Library()
DAY = 24 * 60


@register.filter
def duration(minutes: int) -> str:
    """Give minutes as ``45 min``, ``3 h 05`` or, from two days on, ``2.5 d``."""
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 2 * DAY:
        return f"{minutes // 60} h {minutes % 60:02}"
    return f"{minutes / DAY:.1f} d"


@register.filter
def grouped(count: int) -> str:
    """Give a count as ``10,018``, as the worklist writes its own."""
    return f"{count:,}"
