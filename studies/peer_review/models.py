"""The sites' programmes and the reviews themselves."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models

from accounts.models import Site
from studies.reports.models import ReportPart


class Programme(models.Model):
    """How large a share of a site's signed reports is reviewed."""

    site = models.OneToOneField(Site, on_delete=models.CASCADE, related_name="peer_review_programme")
    percent = models.PositiveSmallIntegerField(default=5, validators=[MaxValueValidator(100)])

    def __str__(self) -> str:
        return f"{self.site_id} {self.percent} %"


class PeerReview(models.Model):
    """One signed report for one colleague to score; who signed it stays hidden from them."""

    class Score(models.TextChoices):
        """RADPEER's scores (ACR, 2016): a without, b with likely clinical significance."""

        AGREE = "1", "1 · Concur"
        MINOR = "2a", "2a · Discrepancy that is understandable, unlikely significant"
        MINOR_SIGNIFICANT = "2b", "2b · Discrepancy that is understandable, likely significant"
        MAJOR = "3a", "3a · Discrepancy that should be seen most of the time, unlikely significant"
        MAJOR_SIGNIFICANT = "3b", "3b · Discrepancy that should be seen most of the time, likely significant"

    part = models.ForeignKey(ReportPart, on_delete=models.PROTECT, related_name="peer_reviews")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="peer_reviews")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="peer_reviews")
    modality = models.CharField(max_length=16, blank=True)
    assigned_at = models.DateTimeField(auto_now_add=True)
    score = models.CharField(max_length=2, choices=Score.choices, blank=True)
    comment = models.TextField(blank=True)
    completed_at = models.DateTimeField(null=True)
    seen_by_signer_at = models.DateTimeField(null=True)
    answer = models.TextField(blank=True, help_text="What the signer says to the score.")
    answered_at = models.DateTimeField(null=True)
    agreed_score = models.CharField(
        max_length=2, choices=Score.choices, blank=True, help_text="The score that stands, as the lead concluded."
    )
    conclusion = models.TextField(blank=True, help_text="What follows from it, in the lead's words.")
    concluded_at = models.DateTimeField(null=True)
    concluded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="concluded_peer_reviews"
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["part", "reviewer"], name="peer_review_once")]
        indexes = [
            models.Index(fields=["reviewer"], name="peer_review_open", condition=models.Q(completed_at__isnull=True)),
            models.Index(fields=["site", "completed_at"], name="peer_review_by_site"),
        ]
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"peer review {self.pk}"

    @property
    def is_done(self) -> bool:
        return self.completed_at is not None

    @property
    def is_discrepant(self) -> bool:
        return self.is_done and self.score != self.Score.AGREE

    @property
    def awaits_conclusion(self) -> bool:
        return self.concluded_at is None and self.score in CONCLUDED_BY_A_LEAD


# What is likely significant, or should have been seen, isn't left between two people.
CONCLUDED_BY_A_LEAD = (PeerReview.Score.MINOR_SIGNIFICANT, PeerReview.Score.MAJOR, PeerReview.Score.MAJOR_SIGNIFICANT)
