"""Reviews to give, one's own results, and the lead's figures."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.peer_review import selectors, services
from studies.peer_review.errors import PeerReviewError
from studies.peer_review.models import PeerReview, Programme
from studies.trail import subject_of

RECENT = 100
may_review = capability_required(Capability.PEER_REVIEW)


@require_GET
@may_review
def peer_reviews(request: HttpRequest) -> HttpResponse:
    """Show what waits for the person's score, and what colleagues thought of their reports."""
    principal = principal_of(request)
    results = list(selectors.results_of(principal)[:RECENT])
    context = {
        "waiting": selectors.reviews_for(principal).filter(completed_at=None)[:RECENT],
        "results": results,
        "may_see_figures": principal.may(Capability.CASE_ASSIGN),
    }
    response = render(request, "peer_review/peer_reviews.html", context)
    if principal.user is not None and any(r.seen_by_signer_at is None for r in results):
        services.mark_seen(user=principal.user)
    return response


@require_http_methods(["GET", "POST"])
@may_review
def peer_review(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a report without its signer beside its images; with POST score it."""
    principal = principal_of(request)
    review = get_object_or_404(selectors.reviews_for(principal), pk=pk)
    study = review.part.report.study
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        **subject_of(study),
        details={"page": "peer review"},
    )
    error = ""
    if request.method == "POST":
        try:
            services.complete_review(
                review=review,
                principal=principal,
                score=request.POST.get("score", ""),
                comment=request.POST.get("comment", ""),
            )
        except PeerReviewError as refused:
            error = str(refused)
        else:
            messages.success(request, _("Your score is kept."))
            return redirect("peer_reviews")
    context = {
        "review": review,
        "study": study,
        "sections": review.part.section_texts,
        "scores": PeerReview.Score.choices,
        "score": request.POST.get("score", review.score),
        "comment": request.POST.get("comment", review.comment),
        "error": error,
    }
    return render(request, "peer_review/peer_review.html", context, status=422 if error else 200)


@require_http_methods(["GET", "POST"])
@capability_required(Capability.PEER_REVIEW, Capability.CASE_ASSIGN)
def peer_review_result(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a score to the report's signer, who may answer it, or to a lead, who concludes; who gave it stays hidden."""
    principal = principal_of(request)
    review = selectors.result_of(principal, pk)
    if review is None:
        raise Http404
    study = review.part.report.study
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        **subject_of(study),
        details={"page": "peer review result"},
    )
    error = ""
    if request.method == "POST":
        try:
            if "conclusion" in request.POST:
                services.conclude_review(
                    review=review,
                    principal=principal,
                    score=request.POST.get("score", ""),
                    conclusion=request.POST["conclusion"],
                )
            else:
                services.answer_review(review=review, principal=principal, answer=request.POST.get("answer", ""))
        except PeerReviewError as refused:
            error = str(refused)
        else:
            messages.success(request, _("Your words are kept."))
            return redirect("peer_review_result", pk=pk)
    is_signer = principal.user is not None and review.part.signed_by_id == principal.user.pk
    if is_signer and review.seen_by_signer_at is None and principal.user is not None:
        services.mark_seen(user=principal.user)
    context = {
        "review": review,
        "study": study,
        "sections": review.part.section_texts,
        "scores": PeerReview.Score.choices,
        "is_signer": is_signer,
        "may_answer": is_signer and review.is_discrepant and review.concluded_at is None,
        "may_conclude": not is_signer and review.awaits_conclusion,
        "typed": request.POST,
        "error": error,
    }
    return render(request, "peer_review/result.html", context, status=422 if error else 200)


@require_GET
@capability_required(Capability.CASE_ASSIGN)
def peer_review_figures(request: HttpRequest) -> HttpResponse:
    """Show how scores are spread at the sites that the person leads, and each site's programme."""
    principal = principal_of(request)
    shares = dict(Programme.objects.values_list("site_id", "percent"))
    sites = [
        {"site": site, "percent": shares.get(site.pk, 0), "reviewers": services.reviewers_of(site).count()}
        for site in selectors.sites_led_by(principal)
    ]
    rows = [
        {**row, "scores": [(score, row[f"score_{score.lower()}"]) for score in PeerReview.Score.values]}
        for row in selectors.figures(principal)
    ]
    context = {
        "rows": rows,
        "sites": sites,
        "scores": PeerReview.Score.choices,
        "to_conclude": selectors.to_conclude(principal)[:RECENT],
    }
    return render(request, "peer_review/figures.html", context)


@require_POST
@capability_required(Capability.CASE_ASSIGN)
def set_programme(request: HttpRequest, pk: int) -> HttpResponse:
    """Set a site's share of reviewed reports."""
    principal = principal_of(request)
    site = get_object_or_404(selectors.sites_led_by(principal), pk=pk)
    percent = request.POST.get("percent", "")
    if percent.isdigit() and len(percent) <= 3:
        services.set_programme(site=site, percent=int(percent), principal=principal)
        messages.success(request, _("The programme is saved."))
    return redirect("peer_review_figures")
