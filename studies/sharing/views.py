"""The discussion beside a study, open consults, and the teaching files' pages."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.access import visible_study
from studies.models import Study
from studies.sharing import discussion as talk
from studies.sharing import selectors, teaching
from studies.sharing.errors import NotAllowed, SharingError
from studies.sharing.forms import TeachingCaseForm
from studies.sharing.models import TeachingCase
from studies.trail import subject_of

PAGE = 100
may_see_studies = capability_required(Capability.STUDY_VIEW)
may_teach = capability_required(Capability.TEACHING_MANAGE)


def _study(request: HttpRequest, study_instance_uid: str) -> Study:
    principal = principal_of(request)
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    if not selectors.may_discuss(principal, study):
        raise Http404
    return study


@require_http_methods(["GET", "POST"])
@may_see_studies
def discussion(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show what colleagues said of the study; with POST say more."""
    study = _study(request, study_instance_uid)
    error, text = "", ""
    if request.method == "POST":
        text = request.POST.get("text", "")
        try:
            talk.post_comment(
                study=study, principal=principal_of(request), text=text, is_consult=bool(request.POST.get("is_consult"))
            )
            text = ""
        except SharingError as refused:
            error = str(refused)
    return _discussion(request, study, error=error, text=text)


def _discussion(request: HttpRequest, study: Study, *, error: str = "", text: str = "") -> HttpResponse:
    user = principal_of(request).user
    comments = list(selectors.thread_of(study))
    context = {
        "study": study,
        "comments": comments,
        "closable": {one.pk for one in comments if user is not None and talk.may_close(one, user)},
        "colleagues": selectors.colleagues_of(study, beside=user),
        "error": error,
        "text": text,
    }
    response = render(request, "sharing/_discussion.html", context, status=422 if error and not request.htmx else 200)  # type: ignore[attr-defined]
    response["Cache-Control"] = "no-store"
    return response


@require_POST
@may_see_studies
def close_consult(request: HttpRequest, study_instance_uid: str, pk: int) -> HttpResponse:
    """Close a request for a second opinion."""
    study = _study(request, study_instance_uid)
    comment = get_object_or_404(selectors.thread_of(study), pk=pk)
    try:
        talk.close_consult(comment=comment, principal=principal_of(request))
    except NotAllowed as error:
        raise Http404 from error
    return _discussion(request, study)


@require_GET
@may_see_studies
def consults(request: HttpRequest) -> HttpResponse:
    """Show the open requests for an opinion: those that ask the person, and their own."""
    principal = principal_of(request)
    found = list(selectors.open_consults(principal)[:PAGE])
    context = {
        "asked": [c for c in found if c.author_id != principal.user.pk],  # type: ignore[union-attr]
        "own": [c for c in found if c.author_id == principal.user.pk],  # type: ignore[union-attr]
    }
    return render(request, "sharing/consults.html", context)


@require_GET
@may_teach
def teaching_files(request: HttpRequest) -> HttpResponse:
    """Show the teaching files, narrowed by words."""
    wanted = request.GET.get("q", "")[:120]
    cases = selectors.teaching_cases(principal_of(request), wanted=wanted)[:PAGE]
    template = "sharing/_teaching_files.html" if request.htmx else "sharing/teaching_files.html"  # type: ignore[attr-defined]
    return render(request, template, {"cases": cases, "q": wanted})


@require_http_methods(["GET", "POST"])
@may_teach
def new_teaching_case(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Make a teaching case of a study."""
    study = _study(request, study_instance_uid)
    if not principal_of(request).may(Capability.TEACHING_MANAGE, study.site_id):
        raise Http404
    form = TeachingCaseForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        case = teaching.request_teaching_case(study=study, principal=principal_of(request), words=form.cleaned_data)
        messages.success(request, _("The de-identified copy is being made."))
        return redirect("teaching_case", pk=case.pk)
    return render(request, "sharing/teaching_form.html", {"form": form, "study": study}, status=_status(form))


@require_GET
@may_teach
def teaching_case(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a teaching case, its words apart from its images until one wants the answer."""
    case = _case(request, pk)
    if case.study is not None:
        record_viewing(
            AuditEvent.Action.VIEW,
            principal=principal_of(request),
            **subject_of(case.study),
            details={"page": "teaching case"},
        )
    context = {"case": case, "is_author": case.author_id == principal_of(request).user.pk}  # type: ignore[union-attr]
    return render(request, "sharing/teaching_case.html", context)


@require_http_methods(["GET", "POST"])
@may_teach
def edit_teaching_case(request: HttpRequest, pk: int) -> HttpResponse:
    """Change what one's own case says."""
    case = _own_case(request, pk)
    form = TeachingCaseForm(request.POST or None, initial={name: getattr(case, name) for name in teaching.FIELDS})
    if request.method == "POST" and form.is_valid():
        teaching.change_teaching_case(case=case, principal=principal_of(request), words=form.cleaned_data)
        return redirect("teaching_case", pk=case.pk)
    return render(request, "sharing/teaching_form.html", {"form": form, "case": case}, status=_status(form))


@require_POST
@may_teach
def delete_teaching_case(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget one's own case."""
    teaching.delete_teaching_case(case=_own_case(request, pk), principal=principal_of(request))
    messages.success(request, _("The teaching case is removed."))
    return redirect("teaching_files")


def _case(request: HttpRequest, pk: int) -> TeachingCase:
    case: TeachingCase = get_object_or_404(selectors.teaching_cases(principal_of(request)), pk=pk)
    return case


def _own_case(request: HttpRequest, pk: int) -> TeachingCase:
    case = _case(request, pk)
    if case.author_id != principal_of(request).user.pk:  # type: ignore[union-attr]
        raise Http404
    return case


def _status(form: Any) -> int:
    return 422 if form.errors else 200
