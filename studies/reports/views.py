"""The report desk, the signed report as a page and as PDF."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.access import visible_study
from studies.models import Study
from studies.reports import selectors, services
from studies.reports.documents import report_pdf
from studies.reports.errors import DraftChangedElsewhere, DraftHeldByOther, DraftIsGone, ReportError
from studies.reports.models import ReportPart

may_read_reports = capability_required(Capability.REPORT_READ, Capability.REPORT_WRITE)
may_write_reports = capability_required(Capability.REPORT_WRITE)
RECENT = 30


def _principal(request: HttpRequest) -> Principal:
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def _study(request: HttpRequest, study_instance_uid: str) -> Study:
    """Pass the gate. Raises Http404, also for one who may see the study but not its report."""
    try:
        study = visible_study(_principal(request), study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    if not (selectors.may_read(_principal(request), study) or selectors.may_write(_principal(request), study)):
        raise Http404
    return study


def _draft(request: HttpRequest, study_instance_uid: str) -> ReportPart:
    study = _study(request, study_instance_uid)
    draft = selectors.open_draft_of(study) if selectors.may_write(_principal(request), study) else None
    if draft is None:
        raise Http404
    return draft


def _is_other_draft(request: HttpRequest, draft: ReportPart) -> bool:
    """Say whether the window shows another draft than the one now open: revisions of two drafts may be equal."""
    return request.POST.get("part", str(draft.pk)) != str(draft.pk)


def _panel_context(request: HttpRequest, study: Study) -> dict[str, Any]:
    principal = _principal(request)
    may_write = selectors.may_write(principal, study)
    parts = selectors.signed_parts(study)
    if parts:
        selectors.record_reading(principal, study)
    draft = selectors.open_draft_of(study) if may_write else None
    return {
        "study": study,
        "parts": parts,
        "draft": draft,
        "fields": _fields(draft) if draft else [],
        "is_own": draft is not None and principal.user is not None and draft.author_id == principal.user.pk,
        "may_write": may_write,
        "may_sign": may_write and principal.may(Capability.REPORT_SIGN, study.site_id),
    }


def _fields(draft: ReportPart) -> list[dict[str, str]]:
    return [
        {"name": name, "label": name.capitalize(), "text": str(draft.sections.get(name, ""))}
        for name in draft.section_names
    ]


def _panel(request: HttpRequest, study: Study, **more: Any) -> HttpResponse:
    response = render(request, "reports/_panel.html", {**_panel_context(request, study), **more})
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@may_read_reports
def reports(request: HttpRequest) -> HttpResponse:
    """Show the person's own drafts and what they signed lately."""
    principal = _principal(request)
    context = {
        "drafts": selectors.drafts_of(principal)[:RECENT],
        "signed": selectors.signed_by(principal)[:RECENT],
    }
    return render(request, "reports/reports.html", context)


@require_GET
@may_read_reports
def report(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show the signed report to be read and printed."""
    study = _study(request, study_instance_uid)
    parts = selectors.signed_parts(study)
    if parts:
        selectors.record_reading(_principal(request), study)
    context = {"study": study, "parts": parts, "is_whole": all(services.verify_part(p) for p in parts)}
    response = render(request, "reports/report.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@may_read_reports
def pdf(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Give the signed report as PDF; 404 while there's none."""
    study = _study(request, study_instance_uid)
    parts = selectors.signed_parts(study)
    if not parts:
        raise Http404
    content = report_pdf(study, parts)
    record(
        AuditEvent.Action.REPORT_PDF,
        principal=_principal(request),
        site_id=study.site_id,
        patient_id=study.patient_id_value,
        patient_name=study.patient_name,
        study_instance_uid=study.study_instance_uid,
    )
    response = HttpResponse(content, content_type="application/pdf")
    response["Content-Disposition"] = f'inline; filename="report-{study.pk}.pdf"'
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@may_read_reports
def panel(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Give the report beside the images: the desk to a writer, the signed report to a reader."""
    return _panel(request, _study(request, study_instance_uid))


@require_GET
@may_write_reports
def desk(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show the report desk as a page of its own."""
    study = _study(request, study_instance_uid)
    if not selectors.may_write(_principal(request), study):
        raise Http404
    return render(request, "reports/desk.html", _panel_context(request, study))


@require_POST
@may_write_reports
def start(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Open the draft of the report, or of an addendum when one is signed."""
    study = _study(request, study_instance_uid)
    try:
        if selectors.signed_parts(study):
            services.start_addendum(study=study, principal=_principal(request), reason=request.POST.get("reason", ""))
        else:
            services.open_draft(study=study, principal=_principal(request))
    except ReportError as error:
        return _panel(request, study, error=error.text)
    return _panel(request, _study(request, study_instance_uid))


@require_POST
@may_write_reports
def save(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Keep what was typed; 409 with the newer text when the draft was changed elsewhere."""
    draft = _draft(request, study_instance_uid)
    base_revision = request.POST.get("revision", "")
    if not base_revision.isdigit() or len(base_revision) > 9:
        return JsonResponse({"error": "The revision is missing."}, status=400)
    if _is_other_draft(request, draft):
        return JsonResponse({"error": DraftIsGone.text}, status=410)
    try:
        saved = services.save_draft(
            part=draft,
            principal=_principal(request),
            sections={name: request.POST[name] for name in draft.section_names if name in request.POST},
            base_revision=int(base_revision),
        )
    except DraftChangedElsewhere as error:
        current = error.current
        return JsonResponse(
            {
                "error": error.text,
                "revision": current.revision,
                "sections": current.sections,
                "author": str(current.author),
                "is_held_by_other": isinstance(error, DraftHeldByOther),
            },
            status=409,
        )
    except DraftIsGone as error:
        return JsonResponse({"error": error.text}, status=410)
    except ReportError as error:
        return JsonResponse({"error": error.text}, status=422)
    return JsonResponse({"revision": saved.revision, "saved_at": saved.updated_at.isoformat()})


@require_GET
@may_write_reports
def preview(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show the draft as it will be read."""
    draft = _draft(request, study_instance_uid)
    return render(request, "reports/_preview.html", {"study": draft.report.study, "part": draft})


@sensitive_post_parameters("password")
@require_POST
@capability_required(Capability.REPORT_SIGN)
def sign(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Sign the draft with the password entered again; the answer is the panel, with the reason if it wasn't signed."""
    draft = _draft(request, study_instance_uid)
    if _is_other_draft(request, draft):
        return _panel(request, draft.report.study, error=DraftIsGone.text)
    base_revision = request.POST.get("revision", "")
    try:
        services.sign_part(
            part=draft,
            principal=_principal(request),
            password=request.POST.get("password", ""),
            base_revision=int(base_revision) if base_revision.isdigit() and len(base_revision) < 10 else -1,
        )
    except ReportError as error:
        return _panel(request, draft.report.study, error=error.text, is_signing=True)
    return _panel(request, _study(request, study_instance_uid))


@require_POST
@may_write_reports
def take_over(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Make another person's draft one's own; a window that has words to save gets only the new revision."""
    draft = _draft(request, study_instance_uid)
    if request.headers.get("Accept") != "application/json":
        return _change(request, draft, services.take_over_draft)
    try:
        return JsonResponse({"revision": services.take_over_draft(part=draft, principal=_principal(request)).revision})
    except ReportError as error:
        return JsonResponse({"error": error.text}, status=422)


@require_POST
@may_write_reports
def discard(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Delete one's own draft."""
    return _change(request, _draft(request, study_instance_uid), services.discard_draft)


def _change(request: HttpRequest, draft: ReportPart, service: Any) -> HttpResponse:
    study = draft.report.study
    try:
        service(part=draft, principal=_principal(request))
    except ReportError as error:
        return _panel(request, study, error=error.text)
    if not request.headers.get("HX-Request"):
        return redirect("report_desk", study_instance_uid=study.study_instance_uid)
    return _panel(request, _study(request, study.study_instance_uid))
