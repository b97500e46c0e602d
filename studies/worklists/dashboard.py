"""The lead's dashboard."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from accounts.capabilities import Capability
from accounts.gates import capability_required
from studies.access import sites_where
from studies.models import Priority
from studies.worklists import figures, selectors
from studies.worklists.views import principal_of, private

PERIODS = (7, 30, 90)
# The more urgent, the warmer; the names are the style sheet's.
COLOURS = {
    Priority.STAT.label: "--at-critical",
    Priority.HIGH.label: "--at-preliminary",
    Priority.MEDIUM.label: "--at-accent",
    Priority.ROUTINE.label: "--at-ink-soft",
    Priority.LOW.label: "--at-line-strong",
}


@require_GET
@capability_required(Capability.CASE_ASSIGN)
def dashboard(request: HttpRequest) -> HttpResponse:
    """Show the department's figures over the last days, as charts and as tables."""
    principal = principal_of(request)
    text = request.GET.get("days", "")
    days = int(text) if text.isdigit() and len(text) < 4 and int(text) in PERIODS else PERIODS[0]
    led = list(sites_where(principal, Capability.CASE_ASSIGN))
    chosen = [site for site in led if site.slug == request.GET.get("site")] or led
    studies = figures.department(principal, chosen)
    now = timezone.now()
    dates, volume = figures.volume(studies, days)
    by_priority, by_modality = figures.turnaround(studies, days)
    backlog = figures.backlog(studies, now)
    ages = [label for _limit, label in figures.AGES]
    load = figures.load(selectors.readers_at([site.pk for site in chosen]), studies, days)
    charts: dict[str, Any] = {
        "volume": {"labels": [day.isoformat() for day in dates], "series": volume},
        "backlog": {"labels": ages, "series": backlog, "tokens": [COLOURS[label] for label in backlog]},
        "priority": _bars(by_priority),
        "modality": _bars(by_modality),
        "load": {
            "labels": [str(row.reader) for row in load],
            "series": {_("Assigned"): [r.assigned for r in load], _("Finished"): [r.finished for r in load]},
        },
    }
    context = {
        "days": days,
        "periods": PERIODS,
        "sites": led,
        "site": chosen[0] if len(chosen) == 1 else None,
        "charts": charts,
        "volume_rows": [(day, [volume[m][n] for m in volume]) for n, day in enumerate(dates)],
        "modalities": list(volume),
        "arrived": sum(map(sum, volume.values())),
        "finished": sum(row.count for row in by_priority),
        "waiting": sum(map(sum, backlog.values())),
        "overdue": selectors.late(studies, now).count(),
        "ages": ages,
        "backlog": backlog,
        "by_priority": by_priority,
        "by_modality": by_modality,
        "load": load,
    }
    return private(render(request, "worklists/dashboard.html", context))


def _bars(rows: list[figures.Turnaround]) -> dict[str, Any]:
    values = [asdict(row) for row in rows]
    series = {"p50": _("Half within"), "p90": _("90 % within"), "p95": _("95 % within")}
    return {
        "labels": [value["label"] for value in values],
        "series": {label: [value[name] for value in values] for name, label in series.items()},
    }
