"""The worklist."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import get_language, gettext, ngettext
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.access import studies_visible_to
from studies.errors import NotAllowed
from studies.models import Priority
from studies.worklists import assignment, columns, scheduled, selectors, services
from studies.worklists.cells import View, rows_as_html, words_in
from studies.worklists.filters import conditions_of, quick_lists, shown_filters
from studies.worklists.forms import SavedFilterForm, WorklistFilterForm
from studies.worklists.models import WorklistPreference
from studies.worklists.rows import rows_of_orders, rows_of_studies
from studies.worklists.sorting import COLUMNS, Sorting, bounded, sorting, toggled

MOST_CHANGED = 200
may_see_studies = capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)
may_work_cases = capability_required(Capability.CASE_ASSIGN, Capability.REPORT_WRITE, Capability.ORDER_MANAGE)


def principal_of(request: HttpRequest) -> Principal:
    """Give who asks."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def private(response: HttpResponse) -> HttpResponse:
    """Keep the answer out of every cache."""
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@may_see_studies
def worklist(request: HttpRequest) -> HttpResponse:
    """Show the studies that match the filter; to htmx only the list, or what follows after a row."""
    principal = principal_of(request)
    preference = selectors.preference_of(principal.user)
    form, criteria, wanted = asked(request.GET, principal, preference)
    studies = selectors.worklist(principal, criteria)
    orders = scheduled.orders_asked_for(principal, criteria)
    query = form.query() if form.is_valid() else QueryDict()
    after = request.GET.get("after", "")
    is_open = selectors.is_of_open_cases(criteria)
    # Open cases are sorted all at once, which counts them as well.
    count, is_short, order = 0, True, wanted
    if not is_open:
        studies, count = selectors.measured(studies)
        is_short = selectors.is_short(criteria, count)
        order = bounded(wanted, is_short=is_short)
    if after:
        window = scheduled.window_of(studies, orders, order, after=after)
        return private(
            render(request, "worklists/_rows.html", _rows_context(principal, window, preference, query, order))
        )
    window = scheduled.window_of(studies, orders, order, counts=is_open)
    if is_open:
        count = window.count or 0
    elif orders is not None:
        count += selectors.counted(orders)
    if query:
        keys = {name: ",".join(query.getlist(name)) for name in query}
        details = {"way": "worklist", "keys": keys, "results": len(window.rows)}
        record(AuditEvent.Action.SEARCH, principal=principal, details=details)
    shown = columns_of(principal, preference)
    # What can't be applied isn't changed by that.
    conditions = query if form.is_valid() else conditions_of(request.GET)
    own_filters = shown_filters(principal, preference, conditions, order, request.GET.get("saved", ""))
    opened = next((one for one in own_filters if one.is_current), None)
    saved = str(opened.filter.pk) if opened else ""
    context = {
        **_rows_context(principal, window, preference, query, order),
        **_list_context(principal, query, order, shown, saved, is_short=is_short),
        "quick_lists": quick_lists(principal, query, order),
        "saved_filters": own_filters,
        "opened_filter": opened,
        "saved": saved,
        "refusals": _refusals(form),
        "has_usual_columns": not preference.columns,
        "count": count,
        "count_shown": selectors.number(count),
    }
    if request.htmx:  # type: ignore[attr-defined]
        response = private(render(request, "worklists/_list.html", context))
        response["HX-Replace-Url"] = _url(query, sort=request.GET.get("sort", ""), saved=saved)
        return response
    # A filter's own order belongs to the filter: «Scheduled» with the next first doesn't turn the whole list around.
    if request.GET.get("sort") and not query and principal.user is not None:
        services.save_sort(user=principal.user, sort=str(order))
    context |= _page_context(principal, form, shown)
    return private(render(request, "worklists/worklist.html", context))


def asked(
    data: QueryDict, principal: Principal, preference: WorklistPreference
) -> tuple[WorklistFilterForm, dict[str, Any], Sorting]:
    """Give the filter's form, its cleaned values, and the sort: the one asked for, else the one used last."""
    form = WorklistFilterForm(data, principal=principal)
    criteria = form.cleaned_data if form.is_valid() else selectors.NOTHING
    return form, criteria, sorting(data.get("sort") or preference.sort)


@require_GET
@may_see_studies
def rows(request: HttpRequest) -> HttpResponse:
    """Give the rows of those in ``?ids=`` that the list holds now, orders with an ``o``; lists follow changes by it.

    ``?after=`` is where the page's part of the list ends: what lies behind it is marked.
    """
    principal = principal_of(request)
    preference = selectors.preference_of(principal.user)
    _form, criteria, order = asked(request.GET, principal, preference)
    ids = request.GET.get("ids", "").split(",")[:MOST_CHANGED]
    pks = [int(word) for word in ids if word.isdigit() and len(word) < 19]
    order_pks = [int(word[1:]) for word in ids if word[:1] == "o" and word[1:].isdigit() and len(word) < 19]
    studies = selectors.worklist(principal, criteria).filter(pk__in=pks)
    found = rows_of_studies(studies)
    orders = scheduled.orders_asked_for(principal, criteria) if order_pks else None
    if orders is not None:
        orders = orders.filter(pk__in=order_pks)
        found += rows_of_orders(scheduled.named_as_studies(orders))
    if after := request.GET.get("after", ""):
        behind = scheduled.further(studies, orders, order, after)
        for row in found:
            row.is_further = row.key in behind
    window = scheduled.Window(found, "")
    return private(
        render(request, "worklists/_rows.html", _rows_context(principal, window, preference, QueryDict(), order))
    )


def columns_of(principal: Principal, preference: WorklistPreference) -> list[columns.Column]:
    """Give the columns that the person sees."""
    sites = principal.sites_with(Capability.STUDY_VIEW)
    return columns.chosen(
        preference.columns,
        is_referrer=not principal.may(Capability.STUDY_VIEW),
        has_sites=sites is None or len(sites - principal.teaching_site_ids) > 1,
    )


def _rows_context(
    principal: Principal, window: scheduled.Window, preference: WorklistPreference, query: QueryDict, order: Sorting
) -> dict[str, Any]:
    view = View(
        columns=[column.name for column in columns_of(principal, preference)],
        user_id=principal.user.pk if principal.user is not None else None,
        is_referrer=not principal.may(Capability.STUDY_VIEW),
        may_select=_may_select(principal),
        now=timezone.now(),
        people=selectors.names_of(
            {pk for row in window.rows for pk in (row.assigned_to, row.claimed_by) if pk is not None}
        ),
        words=words_in(get_language() or ""),
    )
    return {
        "rows": rows_as_html(window.rows, view),
        "next_url": _url(query, sort=str(order), after=window.after) if window.after else "",
    }


def _may_select(principal: Principal) -> bool:
    return principal.may(Capability.CASE_ASSIGN) or principal.may(Capability.REPORT_WRITE)


def _list_context(
    principal: Principal,
    query: QueryDict,
    order: Sorting,
    shown: list[columns.Column],
    saved: str,
    *,
    is_short: bool,
) -> dict[str, Any]:
    return {
        "order": order,
        "heads": _heads(shown, order, query, saved, is_short=is_short),
        "list_query": _url(query, sort=str(order), saved=saved).partition("?")[2],
        "is_filtered": bool(query),
        "is_referrer": not principal.may(Capability.STUDY_VIEW),
        "may_select": _may_select(principal),
        "may_write": principal.may(Capability.REPORT_WRITE),
        "may_upload": principal.may(Capability.STUDY_UPLOAD),
    }


def _page_context(principal: Principal, form: WorklistFilterForm, shown: list[columns.Column]) -> dict[str, Any]:
    may_assign = principal.may(Capability.CASE_ASSIGN)
    sites = principal.sites_with(Capability.CASE_ASSIGN) or frozenset()
    names = [column.name for column in shown]
    return {
        "form": form,
        "may_assign": may_assign,
        "may_prioritise": may_assign or principal.may(Capability.ORDER_MANAGE),
        "readers": selectors.readers_at(sites) if may_assign else [],
        "priorities": Priority.choices,
        "saving": SavedFilterForm(principal=principal),
        "all_columns": [*shown, *(c for c in columns.COLUMNS.values() if c.name not in names)],
        "shown_names": names,
    }


def _refusals(form: WorklistFilterForm) -> list[str]:
    """Say what of the filter can't be applied: a shared one may name a site or group that isn't the reader's."""
    return [f"{form.fields[name].label}: {' '.join(map(str, errors))}" for name, errors in form.errors.items()]


def _heads(
    shown: list[columns.Column], order: Sorting, query: QueryDict, saved: str, *, is_short: bool
) -> list[dict[str, Any]]:
    heads: list[dict[str, Any]] = []
    for column in shown:
        place = next((n for n, step in enumerate(order.steps) if step.name == column.sort), None)
        step = order.steps[place] if place is not None else None
        may_sort = column.sort and (is_short or COLUMNS[column.sort].is_indexed)
        heads.append(
            {
                "column": column,
                "url": _url(query, sort=toggled(order, column.sort, add=False), saved=saved) if may_sort else "",
                "is_too_long": bool(column.sort) and not may_sort,
                "add_url": _url(query, sort=toggled(order, column.sort, add=True), saved=saved) if may_sort else "",
                "direction": ("descending" if step.is_descending else "ascending") if step else "",
                "place": place + 1 if place is not None and len(order.steps) > 1 else "",
            }
        )
    return heads


def _url(query: QueryDict, **more: str) -> str:
    full = query.copy()
    for name, value in more.items():
        if value:
            full[name] = value
    return f"{reverse('worklist')}{'?' if full else ''}{full.urlencode()}"


@require_POST
@may_see_studies
def save_columns(request: HttpRequest) -> HttpResponse:
    """Remember which columns to show, in which order."""
    user = principal_of(request).user
    if user is not None:
        services.save_columns(user=user, names=request.POST.getlist("column"))
    return redirect(f"{reverse('worklist')}?{request.POST.get('query', '')}")


@require_POST
@may_work_cases
def bulk(request: HttpRequest) -> HttpResponse:
    """Assign the chosen cases or set their priority; answers with a message, the rows follow by themselves."""
    principal = principal_of(request)
    pks = [int(word) for word in request.POST.getlist("study") if word.isdigit() and len(word) < 19]
    chosen = list(studies_visible_to(principal).filter(pk__in=pks[:MOST_CHANGED]))
    reader, priority = request.POST.get("reader", ""), request.POST.get("priority", "")
    try:
        if priority in Priority.values:
            done = assignment.prioritise_cases(studies=chosen, priority=priority, principal=principal)
        else:
            done = assignment.assign_cases(studies=chosen, reader=_reader(reader, principal), principal=principal)
    except NotAllowed:
        done = 0
    response = HttpResponse(status=204)
    refused = len(chosen) - done
    text = ngettext("%(n)s case changed.", "%(n)s cases changed.", done) % {"n": done}
    if refused:
        text += " " + ngettext("%(n)s stays as it was:", "%(n)s stay as they were:", refused) % {"n": refused}
        text += " " + (
            gettext("finished, or not yours to change.")
            if priority
            else gettext("finished, or at a site where that reader doesn't report.")
        )
    level = "warning" if refused or not done else "success"
    response["HX-Trigger"] = _message(level, text)
    return response


def _reader(choice: str, principal: Principal) -> User | None:
    if choice == "me":
        return principal.user
    if choice == "nobody" or not choice.isdigit():
        return None
    return User.objects.filter(pk=choice, is_active=True).first()


def _message(level: str, text: str) -> str:
    # A header's value is ASCII; JSON's escapes carry the rest.
    return json.dumps({"atrium:message": {"level": level, "text": text}, "atrium:changed": {}})
