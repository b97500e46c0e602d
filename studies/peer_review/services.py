"""Every write on reviews."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.capabilities import Capability
from accounts.models import Membership, Site, User
from accounts.notifications import mark_key_read, notify
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from portal.templatetags.portal_tags import shown_modalities
from studies.models import Study
from studies.peer_review.errors import CommentMissing, NotYours
from studies.peer_review.models import PeerReview, Programme
from studies.reports.critical_policies import holders
from studies.reports.drafts import cleaned_text
from studies.reports.models import ReportPart, ReportVersion
from studies.trail import subject_of

LOOK_BACK = timedelta(days=3)
LONGEST_COMMENT = 4000


def sample() -> int:
    """Give colleagues the share of lately signed reports that each site's programme asks for; give how many were given.

    Whether a report is drawn follows from a keyed hash, so that running twice draws nothing more and nobody can tell
    beforehand.
    """
    given = 0
    for programme in Programme.objects.filter(percent__gt=0).select_related("site"):
        parts = ReportPart.objects.filter(
            report__study__site=programme.site,
            kind=ReportPart.Kind.REPORT,
            signed_at__gte=timezone.now() - LOOK_BACK,
            retraction=None,
            peer_reviews=None,
        ).select_related("report__study")
        for part in parts:
            if _is_drawn(part, programme.percent):
                given += _give(part, programme.site)
    return given


def _is_drawn(part: ReportPart, percent: int) -> bool:
    digest = hmac.new(settings.SECRET_KEY.encode(), f"peer review {part.pk}".encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:4], "big") % 100 < percent


@transaction.atomic
def _give(part: ReportPart, site: Site) -> bool:
    reviewer = _reviewer_for(part, site)
    if reviewer is None:
        return False
    modality = (shown_modalities(part.report.study.modalities) or [""])[0]
    review = PeerReview.objects.create(part=part, site=site, reviewer=reviewer, modality=modality)
    notify([reviewer], key=f"peer-review:{review.pk}", text=_("A report waits for your review"), url=_path(review))
    return True


def _reviewer_for(part: ReportPart, site: Site) -> User | None:
    """Give the colleague with the fewest open reviews who had no hand in the report, not even in a version of it."""
    return (
        reviewers_of(site)
        .exclude(pk__in=[pk for pk in (part.signed_by_id, part.author_id) if pk])
        .exclude(pk__in=ReportVersion.objects.filter(report=part.report_id).values("author"))
        .annotate(waiting=Count("peer_reviews", filter=Q(peer_reviews__completed_at=None)))
        .order_by("waiting", "pk")
        .first()
    )


def reviewers_of(site: Site) -> QuerySet[User]:
    """Give the people who score reports of the site."""
    capable = [
        pk
        for pk, capabilities in Membership.objects.values_list("role_id", "role__capabilities").distinct()
        if Capability.PEER_REVIEW.value in capabilities
    ]
    members = Membership.objects.filter(Q(site=site) | Q(site=None), role__in=capable).values("user")
    return User.objects.filter(pk__in=members, is_active=True)


@transaction.atomic
def complete_review(*, review: PeerReview, principal: Principal, score: str, comment: str) -> PeerReview:
    """Score a report. Raises NotYours, CommentMissing for a discrepancy without a word on it."""
    review = _locked(review)
    if principal.user is None or review.reviewer_id != principal.user.pk or review.is_done:
        raise NotYours(_("This review isn't yours to give, or was given."))
    comment = cleaned_text(comment[:LONGEST_COMMENT]).strip()
    if score not in PeerReview.Score.values:
        raise CommentMissing(_("Choose a score."))
    if score != PeerReview.Score.AGREE and not comment:
        raise CommentMissing(_("Say in a word what you see differently."))
    review.score, review.comment, review.completed_at = score, comment, timezone.now()
    review.save(update_fields=["score", "comment", "completed_at"])
    _record(principal, review.part.report.study, "peer review given", score=score)
    if score != PeerReview.Score.AGREE and review.part.signed_by is not None:
        text = _("A colleague sees one of your reports differently")
        notify([review.part.signed_by], key=f"peer-review-result:{review.pk}", text=text, url=_result_path(review))
    if review.awaits_conclusion:
        leads = [one for one in holders(review.site_id, Capability.CASE_ASSIGN) if one != review.part.signed_by]
        text = _("A discrepancy between two readers waits for your conclusion")
        notify(leads, key=f"peer-review-lead:{review.pk}", text=text, url=_result_path(review))
    return review


@transaction.atomic
def answer_review(*, review: PeerReview, principal: Principal, answer: str) -> PeerReview:
    """Keep what the signer says to a score; until a lead has concluded they may say it better.

    Raises NotYours, CommentMissing.
    """
    review = _locked(review)
    is_signer = principal.user is not None and review.part.signed_by_id == principal.user.pk
    if not is_signer or not review.is_discrepant or review.concluded_at is not None:
        raise NotYours(_("This score isn't yours to answer, or was concluded."))
    answer = cleaned_text(answer[:LONGEST_COMMENT]).strip()
    if not answer:
        raise CommentMissing(_("Say in a word how you see it."))
    review.answer, review.answered_at = answer, timezone.now()
    review.save(update_fields=["answer", "answered_at"])
    _record(principal, review.part.report.study, "peer review answered")
    return review


@transaction.atomic
def conclude_review(*, review: PeerReview, principal: Principal, score: str, conclusion: str) -> PeerReview:
    """Say as a lead of the site which score stands and what follows; the signer is told.

    Raises NotYours, also for one's own report, CommentMissing.
    """
    review = _locked(review)
    user = principal.user
    is_lead = user is not None and principal.may(Capability.CASE_ASSIGN, review.site_id)
    if user is None or not is_lead or review.part.signed_by_id == user.pk or not review.awaits_conclusion:
        raise NotYours(_("This review isn't yours to conclude, or was concluded."))
    conclusion = cleaned_text(conclusion[:LONGEST_COMMENT]).strip()
    if score not in PeerReview.Score.values:
        raise CommentMissing(_("Choose the score that stands."))
    if not conclusion:
        raise CommentMissing(_("Say in a word what follows from it."))
    review.agreed_score, review.conclusion = score, conclusion
    review.concluded_at, review.concluded_by = timezone.now(), user
    review.save(update_fields=["agreed_score", "conclusion", "concluded_at", "concluded_by"])
    mark_key_read(key=f"peer-review-lead:{review.pk}")
    if review.part.signed_by is not None:
        text = _("A review of one of your reports is concluded")
        notify([review.part.signed_by], key=f"peer-review-concluded:{review.pk}", text=text, url=_result_path(review))
    _record(principal, review.part.report.study, "peer review concluded", score=score)
    return review


def _locked(review: PeerReview) -> PeerReview:
    related = ("part__report__study", "part__signed_by")
    return PeerReview.objects.select_for_update(of=("self",)).select_related(*related).get(pk=review.pk)


def _path(review: PeerReview) -> str:
    return reverse("peer_review", args=[review.pk])


def _result_path(review: PeerReview) -> str:
    return reverse("peer_review_result", args=[review.pk])


@transaction.atomic
def mark_seen(*, user: User) -> None:
    """Remember that the signer saw the scores of their reports."""
    PeerReview.objects.filter(part__signed_by=user, completed_at__isnull=False, seen_by_signer_at=None).update(
        seen_by_signer_at=timezone.now()
    )


@transaction.atomic
def set_programme(*, site: Site, percent: int, principal: Principal) -> Programme:
    """Set how large a share of the site's reports is reviewed, from 0 to 100 percent."""
    programme, _created = Programme.objects.update_or_create(site=site, defaults={"percent": min(max(percent, 0), 100)})
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=site.pk,
        details={"what": "peer review programme", "percent": programme.percent},
    )
    # The daily draw would leave whoever set the share in doubt for a day.
    transaction.on_commit(lambda: current_app.send_task("studies.peer_review.tasks.sample"), robust=True)
    return programme


def _record(principal: Principal, study: Study, step: str, **details: str) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details={"what": step, **details},
    )
