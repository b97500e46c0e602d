"""Rejecting images by hand, and taking rejections back."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Max, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.access import sites_where, studies_visible_to, visible_study
from studies.archive.errors import NotAuthorised
from studies.archive.models import Rejection
from studies.archive.rejection import Reason, restore_instances
from studies.ingest.rejection import reject_instances
from studies.models import Instance, Series, Study
from studies.trail import subject_of

PAGE = 50
may_reject = capability_required(Capability.STUDY_REJECT)
# Why, and what that means when the images are sent again.
REASONS = {
    Reason.QUALITY: (
        gettext_lazy("Quality"),
        gettext_lazy("Blurred, cut off, repeated. Sent again, they stay hidden."),
    ),
    Reason.PATIENT_SAFETY: (
        gettext_lazy("Patient safety"),
        gettext_lazy("Dangerous to read: wrong patient, wrong side. Sent again, they are refused."),
    ),
    Reason.WRONG_WORKLIST_ENTRY: (
        gettext_lazy("Wrong worklist entry"),
        gettext_lazy("Taken under another order. Sent again, they are refused."),
    ),
    Reason.RETENTION_EXPIRED: (
        gettext_lazy("Retention expired"),
        gettext_lazy("Kept long enough. Sent again, they are shown again."),
    ),
}


def _study(principal: Principal, study_instance_uid: str) -> Study:
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    if not principal.may(Capability.STUDY_REJECT, study.site_id):
        raise Http404
    return study


@require_http_methods(["GET", "HEAD", "POST"])
@may_reject
def reject(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Choose series or images of a study and why they are rejected; reject them."""
    principal = principal_of(request)
    study = _study(principal, study_instance_uid)
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        **subject_of(study),
        details={"page": "reject"},
    )
    error = ""
    if request.method == "POST":
        error = _reject(request, study)
        if not error:
            return redirect("rejected")
    context = {
        "study": study,
        "series": _choices(study),
        "reasons": [(code, *texts) for code, texts in REASONS.items()],
        "chosen_series": _ids(request.POST.getlist("series")),
        "chosen_instances": _ids(request.POST.getlist("instance")),
        "reason": request.POST.get("reason", ""),
        "error": error,
    }
    response = render(request, "worklists/reject.html", context, status=422 if error else 200)
    response["Cache-Control"] = "no-store"
    return response


def _choices(study: Study) -> list[dict[str, Any]]:
    """Give the study's series that hold something, each with its current instances."""
    instances: dict[int, list[Instance]] = defaultdict(list)
    rows = Instance.objects.filter(series__study=study, is_current=True).only(
        "pk", "series_id", "instance_number", "number_of_frames", "sop_instance_uid"
    )
    for instance in rows.order_by("series_id", "instance_number", "pk"):
        instances[instance.series_id].append(instance)
    all_series = Series.objects.filter(study=study, number_of_instances__gt=0).order_by("series_number", "pk")
    return [{"series": series, "instances": instances[series.pk]} for series in all_series]


def _ids(texts: list[str]) -> list[int]:
    return [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 19]


def _reject(request: HttpRequest, study: Study) -> str:
    """Reject what was chosen; give what is wrong with the choice, if anything is."""
    series, chosen = (_ids(request.POST.getlist(name)) for name in ("series", "instance"))
    instances = Instance.objects.filter(
        Q(series_id__in=series) | Q(pk__in=chosen), series__study=study, is_current=True
    )
    if request.POST.get("reason") not in list(Reason):
        return _("Choose why.")
    count = instances.count()
    if not count:
        return _("Choose at least one series or image.")
    reason = Reason(request.POST["reason"])
    try:
        outcome = reject_instances(study=study, instances=instances, reason=reason, principal=principal_of(request))
    except NotAuthorised as error:
        raise Http404 from error
    if outcome is None or not outcome.is_in:
        return _("The archive couldn't take the rejection. Try again in a moment.")
    messages.success(
        request, ngettext("%(count)d image rejected.", "%(count)d images rejected.", count) % {"count": count}
    )
    return ""


@require_GET
@may_reject
def rejected(request: HttpRequest) -> HttpResponse:
    """List what is rejected, note by note, the newest first."""
    principal = principal_of(request)
    sites = sites_where(principal, Capability.STUDY_REJECT)
    groups = (
        Rejection.objects.filter(site__in=sites, lifted_at__isnull=True)
        .values("site_id", "study_instance_uid", "note_sop_instance_uid", "code", "rejected_by")
        .annotate(count=Count("pk"), at=Max("rejected_at"), last=Max("pk"))
        .order_by("-last")
    )
    page = Paginator(groups, PAGE).get_page(request.GET.get("page"))
    uids = {group["study_instance_uid"] for group in page.object_list}
    studies = {
        (study.site_id, study.study_instance_uid): study
        for study in studies_visible_to(principal)
        .filter(study_instance_uid__in=uids, site__in=sites)
        .select_related("site")
    }
    rows = [
        {
            **group,
            "study": studies.get((group["site_id"], group["study_instance_uid"])),
            "reason": _reason(group["code"]),
        }
        for group in page.object_list
    ]
    response = render(request, "worklists/rejected.html", {"rows": rows, "page": page})
    response["Cache-Control"] = "no-store"
    return response


def _reason(code: str) -> str:
    return str(REASONS[Reason(code)][0]) if code in list(Reason) else code


@require_POST
@may_reject
def restore(request: HttpRequest) -> HttpResponse:
    """Take back what one note rejected in one study."""
    principal = principal_of(request)
    study = studies_visible_to(principal).filter(pk__in=_ids([request.POST.get("study", "")])).first()
    if study is None:
        raise Http404
    uids = Rejection.objects.filter(
        site_id=study.site_id,
        study_instance_uid=study.study_instance_uid,
        note_sop_instance_uid=request.POST.get("note", "")[:64],
        lifted_at__isnull=True,
    ).values_list("sop_instance_uid", flat=True)
    try:
        count = restore_instances(study=study, sop_instance_uids=list(uids), principal=principal)
    except NotAuthorised as error:
        raise Http404 from error
    messages.success(
        request,
        ngettext("%(count)d image is seen again.", "%(count)d images are seen again.", count) % {"count": count},
    )
    return redirect("rejected")
