"""Critical results on other rooms' pages."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils import timezone

from accounts.models import Site
from studies.reports.critical import may_acknowledge, open_critical_results
from studies.reports.models import CriticalResult

register = template.Library()


@register.simple_tag(takes_context=True)
def open_criticals(context: dict[str, Any], site: Site | None = None) -> dict[str, int]:
    """Give how many of the person's critical results, of a site's or of all, wait for acknowledgement, and are late."""
    results = open_critical_results(context["request"].principal)
    if site is not None:
        results = results.filter(study__site=site)
    return {"waiting": results.count(), "late": results.filter(due_at__lt=timezone.now()).count()}


@register.filter
def is_late(result: CriticalResult) -> bool:
    """Say whether the result is open past its deadline."""
    return result.is_open and result.due_at < timezone.now()


@register.simple_tag(takes_context=True)
def waits_for_me(context: dict[str, Any], result: CriticalResult) -> bool:
    """Say whether the result is open and the person is one of those who must acknowledge it."""
    return result.is_open and may_acknowledge(context["request"].principal, result)
