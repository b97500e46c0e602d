"""Critical results: flagged at the desk, listed where nobody can miss them, acknowledged on any screen."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from studies.access import studies_visible_to
from studies.reports import critical
from studies.reports.desk import panel as render_panel
from studies.reports.errors import ReportError
from studies.reports.models import CriticalResult
from studies.reports.requests import may_read_reports, may_write_reports, principal_of, written_study_of

CLOSED_SHOWN = 50


@require_GET
@may_read_reports
def critical_results(request: HttpRequest) -> HttpResponse:
    """List the open critical results, the most pressing first, and those closed lately."""
    principal = principal_of(request)
    everything = critical.critical_results_of(principal)
    context = {
        "open": critical.open_critical_results(principal).prefetch_related("recipients__user", "recipients__practice"),
        "closed": everything.exclude(acknowledged_at=None, withdrawn_at=None).order_by("-flagged_at")[:CLOSED_SHOWN],
        "now": timezone.now(),
        "may_manage_accounts": principal.may(Capability.ACCOUNT_MANAGE),
    }
    response = render(request, "reports/critical_results.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _result(request: HttpRequest, pk: int) -> CriticalResult:
    result = critical.critical_results_of(principal_of(request)).filter(pk=pk).first()
    if result is None:
        raise Http404
    return result


def _page(request: HttpRequest, result: CriticalResult, error: str = "") -> HttpResponse:
    principal = principal_of(request)
    told = list(result.recipients.select_related("user", "practice"))
    context = {
        "result": result,
        "study": result.study,
        "recipients": [one for one in told if not one.level],
        "escalated_to": [one for one in told if one.level],
        "steps": result.steps.select_related("user"),
        "sees_study": studies_visible_to(principal).filter(pk=result.study_id).exists(),
        "may_acknowledge": result.is_open and critical.may_acknowledge(principal, result),
        "may_report": result.is_open and critical.may_report(principal, result),
        "is_late": result.is_open and critical.late_since(result).total_seconds() > 0,
        "error": error,
    }
    response = render(request, "reports/critical_result.html", context, status=422 if error else 200)
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@may_read_reports
def critical_result(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a critical result: what, to whom, by when, and what was done."""
    return _page(request, _result(request, pk))


@require_POST
@may_read_reports
def acknowledge(request: HttpRequest, pk: int) -> HttpResponse:
    """Take note of it, or note who was told by telephone."""
    result = _result(request, pk)
    try:
        critical.acknowledge(result=result, principal=principal_of(request), told_to=request.POST.get("told_to", ""))
    except ReportError as error:
        return _page(request, _result(request, pk), error.text)
    return redirect("critical_result", pk=pk)


@require_POST
@may_write_reports
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take the flag back."""
    result = _result(request, pk)
    try:
        critical.withdraw(result=result, principal=principal_of(request), reason=request.POST.get("reason_for", ""))
    except ReportError as error:
        return _page(request, _result(request, pk), error.text)
    return redirect("critical_result", pk=pk)


@require_POST
@may_write_reports
def flag(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Flag a finding of the study; the desk stays as it is, only the list of flags comes anew."""
    study = written_study_of(request, study_instance_uid)
    category = request.POST.get("category", "")
    error = ""
    try:
        if category not in {"1", "2", "3"}:
            raise ReportError
        critical.flag(
            study=study,
            principal=principal_of(request),
            category=int(category),
            finding=request.POST.get("finding", ""),
            recipients=critical.chosen_recipients(
                study, request.POST.getlist("recipient"), request.POST.get("ward", "")
            ),
        )
    except ReportError as failure:
        error = failure.text
    if not request.headers.get("HX-Request"):
        return render_panel(request, study, error=error)
    context = {
        "study": study,
        "critical_results": critical.critical_results_of(principal_of(request)).filter(study=study),
        "recipients": critical.recipients_for(study),
        "deadlines": critical.deadlines_of(study),
        "may_write": True,
        "critical_error": error,
        "typed": request.POST if error else {},
        "typed_recipients": request.POST.getlist("recipient"),
    }
    return render(request, "reports/_critical.html", context)
