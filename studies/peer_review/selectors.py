"""Reads of reviews: a reviewer's own, a signer's results without the reviewer's name, a lead's figures."""

from __future__ import annotations

from typing import Any

from django.db.models import Case, Count, F, Q, QuerySet, When

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.access import sites_where, studies_visible_to
from studies.peer_review.models import CONCLUDED_BY_A_LEAD, PeerReview


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


def result_of(principal: Principal, pk: int) -> PeerReview | None:
    """Give a discrepancy to the signer whose report it is about, or to a lead of its site who may see the study."""
    if principal.user is None:
        return None
    mine = Q(part__signed_by=principal.user) | Q(site__in=sites_led_by(principal))
    given = PeerReview.objects.filter(mine, pk=pk, completed_at__isnull=False)
    given = given.filter(part__report__study__in=studies_visible_to(principal))
    return given.select_related("part__report__study__patient", "part__signed_by", "site", "concluded_by").first()


def to_conclude(principal: Principal) -> QuerySet[PeerReview]:
    """Give the discrepancies that wait for the principal's conclusion as a lead, the oldest first."""
    waiting = PeerReview.objects.filter(
        site__in=sites_led_by(principal),
        part__report__study__in=studies_visible_to(principal),
        score__in=CONCLUDED_BY_A_LEAD,
        concluded_at=None,
    ).exclude(part__signed_by=principal.user)
    return waiting.select_related("part__report__study", "part__signed_by", "site").order_by("completed_at")


def figures(principal: Principal) -> list[dict[str, Any]]:
    """Give for each site that the principal leads and each modality how the scores that stand are spread."""
    counts = {f"score_{score.lower()}": Count("pk", filter=Q(standing=score)) for score in PeerReview.Score.values}
    standing = Case(When(agreed_score="", then=F("score")), default=F("agreed_score"))
    reviews = PeerReview.objects.filter(site__in=sites_led_by(principal)).annotate(standing=standing)
    rows = reviews.values("site__name", "modality").annotate(
        given=Count("pk"), done=Count("pk", filter=Q(completed_at__isnull=False)), **counts
    )
    return [dict(row) for row in rows.order_by("site__name", "modality")]


def sites_led_by(principal: Principal) -> QuerySet[Site]:
    """Give the sites whose figures the principal sees and whose programme they set."""
    return sites_where(principal, Capability.CASE_ASSIGN).filter(is_teaching=False)
