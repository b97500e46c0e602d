"""The referring clinician's home, and a patient's timeline."""

from __future__ import annotations

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from portal.audit.models import AuditEvent
from portal.audit.services import record, record_viewing
from studies.access import studies_visible_to
from studies.models import Patient
from studies.reports import critical
from studies.results import selectors

may_read_results = capability_required(Capability.REPORT_READ)
may_see_studies = capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)


@require_GET
@may_read_results
def results(request: HttpRequest) -> HttpResponse:
    """Show the person's results, critical and new ones first, and what still waits for a report."""
    principal = principal_of(request)
    wanted = request.GET.get("q", "").replace("\x00", "")[:120]
    only_unread = request.GET.get("only") == "unread"
    offset = request.GET.get("offset", "")
    page = selectors.page_of(
        selectors.results_of(principal, wanted=wanted, only_unread=only_unread),
        int(offset) if offset.isdigit() and len(offset) < 6 else 0,
    )
    if wanted:
        record(
            AuditEvent.Action.SEARCH,
            principal=principal,
            details={"way": "results", "keys": {"q": wanted}, "results": len(page.results)},
        )
    for result in page.results:
        signed = [part for part in result.parts.all() if part.is_signed]
        result.excerpt = selectors.excerpt_of(signed)  # type: ignore[attr-defined]
        result.is_retracted = selectors.is_retracted(signed)  # type: ignore[attr-defined]
        result.is_addended = len(signed) > 1  # type: ignore[attr-defined]
    context = {
        "page": page,
        "q": wanted,
        "only_unread": only_unread,
        "critical": [] if wanted or offset else critical.awaiting(principal)[: selectors.PAGE],
        "now": timezone.now(),
        "waiting": [] if wanted or only_unread or offset else selectors.waiting_of(principal),
    }
    template = "results/_results.html" if request.htmx else "results/results.html"  # type: ignore[attr-defined]
    response = render(request, template, context)
    response["Cache-Control"] = "no-store"
    response["Vary"] = "HX-Request"
    return response


@require_GET
@may_see_studies
def patient(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a patient's studies and reports over all sites, as far as the person may see them."""
    principal = principal_of(request)
    visible = studies_visible_to(principal).values("patient")
    shown = get_object_or_404(Patient.objects.select_related("site"), Q(pk=pk) & Q(pk__in=visible))
    wanted = request.GET.get("q", "").replace("\x00", "")[:120]
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        site_id=shown.site_id,
        patient_id=shown.patient_id,
        patient_name=shown.patient_name,
        study_instance_uid="",
        details={"page": "patient timeline"},
    )
    context = {"patient": shown, "entries": selectors.timeline_of(principal, shown, wanted=wanted), "q": wanted}
    template = "results/_timeline.html" if request.htmx else "results/patient.html"  # type: ignore[attr-defined]
    response = render(request, template, context)
    response["Cache-Control"] = "no-store"
    response["Vary"] = "HX-Request"
    return response
