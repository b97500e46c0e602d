"""One case: the study page, the next one, and whose it is."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, program_capability_required
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies import reading
from studies.access import visible_study
from studies.archive.objects import has_cold_tier
from studies.archive.tiers import open_move_of
from studies.errors import ClaimHeldByOther, NotAllowed
from studies.models import Priority, Study
from studies.orders.acquisition import acquisition_of
from studies.orders.selectors import order_of
from studies.trail import subject_of
from studies.worklists import selectors
from studies.worklists.ages import age
from studies.worklists.sorting import sorting
from studies.worklists.views import asked, may_see_studies, principal_of, private

may_write_reports = capability_required(Capability.REPORT_WRITE)
# Without a sort of one's own the most urgent comes first, then the one that waits longest.
BY_URGENCY = "priority,date"
UPCOMING = 3
# Cases that «Next case» left untouched, in the session: row ids and when. They would be found first again.
PASSED_OVER = "passed_over"
PASSED_OVER_SECONDS = 1800
MOST_PASSED_OVER = 100


def visible(principal: Principal, study_instance_uid: str) -> Study:
    """Give the study, or 404 alike for one that isn't there and one that isn't theirs."""
    try:
        return visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error


@require_GET
@may_see_studies
def study(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show a study: report beside images."""
    principal = principal_of(request)
    shown = visible(principal, study_instance_uid)
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        **subject_of(shown),
        details={"page": "study"},
    )
    reads_reports = principal.may(Capability.REPORT_READ, shown.site_id) or principal.may(
        Capability.REPORT_WRITE, shown.site_id
    )
    list_query = _list_query(request.GET)
    context: dict[str, Any] = {
        "study": shown,
        "age": age(shown.patient.patient_birth_date, shown.study_date),
        "series": shown.series.filter(number_of_instances__gt=0).order_by("series_number", "pk"),
        "priors": selectors.priors(principal, shown),
        "reads_reports": reads_reports,
        "order": order_of(shown) if principal.may(Capability.STUDY_VIEW, shown.site_id) else None,
        "timeline": shown.status_changes.select_related("user"),
        "list_query": list_query,
        "may_teach": principal.may(Capability.TEACHING_MANAGE, shown.site_id),
        "may_reject": principal.may(Capability.STUDY_REJECT, shown.site_id),
        "may_correct": principal.may(Capability.STUDY_CORRECT, shown.site_id),
        "may_send": principal.may(Capability.STUDY_SEND, shown.site_id),
        "may_store": principal.may(Capability.STORAGE_MANAGE, shown.site_id),
        "has_tiers": has_cold_tier(),
        "tier_move": open_move_of(shown) if has_cold_tier() else None,
        **_claim_context(principal, shown),
    }
    return private(render(request, "worklists/study.html", context))


def _list_query(data: QueryDict) -> str:
    """Give the query of the list that the case was opened from; a name or ID typed there isn't carried on."""
    query = QueryDict(data.get("list", "")[:1000], mutable=True)
    for name in ("q", "accession_number", "after", "ids"):
        query.pop(name, None)
    return query.urlencode()


def _claim_context(principal: Principal, study: Study) -> dict[str, Any]:
    may_assign = principal.may(Capability.CASE_ASSIGN, study.site_id)
    may_write = principal.may(Capability.REPORT_WRITE, study.site_id)
    claim = reading.claim_of(study)
    return {
        "study": study,
        "acquisition": acquisition_of(study),
        "may_write": may_write,
        "may_assign": may_assign,
        "may_prioritise": may_assign or principal.may(Capability.ORDER_MANAGE, study.site_id),
        "is_staff": principal.may(Capability.STUDY_VIEW, study.site_id),
        "claim": claim,
        "is_mine": claim is not None and principal.user is not None and claim.holder.pk == principal.user.pk,
        "is_open": study.status in reading.UNFINISHED_STATUSES,
        "readers": selectors.readers_at([study.site_id]) if may_assign else [],
        "priorities": Priority.choices,
        "me": principal.user,
    }


@require_POST
@may_write_reports
def next_case(request: HttpRequest) -> HttpResponse:
    """Claim and open the list's next case that nobody else holds; give the one beside back, untouched or done.

    A page that stays for the next case asks for JSON and is told where that is.
    """
    principal = principal_of(request)
    query = QueryDict(request.POST.get("query", "")[:1000])
    beside = visible(principal, request.POST["beside"][:64]) if request.POST.get("beside") else None
    for candidate in _waiting(request, query, beside):
        try:
            reading.claim_study(study=candidate, principal=principal)
        except ClaimHeldByOther:
            continue
        if beside is not None and beside.status not in {Study.Status.IN_READING, Study.Status.PRELIMINARY}:
            _release(beside, principal)
        if beside is not None and beside.status == Study.Status.ARRIVED:
            _pass_over(request, beside)
        return _go_on(request, _case_url(candidate, query))
    messages.info(request, _("No unread case is left in this list."))
    return _go_on(request, f"{reverse('worklist')}?{query.urlencode()}")


def _go_on(request: HttpRequest, address: str) -> HttpResponse:
    if request.headers.get("Accept") == "application/json":
        return private(JsonResponse({"address": address}))
    return redirect(address)


def _release(study: Study, principal: Principal) -> None:
    try:
        reading.release_study(study=study, principal=principal)
    except NotAllowed:
        return


def _pass_over(request: HttpRequest, study: Study) -> None:
    """Keep in the session that the case was left untouched: the next key asks for others first."""
    kept = [one for one in request.session.get(PASSED_OVER, []) if one[0] != study.pk]
    request.session[PASSED_OVER] = [*kept, [study.pk, timezone.now().timestamp()]][-MOST_PASSED_OVER:]


def _waiting(request: HttpRequest, query: QueryDict, beside: Study | None) -> list[Study]:
    """Give the list's cases that may be taken next, those lately passed over after all others."""
    principal = principal_of(request)
    earliest = timezone.now().timestamp() - PASSED_OVER_SECONDS
    passed_over = [pk for pk, at in request.session.get(PASSED_OVER, []) if at > earliest]
    preference = selectors.preference_of(principal.user)
    _form, criteria, _order = asked(query, principal, preference)
    order = sorting(query.get("sort") or preference.sort or BY_URGENCY)
    return list(selectors.waiting(principal, criteria, order, beside=beside, passed_over=passed_over))


def _case_url(study: Study, query: QueryDict) -> str:
    listed = _list_query(QueryDict(urlencode({"list": query.urlencode()})))
    address = reverse("study", kwargs={"study_instance_uid": study.study_instance_uid})
    return f"{address}?{urlencode({'list': listed})}" if listed else address


@require_GET
@program_capability_required(Capability.REPORT_WRITE)
def upcoming(request: HttpRequest) -> HttpResponse:
    """Give the Study Instance UIDs that «Next case» would open, so that a viewer can fetch their images ahead."""
    principal = principal_of(request)
    query = QueryDict(request.GET.get("list", "")[:1000])
    beside = visible(principal, request.GET["beside"][:64]) if request.GET.get("beside") else None
    found = _waiting(request, query, beside)[:UPCOMING]
    return private(JsonResponse({"studies": [one.study_instance_uid for one in found]}))


@require_http_methods(["GET", "POST"])
@may_see_studies
def claim(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show who holds the case; by POST claim it, renew one's claim, or with ``take_over`` take it from another."""
    principal = principal_of(request)
    shown = visible(principal, study_instance_uid)
    if request.method == "POST":
        try:
            reading.claim_study(study=shown, principal=principal, take_over="take_over" in request.POST)
        except NotAllowed:
            return HttpResponse(status=403)
        except ClaimHeldByOther:
            return _claim(request, principal, shown, status=409)
    return _claim(request, principal, shown)


@require_POST
@may_write_reports
def release(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Give the case back."""
    principal = principal_of(request)
    shown = visible(principal, study_instance_uid)
    try:
        reading.release_study(study=shown, principal=principal)
    except NotAllowed:
        return HttpResponse(status=403)
    return _claim(request, principal, shown)


@require_POST
@may_see_studies
def assign(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Make the case a reader's, or nobody's."""
    principal = principal_of(request)
    shown = visible(principal, study_instance_uid)
    choice = request.POST.get("reader", "")
    reader: User | None = principal.user if choice == "me" else None
    if choice.isdigit() and len(choice) < 19:
        reader = selectors.readers_at([shown.site_id]).filter(pk=choice).first()
        if reader is None:
            return HttpResponse(status=422)
    try:
        reading.assign_study(study=shown, reader=reader, principal=principal)
    except NotAllowed:
        return HttpResponse(status=403)
    return _claim(request, principal, visible(principal, study_instance_uid))


@require_POST
@may_see_studies
def priority(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Say how soon the case is wanted."""
    principal = principal_of(request)
    shown = visible(principal, study_instance_uid)
    try:
        reading.set_priority(study=shown, priority=request.POST.get("priority", ""), principal=principal)
    except NotAllowed:
        return HttpResponse(status=403)
    except ValueError:
        return HttpResponse(status=422)
    return _claim(request, principal, visible(principal, study_instance_uid))


def _claim(request: HttpRequest, principal: Principal, study: Study, *, status: int = 200) -> HttpResponse:
    context = _claim_context(principal, study)
    return private(render(request, "worklists/_claim.html", context, status=status))
