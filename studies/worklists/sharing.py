"""Reading groups, assignment rules, shifts and turnaround targets, on one screen of the lead's."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from studies.access import sites_where
from studies.errors import NotAllowed
from studies.worklists import assignment
from studies.worklists.forms import AssignmentRuleForm, ReadingGroupForm, ShiftForm, TurnaroundTargetForm
from studies.worklists.models import AssignmentRule, ReadingGroup, Shift, TurnaroundTarget
from studies.worklists.views import principal_of, private

may_share_out = capability_required(Capability.CASE_ASSIGN)
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "group": (ReadingGroup, ReadingGroupForm, gettext_lazy("Reading group")),
    "rule": (AssignmentRule, AssignmentRuleForm, gettext_lazy("Assignment rule")),
    "shift": (Shift, ShiftForm, gettext_lazy("Shift")),
    "target": (TurnaroundTarget, TurnaroundTargetForm, gettext_lazy("Turnaround target")),
}


def _managed(principal: Principal, kind: str) -> Any:
    if kind not in KINDS:
        raise Http404
    sites = sites_where(principal, Capability.CASE_ASSIGN)
    column = "group__site__in" if kind == "rule" else "site__in"
    return KINDS[kind][0].objects.filter(**{column: sites})


@require_GET
@may_share_out
def sharing(request: HttpRequest) -> HttpResponse:
    """Show how cases are shared out at the sites that the person leads."""
    principal = principal_of(request)
    context = {
        "groups": _managed(principal, "group").select_related("site").prefetch_related("members"),
        "rules": _managed(principal, "rule").select_related("group__site"),
        "shifts": _managed(principal, "shift").filter(ends_at__gt=timezone.now()).select_related("site", "user"),
        "targets": _managed(principal, "target").select_related("site"),
        "now": timezone.now(),
    }
    return private(render(request, "worklists/sharing.html", context))


@require_http_methods(["GET", "POST"])
@may_share_out
def new(request: HttpRequest, kind: str) -> HttpResponse:
    """Add a group, rule, shift or target."""
    principal = principal_of(request)
    _managed(principal, kind)
    return _edit(request, principal, kind, None)


@require_http_methods(["GET", "POST"])
@may_share_out
def change(request: HttpRequest, kind: str, pk: int) -> HttpResponse:
    """Change one."""
    principal = principal_of(request)
    return _edit(request, principal, kind, get_object_or_404(_managed(principal, kind), pk=pk))


def _edit(request: HttpRequest, principal: Principal, kind: str, thing: Any) -> HttpResponse:
    _model, form_class, label = KINDS[kind]
    form: Any = form_class(request.POST or None, instance=thing, principal=principal)
    if request.method == "POST" and form.is_valid():
        try:
            assignment.keep(
                thing=form.save(commit=False), principal=principal, members=form.cleaned_data.get("members")
            )
        except NotAllowed:
            return HttpResponse(status=403)
        messages.success(request, _("%(what)s is saved.") % {"what": label})
        return redirect("case_sharing")
    context = {"form": form, "kind": kind, "label": label, "thing": thing}
    return private(render(request, "worklists/sharing_form.html", context, status=422 if form.errors else 200))


@require_POST
@may_share_out
def delete(request: HttpRequest, kind: str, pk: int) -> HttpResponse:
    """Remove one."""
    principal = principal_of(request)
    assignment.forget(thing=get_object_or_404(_managed(principal, kind), pk=pk), principal=principal)
    return redirect("case_sharing")
