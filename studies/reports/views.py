"""The report desk, the signed report as a page and as PDF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.principals import Principal
from accounts.reauthentication import Credential, passkey_challenge
from portal.audit.models import AuditEvent
from portal.audit.services import record
from portal.templatetags.portal_tags import status_badge
from studies.access import visible_study
from studies.errors import ClaimHeldByOther
from studies.models import Study
from studies.reading import claim_study
from studies.reports import critical, drafts, selectors, signing
from studies.reports.checks import checks_of
from studies.reports.desk import cosigned_parts, offline_names, panel_context, tracked_changes
from studies.reports.desk import panel as render_panel
from studies.reports.distribution import current_pdf
from studies.reports.errors import (
    AlreadyRetracted,
    ChecksFailed,
    DraftChangedElsewhere,
    DraftHeldByOther,
    DraftIsGone,
    ReportError,
    ReportNotSigned,
)
from studies.reports.history import section_changes
from studies.reports.models import ReportPart, ReportVersion
from studies.reports.outline import Value
from studies.reports.requests import (
    draft_of,
    is_other_draft,
    may_read_reports,
    may_sign_reports,
    may_write_reports,
    principal_of,
    revision_of,
    study_of,
    written_study_of,
)
from studies.trail import subject_of

RECENT = 30
MOST_VERSIONS = 200


@require_GET
@may_read_reports
def reports(request: HttpRequest) -> HttpResponse:
    """Show the person's own drafts, what waits for their signature, and what they signed lately."""
    principal = principal_of(request)
    context = {
        "drafts": selectors.drafts_of(principal)[:RECENT],
        "waiting": selectors.awaiting_cosign(principal)[:RECENT] if principal.may(Capability.REPORT_SIGN) else [],
        "cosigned": selectors.cosigned_of(principal)[:RECENT],
        "signed": selectors.signed_by(principal)[:RECENT],
        "may_manage_accounts": principal.may(Capability.ACCOUNT_MANAGE),
    }
    return render(request, "reports/reports.html", context)


@require_GET
@may_read_reports
def report(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show the signed report to be read and printed."""
    study = study_of(request, study_instance_uid)
    parts = selectors.signed_parts(study)
    standing = [part for part in parts if not part.is_retracted]
    preliminary = selectors.preliminary_of(study)
    if parts or preliminary:
        selectors.record_reading(principal_of(request), study)
    context = {
        "study": study,
        "parts": parts,
        "standing": standing,
        "preliminary": preliminary,
        "critical_results": critical.critical_results_of(principal_of(request)).filter(study=study),
        "is_whole": all(signing.verify_part(p) for p in parts),
        "may_write": selectors.may_write(principal_of(request), study),
    }
    response = render(request, "reports/report.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@may_read_reports
def pdf(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Give the signed report as PDF; 404 while there's none."""
    study = study_of(request, study_instance_uid)
    content = current_pdf(study)
    if content is None:
        raise Http404
    record(
        AuditEvent.Action.REPORT_PDF,
        principal=principal_of(request),
        **subject_of(study),
    )
    response = HttpResponse(content, content_type="application/pdf")
    response["Content-Disposition"] = f'inline; filename="report-{study.pk}.pdf"'
    response["Cache-Control"] = "no-store"
    return response


@require_GET
def verify(request: HttpRequest, code: str) -> HttpResponse:
    """Say whether a print is what was signed. A stranger learns that and a few characters of the hash, no more."""
    part = ReportPart.objects.filter(verification_code=code).select_related("report__study__site", "template").first()
    if part is None:
        return _answer_verification(request, {}, status=404)
    principal = principal_of(request)
    study = part.report.study
    is_reader = selectors.may_read(principal, study) and _sees(request, study)
    later = selectors.signed_parts(study)[-1].pk != part.pk
    context = {
        "part": part,
        "study": study if is_reader else None,
        "is_whole": signing.verify_part(part),
        "is_superseded": later,
    }
    return _answer_verification(request, context)


def _answer_verification(request: HttpRequest, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    response = render(request, "reports/verify.html", context, status=status)
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex"
    return response


def _sees(request: HttpRequest, study: Study) -> bool:
    try:
        return visible_study(principal_of(request), study.study_instance_uid).pk == study.pk
    except Study.DoesNotExist:
        return False


@require_GET
@may_read_reports
def panel(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Give the report beside the images: the desk to a writer, the signed report to a reader."""
    return render_panel(request, study_of(request, study_instance_uid))


@require_GET
@may_write_reports
def desk(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show the report desk as a page of its own."""
    study = written_study_of(request, study_instance_uid)
    return render(request, "reports/desk.html", panel_context(request, study))


@require_POST
@may_write_reports
def start(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Open the draft of the report, or of an addendum when one is signed; the case is claimed with it."""
    study = study_of(request, study_instance_uid)
    principal = principal_of(request)
    if request.headers.get("Accept") == "application/json":
        return _begin(study, principal)
    try:
        drafts.require(principal, Capability.REPORT_WRITE, study)
        claim_study(study=study, principal=principal, take_over="take_over" in request.POST)
        if any(not part.is_retracted for part in selectors.signed_parts(study)):
            drafts.start_addendum(study=study, principal=principal, reason=request.POST.get("reason_for", ""))
        else:
            drafts.open_draft(study=study, principal=principal)
    except ClaimHeldByOther:
        return render_panel(request, study)
    except ReportError as error:
        return render_panel(request, study, error=error.text)
    return render_panel(request, study_of(request, study_instance_uid))


def _begin(study: Study, principal: Principal) -> JsonResponse:
    """Begin the draft of a desk that is open already: its window goes on with the words that it holds."""
    try:
        user = drafts.user_of(principal)
        drafts.require(principal, Capability.REPORT_WRITE, study)
        claim_study(study=study, principal=principal)
        draft = drafts.open_draft(study=study, principal=principal)
        if draft.author_id != user.pk:
            raise DraftHeldByOther(draft)
    except ClaimHeldByOther as error:
        text = _("%(name)s has this case open.") % {"name": error.holder}
        return JsonResponse({"error": text}, status=409)
    except ReportError as error:
        return JsonResponse({"error": error.text}, status=409)
    study.refresh_from_db(fields=["status"])
    return JsonResponse(
        {"part": draft.pk, "status": status_badge(study.status), **offline_names(user, study, draft)}, status=201
    )


def _entered(request: HttpRequest, draft: ReportPart) -> dict[str, Value]:
    fields = draft.outline.fields
    return {name: field.read(request.POST.getlist(name)) for name, field in fields.items() if name in request.POST}


@require_POST
@may_write_reports
def save(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Keep what was entered; 409 with the newer values when a field was changed elsewhere."""
    draft = draft_of(request, study_instance_uid)
    principal = principal_of(request)
    base_revision = revision_of(request)
    if base_revision < 0:
        return JsonResponse({"error": "The revision is missing."}, status=400)
    if is_other_draft(request, draft):
        return JsonResponse({"error": DraftIsGone.text}, status=410)
    entered = _entered(request, draft)
    try:
        saved = drafts.save_draft(part=draft, principal=principal, values=entered, base_revision=base_revision)
        claim_study(study=draft.report.study, principal=principal, take_over=True)
    except DraftChangedElsewhere as error:
        current = error.current
        drafts.end_sitting(current)
        return JsonResponse(
            {
                "error": error.text,
                "revision": current.revision,
                "sections": current.sections,
                "values": current.values,
                "fields": error.fields,
                "author": str(current.author),
                "is_held_by_other": isinstance(error, DraftHeldByOther),
            },
            status=409,
        )
    except DraftIsGone as error:
        return JsonResponse({"error": error.text}, status=410)
    except ReportError as error:
        return JsonResponse({"error": error.text}, status=422)
    merged = {n: v for n, v in drafts.changed_since(saved, base_revision).items() if n not in entered}
    return JsonResponse(
        {
            "revision": saved.revision,
            "saved_at": saved.updated_at.isoformat(),
            "merged": merged,
            "checks": render_to_string("reports/_checks.html", {"checks": checks_of(saved), "is_signing": False}),
        }
    )


@require_GET
@may_write_reports
def preview(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show the draft as it will be read."""
    draft = draft_of(request, study_instance_uid)
    return render(request, "reports/_preview.html", {"study": draft.report.study, "part": draft})


@require_GET
@may_write_reports
def checks(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show what was found in the draft, and changed since it was preliminary, to be seen before signing."""
    draft = draft_of(request, study_instance_uid)
    preliminary = draft.preliminary
    context = {
        "checks": checks_of(draft),
        "is_signing": True,
        "preliminary": preliminary,
        "tracked": [one for one in tracked_changes(preliminary, draft) if one.is_changed] if preliminary else [],
    }
    return render(request, "reports/_checks.html", context)


def _credential(request: HttpRequest) -> Credential:
    return Credential(
        password=request.POST.get("password", ""),
        code=request.POST.get("code", "").strip(),
        passkey=request.POST.get("passkey", "")[:20_000],
    )


@sensitive_post_parameters("password", "code", "passkey")
@require_POST
@may_sign_reports
def sign(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Sign the draft, proving once more who signs; the answer is the panel, with the reason if it wasn't signed."""
    return _sign(request, study_instance_uid, signing.sign_part)


@sensitive_post_parameters("password", "code", "passkey")
@require_POST
@may_write_reports
def sign_as_preliminary(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Sign the draft as preliminary, to be co-signed."""
    return _sign(request, study_instance_uid, signing.sign_as_preliminary)


def _sign(request: HttpRequest, study_instance_uid: str, service: Callable[..., Any]) -> HttpResponse:
    draft = draft_of(request, study_instance_uid)
    study = draft.report.study
    if is_other_draft(request, draft):
        return render_panel(request, study, error=DraftIsGone.text)
    try:
        service(
            part=draft,
            principal=principal_of(request),
            credential=_credential(request),
            base_revision=revision_of(request),
            accepted=frozenset(request.POST.getlist("accepted")),
        )
    except ChecksFailed as error:
        return render_panel(request, study, error=error.text, checks=error.checks, is_signing=True)
    except ReportError as error:
        return render_panel(request, study, error=error.text, is_signing=True)
    return render_panel(request, study_of(request, study_instance_uid))


@require_GET
@may_write_reports
def passkey(request: HttpRequest) -> HttpResponse:
    """Give the challenge with which a passkey signs."""
    user = principal_of(request).user
    return JsonResponse(passkey_challenge(user)) if user is not None else HttpResponse(status=404)


@sensitive_post_parameters("password", "code", "passkey")
@require_POST
@may_sign_reports
def retract(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Mark the signed report, or an addendum, as no longer holding."""
    study = written_study_of(request, study_instance_uid)
    ordinal = request.POST.get("ordinal", "")
    part = next((p for p in selectors.signed_parts(study) if str(p.ordinal) == ordinal), None)
    if part is None:
        return render_panel(request, study, error=ReportNotSigned.text)
    try:
        signing.retract_part(
            part=part,
            principal=principal_of(request),
            credential=_credential(request),
            reason=request.POST.get("reason_for", ""),
        )
    except AlreadyRetracted as error:
        return render_panel(request, study, error=error.text)
    except ReportError as error:
        # The form stays open with what was written into it.
        retracting = {"ordinal": part.ordinal, "reason": request.POST.get("reason_for", ""), "error": error.text}
        return render_panel(request, study, retracting=retracting)
    return render_panel(request, study_of(request, study_instance_uid))


@require_POST
@may_write_reports
def take_over(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Make another person's draft one's own; a window that has words to save gets only the new revision."""
    draft = draft_of(request, study_instance_uid)
    principal = principal_of(request)
    try:
        revision = drafts.take_over_draft(part=draft, principal=principal).revision
        claim_study(study=draft.report.study, principal=principal, take_over=True)
    except ReportError as error:
        if request.headers.get("Accept") == "application/json":
            return JsonResponse({"error": error.text}, status=422)
        return render_panel(request, draft.report.study, error=error.text)
    if request.headers.get("Accept") == "application/json":
        return JsonResponse({"revision": revision})
    return _changed(request, draft.report.study)


@require_POST
@may_write_reports
def discard(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Delete one's own draft."""
    return _change(request, draft_of(request, study_instance_uid), drafts.discard_draft)


@require_POST
@may_write_reports
def change_template(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Write the draft with another template; the words go along."""
    chosen = request.POST.get("template", "")
    template_id = int(chosen) if chosen.isdigit() and len(chosen) < 18 else None
    draft = draft_of(request, study_instance_uid)
    return _change(request, draft, drafts.change_template, template_id=template_id)


@require_POST
@may_write_reports
def restore(request: HttpRequest, study_instance_uid: str, pk: int) -> HttpResponse:
    """Bring an earlier version's words back."""
    return _change(request, draft_of(request, study_instance_uid), drafts.restore_version, version_id=pk)


def _change(request: HttpRequest, draft: ReportPart, service: Callable[..., Any], **more: Any) -> HttpResponse:
    try:
        service(part=draft, principal=principal_of(request), **more)
    except ReportError as error:
        return render_panel(request, draft.report.study, error=error.text)
    return _changed(request, draft.report.study)


def _changed(request: HttpRequest, study: Study) -> HttpResponse:
    if not request.headers.get("HX-Request"):
        return redirect("report_desk", study_instance_uid=study.study_instance_uid)
    return render_panel(request, study_of(request, study.study_instance_uid))


@require_GET
@may_write_reports
def history(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """List the versions of the report."""
    study = written_study_of(request, study_instance_uid)
    context = {
        "study": study,
        "versions": selectors.versions_of(study)[:MOST_VERSIONS],
        "cosigned": cosigned_parts(selectors.signed_parts(study)),
    }
    return render(request, "reports/_history.html", context)


@require_GET
@may_write_reports
def version(request: HttpRequest, study_instance_uid: str, pk: int) -> HttpResponse:
    """Show a version and how it differs from the one before."""
    study = written_study_of(request, study_instance_uid)
    shown: ReportVersion | None = selectors.versions_of(study).filter(pk=pk).first()
    if shown is None:
        raise Http404
    before = selectors.version_before(shown)
    draft = selectors.open_draft_of(study)
    user = principal_of(request).user
    titles = ReportPart(kind=shown.part_kind, template=shown.template, sections=shown.sections).section_texts
    context = {
        "study": study,
        "version": shown,
        "before": before,
        "changes": section_changes(before.sections if before else {}, shown.sections, titles),
        "may_restore": draft is not None
        and user is not None
        and draft.author_id == user.pk
        and draft.kind == shown.part_kind,
    }
    return render(request, "reports/_version.html", context)


@require_POST
@may_write_reports
def opened_prior(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Note that an earlier study was opened beside this one; give the sentence to offer as comparison."""
    study = written_study_of(request, study_instance_uid)
    principal = principal_of(request)
    for uid in request.POST.getlist("prior")[:20]:
        try:
            prior = visible_study(principal, uid[:64])
        except Study.DoesNotExist:
            continue
        drafts.note_opened_prior(study=study, prior=prior, principal=principal)
    return JsonResponse({"comparison": selectors.comparison_text(study, principal)})
