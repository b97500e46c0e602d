"""What the report room's views share: who asks, and for which study."""

from __future__ import annotations

from django.http import Http404, HttpRequest

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from studies.access import visible_study
from studies.models import Study
from studies.reports import selectors
from studies.reports.models import ReportPart

may_read_reports = capability_required(Capability.REPORT_READ, Capability.REPORT_WRITE)
may_write_reports = capability_required(Capability.REPORT_WRITE)
may_sign_reports = capability_required(Capability.REPORT_SIGN)
may_manage_templates = capability_required(Capability.REPORT_WRITE, Capability.REPORT_TEMPLATE_MANAGE)
may_manage_accounts = capability_required(Capability.ACCOUNT_MANAGE)


def principal_of(request: HttpRequest) -> Principal:
    """Give who asks."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def study_of(request: HttpRequest, study_instance_uid: str) -> Study:
    """Pass the gate. Raises Http404, also for one who may see the study but not its report."""
    principal = principal_of(request)
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    if not (selectors.may_read(principal, study) or selectors.may_write(principal, study)):
        raise Http404
    return study


def written_study_of(request: HttpRequest, study_instance_uid: str) -> Study:
    """Pass the gate of those who write. Raises Http404."""
    study = study_of(request, study_instance_uid)
    if not selectors.may_write(principal_of(request), study):
        raise Http404
    return study


def draft_of(request: HttpRequest, study_instance_uid: str) -> ReportPart:
    """Give the study's open draft to one who may write it. Raises Http404."""
    draft = selectors.open_draft_of(written_study_of(request, study_instance_uid))
    if draft is None:
        raise Http404
    return draft


def is_other_draft(request: HttpRequest, draft: ReportPart) -> bool:
    """Say whether the window shows another draft than the one now open: revisions of two drafts may be equal."""
    return request.POST.get("part", str(draft.pk)) != str(draft.pk)


def revision_of(request: HttpRequest) -> int:
    """Give the revision that the window knows; -1 when it names none."""
    revision = request.POST.get("revision", "")
    return int(revision) if revision.isdigit() and len(revision) < 10 else -1
