"""Screens of the routing and prefetch rules."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from accounts.principals import Principal
from studies.access import studies_visible_to
from studies.dimse.models import PrefetchRule, RoutingRule
from studies.dimse.routing import DRY_RUN_STUDIES, dry_run
from studies.dimse.rule_forms import PrefetchRuleForm, RoutingRuleForm
from studies.dimse.rules import delete_rule, save_rule
from studies.dimse.selectors import sites_with_nodes_of

may_manage = capability_required(Capability.NODE_MANAGE)


def _routing_rules(principal: Principal) -> QuerySet[RoutingRule]:
    rules = RoutingRule.objects.filter(site__in=sites_with_nodes_of(principal))
    return rules.select_related("site", "assign_to").prefetch_related("nodes")


def _prefetch_rules(principal: Principal) -> QuerySet[PrefetchRule]:
    rules = PrefetchRule.objects.filter(site__in=sites_with_nodes_of(principal))
    return rules.select_related("site").prefetch_related("nodes")


@require_GET
@may_manage
def rules(request: HttpRequest) -> HttpResponse:
    """List the rules of both kinds."""
    principal = principal_of(request)
    context = {"routing": _routing_rules(principal), "prefetch": _prefetch_rules(principal)}
    return render(request, "dimse/rules.html", context)


@require_http_methods(["GET", "POST"])
@may_manage
def new_routing_rule(request: HttpRequest) -> HttpResponse:
    """Add a routing rule."""
    return _edit_routing(request, RoutingRule())


@require_http_methods(["GET", "POST"])
@may_manage
def routing_rule(request: HttpRequest, pk: int) -> HttpResponse:
    """Show and change a routing rule."""
    return _edit_routing(request, get_object_or_404(_routing_rules(principal_of(request)), pk=pk))


def _edit_routing(request: HttpRequest, rule: RoutingRule) -> HttpResponse:
    principal = principal_of(request)
    form = RoutingRuleForm(request.POST or None, principal=principal, instance=rule)
    context: dict[str, Any] = {"form": form, "rule": rule if rule.pk else None}
    status = 200
    if request.method == "POST":
        if form.is_valid():
            form.take_rows()
            changed = form.save(commit=False)
            save_rule(rule=changed, nodes=form.cleaned_data["nodes"], principal=principal)
            messages.success(request, _("%(name)s is saved.") % {"name": changed.name})
            return redirect("routing_rule", pk=changed.pk)
        status = 422
    return render(request, "dimse/routing_rule.html", context, status=status)


@require_POST
@may_manage
def try_routing_rule(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what the rule would have done with the last studies of its site that the person may see."""
    principal = principal_of(request)
    rule = get_object_or_404(_routing_rules(principal), pk=pk)
    latest = studies_visible_to(principal).filter(site=rule.site).order_by("-received_at", "-pk")[:DRY_RUN_STUDIES]
    context = {"rule": rule, "would": dry_run(rule, latest), "asked": len(latest)}
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "dimse/_dry_run.html", context)
    form = RoutingRuleForm(principal=principal, instance=rule)
    return render(request, "dimse/routing_rule.html", {**context, "form": form})


@require_POST
@may_manage
def delete_routing_rule(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove a routing rule."""
    principal = principal_of(request)
    rule = get_object_or_404(_routing_rules(principal), pk=pk)
    delete_rule(rule=rule, principal=principal)
    messages.success(request, _("%(name)s is removed.") % {"name": rule.name})
    return redirect("rules")


@require_http_methods(["GET", "POST"])
@may_manage
def new_prefetch_rule(request: HttpRequest) -> HttpResponse:
    """Add a prefetch rule."""
    return _edit_prefetch(request, PrefetchRule())


@require_http_methods(["GET", "POST"])
@may_manage
def prefetch_rule(request: HttpRequest, pk: int) -> HttpResponse:
    """Show and change a prefetch rule."""
    return _edit_prefetch(request, get_object_or_404(_prefetch_rules(principal_of(request)), pk=pk))


def _edit_prefetch(request: HttpRequest, rule: PrefetchRule) -> HttpResponse:
    principal = principal_of(request)
    form = PrefetchRuleForm(request.POST or None, principal=principal, instance=rule)
    if request.method == "POST" and form.is_valid():
        changed = form.save(commit=False)
        save_rule(rule=changed, nodes=form.cleaned_data["nodes"], principal=principal)
        messages.success(request, _("%(name)s is saved.") % {"name": changed.name})
        return redirect("rules")
    context = {"form": form, "rule": rule if rule.pk else None}
    return render(request, "dimse/prefetch_rule.html", context, status=422 if form.errors else 200)


@require_POST
@may_manage
def delete_prefetch_rule(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove a prefetch rule."""
    principal = principal_of(request)
    rule = get_object_or_404(_prefetch_rules(principal), pk=pk)
    delete_rule(rule=rule, principal=principal)
    messages.success(request, _("%(name)s is removed.") % {"name": rule.name})
    return redirect("rules")
