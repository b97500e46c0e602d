"""Saved filters: kept from the list as it is, changed, shared, put in order and forgotten on a page of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from studies.worklists import columns, services
from studies.worklists.forms import SavedFilterForm, WorklistFilterForm
from studies.worklists.models import SavedFilter, WorklistPreference
from studies.worklists.selectors import filters_of, preference_of
from studies.worklists.sorting import Sorting, sorting

may_see_studies = capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)
# What a list's address holds beside the filter.
NOT_KEPT = ("saved", "after", "ids")
LONGEST = 1000
NAMES_PATIENT = gettext_lazy("a filter that names a patient or an accession number can’t be shared.")


@dataclass(frozen=True)
class QuickList:
    """A list that everyone of a kind has, under a key."""

    key: str
    label: str
    help: str
    query: str
    is_current: bool

    @property
    def url(self) -> str:
        """Give the list's address."""
        return f"{reverse('worklist')}?{self.query}"


@dataclass(frozen=True)
class ShownFilter:
    """A saved filter as its chip shows it."""

    filter: SavedFilter
    is_own: bool
    is_current: bool = False
    is_changed: bool = False

    @property
    def url(self) -> str:
        """Give the list's address; it says whose conditions these are, so that changes can be kept."""
        return f"{reverse('worklist')}?{self.filter.query}&{urlencode({'saved': self.filter.pk})}"


def quick_lists(principal: Principal, query: QueryDict, order: Sorting) -> list[QuickList]:
    """Give the lists that need not be saved, and say which of them is open."""
    today = date.today().isoformat()
    unfinished = "status=arrived&status=in_reading&status=preliminary"
    lists = [("4", _("Today"), _("Studies of today"), f"since={today}")]
    if principal.may(Capability.STUDY_VIEW):
        lists.append(("1", _("Unread"), _("Unread cases"), "status=arrived&sort=priority,date"))
        if principal.may(Capability.REPORT_WRITE):
            lists.append(("2", _("Mine"), _("My cases"), f"{unfinished}&assigned=me&sort=priority,date"))
        lists.append(("3", _("STAT"), _("Open STAT cases"), f"priority=STAT&{unfinished}&sort=date"))
        to_come = f"status=scheduled&since={today}&sort=date"
        lists.append(("5", _("Scheduled"), _("Scheduled, images still to come"), to_come))
    return [QuickList(*one, is_current=bool(query) and _is_same(one[3], query, order)) for one in sorted(lists)]


def shown_filters(
    principal: Principal, preference: WorklistPreference, query: QueryDict, order: Sorting, saved: str = ""
) -> list[ShownFilter]:
    """Give the person's filters in their order, and which of them the list was opened by (``saved``) or equals."""
    if principal.user is None:
        return []
    shown = []
    for kept in filters_of(principal.user, preference):
        is_same = bool(query) and _is_same(kept.query, query, order)
        is_opened = saved == str(kept.pk)
        shown.append(
            ShownFilter(
                kept,
                is_own=kept.user_id == principal.user.pk,
                is_current=is_opened or (is_same and not saved),
                is_changed=is_opened and not is_same,
            )
        )
    return shown


def _is_same(kept: str, query: QueryDict, order: Sorting) -> bool:
    wanted = QueryDict(kept, mutable=True)
    sort = (wanted.pop("sort", None) or [""])[-1]
    return _conditions(wanted) == _conditions(query) and sort in {"", str(order)}


def _conditions(query: QueryDict) -> dict[str, list[str]]:
    return {name: sorted(values) for name, values in query.lists()}


def described(kept: SavedFilter, principal: Principal) -> list[str]:
    """Say in words what a filter shows and in which order, as far as the person may know it."""
    query = QueryDict(kept.query)
    told = []
    for name, field in WorklistFilterForm(query, principal=principal).fields.items():
        values = [value for value in query.getlist(name) if value]
        choices: Any = getattr(field, "choices", None)
        if not values:
            continue
        if choices is not None:
            labels = {str(value): str(label) for value, label in choices}
            values = [labels.get(value, "—") for value in values]
        told.append(str(field.label) if name == "late" else f"{field.label}: {', '.join(values)}")
    if query.get("sort"):
        labels = {column.sort: str(column.label) for column in columns.COLUMNS.values()}
        steps = [
            f"{labels.get(s.name, s.name)} {'↓' if s.is_descending else '↑'}" for s in sorting(query["sort"]).steps
        ]
        told.append(_("by %(columns)s") % {"columns": ", ".join(steps)})
    return told


@require_http_methods(["GET", "POST"])
@may_see_studies
def saved_filters(request: HttpRequest) -> HttpResponse:
    """Show one's filters and those shared with one; by POST keep the list's filter under a name."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    if request.method == "POST":
        return _keep(request, principal)
    preference = preference_of(principal.user)
    shown = shown_filters(principal, preference, QueryDict(), sorting(""))
    context = {"filters": [{"shown": one, "told": described(one.filter, principal)} for one in shown]}
    return _private(render(request, "worklists/filters.html", context))


def _keep(request: HttpRequest, principal: Principal) -> HttpResponse:
    query = _query(request)
    form = SavedFilterForm(request.POST, principal=principal)
    if not form.is_valid() or not 0 < len(query) <= LONGEST:
        messages.error(request, _("Not saved: %(why)s") % {"why": _why(form, query)})
        return redirect(f"{reverse('worklist')}?{query}")
    try:
        kept = services.save_filter(principal=principal, query=query, **form.cleaned_data)
    except services.NamesPatient:
        messages.error(request, _("Not saved: %(why)s") % {"why": NAMES_PATIENT})
        return redirect(f"{reverse('worklist')}?{query}")
    messages.success(request, _("The filter “%(name)s” is saved.") % {"name": kept.name})
    return redirect(f"{reverse('worklist')}?{query}&saved={kept.pk}")


def conditions_of(address: QueryDict) -> QueryDict:
    """Give what a list's address asks for, without its order."""
    query = address.copy()
    for name in (*NOT_KEPT, "sort"):
        query.pop(name, None)
    return query


def _query(request: HttpRequest) -> str:
    query = QueryDict(request.POST.get("query", ""), mutable=True)
    for name in NOT_KEPT:
        query.pop(name, None)
    return query.urlencode()


def _why(form: SavedFilterForm, query: str) -> str:
    told = [str(error) for errors in form.errors.values() for error in errors]
    return " ".join(told) or (_("the filter is too long.") if query else _("the list has no filter."))


def _own(request: HttpRequest, pk: int) -> SavedFilter:
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return get_object_or_404(SavedFilter.objects.select_related("group", "role"), user=principal.user, pk=pk)


@require_http_methods(["GET", "POST"])
@may_see_studies
def saved_filter(request: HttpRequest, pk: int) -> HttpResponse:
    """Rename one of one's filters, or share it with others."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    kept = _own(request, pk)
    form = SavedFilterForm(request.POST or None, principal=principal, kept=kept)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_filter(kept=kept, principal=principal, **form.cleaned_data)
        except services.NamesPatient:
            form.add_error("share", NAMES_PATIENT)
        else:
            messages.success(request, _("The filter “%(name)s” is saved.") % {"name": kept.name})
            return redirect("saved_filters")
    context = {"form": form, "kept": kept, "told": described(kept, principal)}
    return _private(render(request, "worklists/filter.html", context, status=422 if form.errors else 200))


@require_POST
@may_see_studies
def replace_filter(request: HttpRequest, pk: int) -> HttpResponse:
    """Give one of one's filters the conditions and the order that the list has now."""
    kept, query = _own(request, pk), _query(request)
    if len(query) > LONGEST:
        messages.error(request, _("Not saved: %(why)s") % {"why": _("the filter is too long.")})
    elif query:
        try:
            services.replace_filter(kept=kept, query=query)
        except services.NamesPatient:
            messages.error(request, _("Not saved: %(why)s") % {"why": NAMES_PATIENT})
        else:
            messages.success(request, _("The filter “%(name)s” is saved.") % {"name": kept.name})
    return redirect(f"{reverse('worklist')}?{query}&saved={kept.pk}")


@require_POST
@may_see_studies
def move_filter(request: HttpRequest, pk: int) -> HttpResponse:
    """Move a filter one place up or down in one's own order."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    if principal.user is not None:
        services.move_filter(user=principal.user, pk=pk, step=-1 if request.POST.get("way") == "up" else 1)
    return redirect("saved_filters")


@require_POST
@may_see_studies
def delete_filter(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a saved filter."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    if principal.user is not None:
        services.delete_filter(user=principal.user, pk=pk)
    return redirect("saved_filters" if "of_page" in request.POST else "worklist")


def _private(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    return response
