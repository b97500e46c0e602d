"""Reads of reviews: a reviewer's own, a signer's results without the reviewer's name, a lead's figures."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q, QuerySet

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.access import sites_where, studies_visible_to
from studies.peer_review.models import PeerReview


def reviews_for(principal: Principal) -> QuerySet[PeerReview]:
    """Give the reviews that were given to the principal, on studies that they still see."""
    if principal.user is None or not principal.may(Capability.PEER_REVIEW):
        return PeerReview.objects.none()
    return PeerReview.objects.filter(
        reviewer=principal.user, part__report__study__in=studies_visible_to(principal)
    ).select_related("part__report__study__patient", "site")


def results_of(principal: Principal) -> QuerySet[PeerReview]:
    """Give the scores of the principal's own reports; who gave them isn't for them to know."""
    if principal.user is None:
        return PeerReview.objects.none()
    return (
        PeerReview.objects.filter(part__signed_by=principal.user, completed_at__isnull=False)
        .select_related("part__report__study", "site")
        .defer("reviewer")
        .order_by("-completed_at")
    )


def figures(principal: Principal) -> list[dict[str, Any]]:
    """Give for each site that the principal leads and each modality how the scores are spread."""
    counts = {f"score_{score.lower()}": Count("pk", filter=Q(score=score)) for score in PeerReview.Score.values}
    rows = PeerReview.objects.filter(site__in=sites_led_by(principal)).values("site__name", "modality")
    rows = rows.annotate(given=Count("pk"), done=Count("pk", filter=Q(completed_at__isnull=False)), **counts)
    return [dict(row) for row in rows.order_by("site__name", "modality")]


def sites_led_by(principal: Principal) -> QuerySet[Site]:
    """Give the sites whose figures the principal sees and whose programme they set."""
    return sites_where(principal, Capability.CASE_ASSIGN).filter(is_teaching=False)
