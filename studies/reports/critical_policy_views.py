"""The screen on which a site decides its deadlines and escalation of critical results."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from accounts.capabilities import Capability
from accounts.models import Site
from studies.access import sites_where
from studies.reports import critical_policies as policies
from studies.reports.errors import ReportError
from studies.reports.requests import may_manage_accounts, principal_of

UNITS = {"1": gettext_lazy("minutes"), "60": gettext_lazy("hours"), "1440": gettext_lazy("days")}
STEPS = [
    gettext_lazy("As soon as it is late"),
    gettext_lazy("Then"),
    gettext_lazy("At last, and again after each span"),
]


@require_http_methods(["GET", "POST"])
@may_manage_accounts
def critical_settings(request: HttpRequest) -> HttpResponse:
    """Show and change a site's deadlines and escalation."""
    principal = principal_of(request)
    sites = sites_where(principal, Capability.ACCOUNT_MANAGE).filter(is_teaching=False)
    chosen = request.POST.get("site") or request.GET.get("site", "")
    site = sites.filter(pk=int(chosen)).first() if chosen.isdigit() and len(chosen) < 18 else sites.first()
    if site is None:
        raise Http404
    error = ""
    shown = policies.policies_of(site.pk)
    if request.method == "POST":
        try:
            shown = {category: _entered(request, category) for category in policies.DEFAULTS}
            changed = [
                policies.set_policy(site=site, category=category, policy=policy, principal=principal)
                for category, policy in shown.items()
            ]
        except ReportError as failure:
            error = failure.text
        else:
            if any(changed):
                messages.success(request, _("Saved. Results that are flagged already keep their deadline."))
            return redirect(f"{reverse('critical_settings')}?site={site.pk}")
    context = {"sites": sites, "site": site, "rows": [_row(site, *one) for one in shown.items()], "error": error}
    return render(request, "reports/critical_settings.html", context, status=422 if error else 200)


def _entered(request: HttpRequest, category: policies.Category) -> policies.Policy:
    sent = request.POST
    steps = range(policies.MOST_LEVELS)
    return policies.Policy(
        deadline=_span(sent.get(f"{category}.deadline", ""), sent.get(f"{category}.deadline_unit", "")),
        step=_span(sent.get(f"{category}.step", ""), sent.get(f"{category}.step_unit", "")),
        levels=policies.levels_of(
            [sent.getlist(f"{category}.{n}.group") for n in steps],
            [{int(pk) for pk in sent.getlist(f"{category}.{n}.person") if pk.isdigit()} for n in steps],
        ),
    )


def _span(number: str, unit: str) -> timedelta:
    """Read a span. What is none gives one that no policy may have."""
    if not number.isdigit() or len(number) > 5 or unit not in UNITS:
        return timedelta(0)
    return timedelta(minutes=int(number) * int(unit))


def _row(site: Site, category: policies.Category, policy: policies.Policy) -> dict[str, Any]:
    people = list(policies.people_of(site))
    steps = []
    for number, label in enumerate(STEPS):
        level = policy.levels[number] if number < len(policy.levels) else policies.Level()
        steps.append(
            {
                "label": label,
                "groups": [(value, name, value in level.groups) for value, name in policies.GROUPS.items()],
                "people": [(person, person.pk in level.people) for person in people],
                "named": sum(person.pk in level.people for person in people),
            }
        )
    return {
        "category": category,
        "default": policy == policies.DEFAULTS[category],
        "spans": [
            ("deadline", _("Must be acknowledged within"), *_number_and_unit(policy.deadline)),
            ("step", _("Once late, the next are told after each"), *_number_and_unit(policy.step)),
        ],
        "steps": steps,
        "units": list(UNITS.items()),
    }


def _number_and_unit(span: timedelta) -> tuple[int, str]:
    minutes = int(span.total_seconds() // 60)
    unit = next((unit for unit in ("1440", "60") if minutes and minutes % int(unit) == 0), "1")
    return minutes // int(unit), unit
