"""The orders' screens."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record, record_viewing
from studies.orders import selectors, services
from studies.orders.errors import OrderRefused
from studies.orders.forms import OrderFilterForm, OrderForm
from studies.orders.models import Order

may_see_orders = capability_required(Capability.STUDY_VIEW, Capability.ORDER_MANAGE)
may_manage_orders = capability_required(Capability.ORDER_MANAGE)


def principal_of(request: HttpRequest) -> Principal:
    """Give who asks."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


@require_GET
@may_see_orders
def orders(request: HttpRequest) -> HttpResponse:
    """List the orders; to htmx only the table."""
    principal = principal_of(request)
    form = OrderFilterForm(request.GET, principal=principal)
    criteria = dict(form.cleaned_data) if form.is_valid() else {}
    criteria["site__slug"] = criteria.pop("site", "")
    used = {name: str(value) for name, value in criteria.items() if value}
    found = selectors.orders_matching(principal, criteria)
    if criteria.get("since"):
        # A schedule is read from its beginning; of all orders the newest come first.
        found = found.order_by("scheduled_at", "pk")
    page = Paginator(found, selectors.PAGE).get_page(request.GET.get("page"))
    if used:
        details = {"way": "orders", "keys": used, "results": len(page.object_list)}
        record(AuditEvent.Action.SEARCH, principal=principal, details=details)
    query = {name: request.GET[name] for name in form.fields if request.GET.get(name)}
    context = {
        "form": form,
        "page": page,
        "is_filtered": bool(used),
        "quick_lists": _quick_lists(used),
        "may_manage": principal.may(Capability.ORDER_MANAGE),
        "next_url": f"?{urlencode({**query, 'page': page.next_page_number()})}" if page.has_next() else "",
        "previous_url": f"?{urlencode({**query, 'page': page.previous_page_number()})}" if page.has_previous() else "",
    }
    template = "orders/_table.html" if request.htmx else "orders/orders.html"  # type: ignore[attr-defined]
    return private(render(request, template, context))


def _quick_lists(used: dict[str, str]) -> list[dict[str, Any]]:
    """Give the days that a desk asks for most, and say which of them is shown."""
    today = timezone.now().date()
    tomorrow = today + timedelta(days=1)
    lists = (
        (_("Today"), _("Today’s schedule"), {"since": str(today), "until": str(today)}),
        (_("Tomorrow"), _("Tomorrow’s schedule"), {"since": str(tomorrow), "until": str(tomorrow)}),
        (_("From today on"), _("What is scheduled from today on"), {"since": str(today)}),
    )
    return [
        {"label": label, "help": told, "query": urlencode(query), "is_current": used == query}
        for label, told, query in lists
    ]


@require_http_methods(["GET", "POST"])
@may_manage_orders
def new_order(request: HttpRequest) -> HttpResponse:
    """Place an order by hand."""
    principal = principal_of(request)
    form = OrderForm(request.POST or None, principal=principal)
    if request.method == "POST" and form.is_valid():
        try:
            order = services.place_order(
                site=form.cleaned_data["site"], patient=form.identity(), details=form.details(), principal=principal
            )
        except OrderRefused as refusal:
            form.add_error("accession_number", str(refusal))
        else:
            messages.success(
                request, _("Order %(number)s is placed.") % {"number": order.accession_number}, extra_tags="order"
            )
            return redirect("new_order" if "another" in request.POST else "orders")
    context = {"form": form, "order": None, **_suggestions(principal)}
    return private(render(request, "orders/order.html", context, status=422 if form.errors else 200))


@require_http_methods(["GET", "POST"])
@may_see_orders
def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Show and change an order."""
    principal = principal_of(request)
    shown = get_object_or_404(selectors.orders_visible_to(principal), pk=pk)
    may_change = principal.may(Capability.ORDER_MANAGE, shown.site_id) and shown.status not in services.OVER
    form = OrderForm(request.POST or None, principal=principal, order=shown)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_order(order=shown, changes=form.changes(), principal=principal)
        except OrderRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, _("Order %(number)s is saved.") % {"number": shown.accession_number})
            return redirect("orders")
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        site_id=shown.site_id,
        patient_id=shown.patient.patient_id,
        patient_name=shown.patient.patient_name,
        study_instance_uid=shown.study_instance_uid,
        details={"page": "order"},
    )
    context = {
        "form": form,
        "order": shown,
        "may_change": may_change,
        "history": shown.status_changes.select_related("user"),
        **_suggestions(principal),
    }
    return private(render(request, "orders/order.html", context, status=422 if form.errors else 200))


@require_POST
@may_manage_orders
def arrive(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that the patient is here."""
    return _done(request, pk, services.arrive_order, _("The patient is here."))


@require_POST
@may_manage_orders
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel the order."""
    reason = " ".join(request.POST.get("reason", "").split())
    return _done(request, pk, partial(services.cancel_order, reason=reason), _("The order is cancelled."))


def _done(request: HttpRequest, pk: int, service: Any, text: str) -> HttpResponse:
    principal = principal_of(request)
    shown = get_object_or_404(selectors.orders_visible_to(principal), pk=pk)
    try:
        service(order=shown, principal=principal)
    except OrderRefused as refusal:
        messages.error(request, str(refusal))
        return redirect("order", pk=pk)
    messages.success(request, text)
    return redirect("orders")


@require_GET
@may_manage_orders
def patients(request: HttpRequest) -> HttpResponse:
    """Suggest patients while their ID or name is typed."""
    found = selectors.patients_matching(principal_of(request), request.GET.get("q", "")[:120], Capability.ORDER_MANAGE)
    return private(render(request, "orders/_patients.html", {"patients": found}))


def _suggestions(principal: Principal) -> dict[str, Any]:
    """Give the procedures and physicians of the newest orders, to choose from while typing."""
    newest = Order.objects.filter(pk__in=selectors.orders_visible_to(principal).order_by("-pk").values("pk")[:500])
    procedures: dict[str, str] = {}
    for description, modality in newest.order_by("-pk").values_list(
        "requested_procedure_description", "scheduled_steps__modality"
    ):
        procedures.setdefault(description, modality or "")
    physicians = newest.exclude(referring_physician_name="").values_list("referring_physician_name", flat=True)
    return {
        "procedures": sorted(procedures.items())[:200],
        "physicians": sorted(set(physicians.order_by()))[:200],
        "patients_url": reverse("order_patients"),
    }


def private(response: HttpResponse) -> HttpResponse:
    """Keep the answer out of every cache."""
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response


def selected_order(request: HttpRequest, pk: str) -> Order | None:
    """Give the order that a form names; None for one that isn't the principal's to see."""
    if not pk.isdigit() or len(pk) > 18:
        return None
    return selectors.orders_visible_to(principal_of(request)).filter(pk=pk).first()
