"""The worklist and the study page."""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record, record_viewing
from studies.access import visible_study
from studies.models import Study
from studies.worklists import selectors, services
from studies.worklists.forms import WorklistFilterForm
from studies.worklists.models import SavedFilter

COLUMNS = (("name", "Patient"), ("date", "Study date"), ("arrival", "Arrived"), ("status", "Status"))
may_see_studies = capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)


def _principal(request: HttpRequest) -> Principal:
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def age(born: date | None, on: date | None) -> str:
    """Give the age on a day as DICOM's AS (PS3.5 §6.2): ``"034Y"``, ``"005M"`` below two years."""
    if born is None or on is None or on < born:
        return ""
    years = on.year - born.year - ((on.month, on.day) < (born.month, born.day))
    if years >= 2:
        return f"{years:03d}Y"
    months = (on.year - born.year) * 12 + on.month - born.month - (on.day < born.day)
    return f"{months:03d}M"


@require_GET
@may_see_studies
def worklist(request: HttpRequest) -> HttpResponse:
    """Show the studies that match the filter, a page by keyset; to htmx only the table."""
    principal = _principal(request)
    form = WorklistFilterForm(request.GET, principal=principal)
    criteria = form.cleaned_data if form.is_valid() else {}
    sort = request.GET.get("sort", "")
    sort = sort if sort in selectors.SORTS else selectors.DEFAULT_SORT
    page = selectors.page_of(
        selectors.worklist(principal, criteria),
        sort,
        after=request.GET.get("after", ""),
        before=request.GET.get("before", ""),
    )
    used = {name: str(value) for name, value in criteria.items() if value}
    if used:
        record(
            AuditEvent.Action.SEARCH,
            principal=principal,
            details={"way": "worklist", "keys": used, "results": len(page.studies)},
        )
    for study in page.studies:
        study.age = age(study.patient.patient_birth_date, study.study_date)  # type: ignore[attr-defined]
    query = {**used, **({"sort": sort} if sort != selectors.DEFAULT_SORT else {})}
    context = {
        "form": form,
        "page": page,
        "query": urlencode(query),
        "is_filtered": bool(used),
        "next_url": _url({**query, "after": page.after}) if page.after else "",
        "previous_url": _url({**query, "before": page.before}) if page.before else "",
        "headers": {name: _header(name, label, sort, used) for name, label in COLUMNS},
        "is_referrer": not principal.may(Capability.STUDY_VIEW),
        "may_write": principal.may(Capability.REPORT_WRITE),
        "may_upload": principal.may(Capability.STUDY_UPLOAD),
        "has_sites": len({s.site_id for s in page.studies}) > 1,
        "saved_filters": SavedFilter.objects.filter(user=principal.user),
        "today": date.today().isoformat(),
    }
    template = "worklists/_table.html" if request.htmx else "worklists/worklist.html"  # type: ignore[attr-defined]
    response = render(request, template, context)
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response


def _url(query: dict[str, str]) -> str:
    return f"{reverse('worklist')}?{urlencode(query)}"


def _header(name: str, label: str, sort: str, used: dict[str, str]) -> dict[str, str]:
    is_current = sort.lstrip("-") == name
    is_descending = sort.startswith("-")
    next_sort = (name if is_descending else f"-{name}") if is_current else ("name" if name == "name" else f"-{name}")
    direction = ("descending" if is_descending else "ascending") if is_current else ""
    return {"label": label, "url": _url({**used, "sort": next_sort}), "direction": direction}


@require_GET
@may_see_studies
def next_case(request: HttpRequest) -> HttpResponse:
    """Open the next study that waits for a reader."""
    principal = _principal(request)
    form = WorklistFilterForm(request.GET, principal=principal)
    beside = None
    if request.GET.get("beside"):
        beside = _visible(principal, request.GET["beside"][:64])
    study = selectors.next_unread(principal, form.cleaned_data if form.is_valid() else {}, beside=beside)
    if study is None:
        return redirect(_url({"status": "arrived"}))
    return redirect("study", study_instance_uid=study.study_instance_uid)


def _visible(principal: Principal, study_instance_uid: str) -> Study:
    try:
        return visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error


@require_GET
@may_see_studies
def study(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show a study: report beside images."""
    principal = _principal(request)
    shown = _visible(principal, study_instance_uid)
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        site_id=shown.site_id,
        patient_id=shown.patient_id_value,
        patient_name=shown.patient_name,
        study_instance_uid=shown.study_instance_uid,
        details={"page": "study"},
    )
    reads_reports = principal.may(Capability.REPORT_READ, shown.site_id) or principal.may(
        Capability.REPORT_WRITE, shown.site_id
    )
    context: dict[str, Any] = {
        "study": shown,
        "age": age(shown.patient.patient_birth_date, shown.study_date),
        "series": shown.series.order_by("series_number", "pk"),
        "priors": selectors.priors(principal, shown),
        "reads_reports": reads_reports,
        "may_write": principal.may(Capability.REPORT_WRITE, shown.site_id),
    }
    response = render(request, "worklists/study.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_POST
@may_see_studies
def save_filter(request: HttpRequest) -> HttpResponse:
    """Keep the current filter under a name."""
    name, query = request.POST.get("name", "").strip(), request.POST.get("query", "")
    user = _principal(request).user
    if name and query and user is not None:
        services.save_filter(user=user, name=name, query=query)
    return redirect(f"{reverse('worklist')}?{query}")


@require_POST
@may_see_studies
def delete_filter(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a saved filter."""
    user = _principal(request).user
    if user is not None:
        services.delete_filter(user=user, pk=pk)
    return redirect("worklist")
