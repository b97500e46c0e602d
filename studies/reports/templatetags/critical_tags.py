"""Critical results on other rooms' pages."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils import timezone

from studies.reports.critical import open_critical_results

register = template.Library()


@register.simple_tag(takes_context=True)
def open_criticals(context: dict[str, Any]) -> dict[str, int]:
    """Give how many of the person's critical results wait for acknowledgement, and how many of them are late."""
    results = open_critical_results(context["request"].principal)
    return {"waiting": results.count(), "late": results.filter(due_at__lt=timezone.now()).count()}
