"""Critical results: findings that someone must know of in time."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.models import Practice, Site
from studies.models import Study
from studies.reports.models.report import ReportPart


class CriticalResult(models.Model):
    """A flagged finding, open until someone who answers for the patient has acknowledged it."""

    class Category(models.IntegerChoices):
        """ACR's categories of actionable findings: communicated within minutes, hours, days."""

        MINUTES = 1, "1, minutes"
        HOURS = 2, "2, hours"
        DAYS = 3, "3, days"

    study = models.ForeignKey(Study, on_delete=models.PROTECT, related_name="critical_results")
    part = models.ForeignKey(ReportPart, null=True, on_delete=models.SET_NULL, related_name="critical_results")
    category = models.PositiveSmallIntegerField(choices=Category.choices)
    finding = models.CharField(max_length=500)
    flagged_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="flagged_results")
    flagged_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="By when it must be acknowledged.")
    level = models.PositiveSmallIntegerField(default=0, help_text="How far it has been escalated.")
    escalates_at = models.DateTimeField(null=True, help_text="When the next one is told; empty once closed.")
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="acknowledged_results"
    )
    told_to = models.CharField(max_length=200, blank=True, help_text="Who was told by telephone and read it back.")
    withdrawn_at = models.DateTimeField(null=True)
    withdrawn_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["due_at"],
                name="critical_open_by_due",
                condition=models.Q(acknowledged_at__isnull=True, withdrawn_at__isnull=True),
            ),
            models.Index(
                fields=["escalates_at"], name="critical_by_escalation", condition=models.Q(escalates_at__isnull=False)
            ),
        ]
        ordering = ["due_at"]

    def __str__(self) -> str:
        return f"critical result {self.pk}"

    @property
    def is_open(self) -> bool:
        return self.acknowledged_at is None and self.withdrawn_at is None


class CriticalRecipient(models.Model):
    """Who must know: a person, a practice, or a ward by name; told at the level of escalation."""

    result = models.ForeignKey(CriticalResult, on_delete=models.CASCADE, related_name="recipients")
    level = models.PositiveSmallIntegerField(default=0)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="critical_results"
    )
    practice = models.ForeignKey(Practice, null=True, on_delete=models.PROTECT, related_name="critical_results")
    ward = models.CharField(max_length=120, blank=True, help_text="Told by telephone.")
    notified_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["level", "pk"]
        indexes = [models.Index(fields=["user", "result"], name="critical_recipient_by_user")]

    def __str__(self) -> str:
        return str(self.user or self.practice or self.ward)


class CriticalStep(models.Model):
    """What was done about a critical result, in order."""

    result = models.ForeignKey(CriticalResult, on_delete=models.CASCADE, related_name="steps")
    at = models.DateTimeField(auto_now_add=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    text = models.CharField(max_length=400)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.text


class CriticalPolicy(models.Model):
    """What a site has decided for a category: by when it must be acknowledged, and who is told when it isn't.

    Where there's none, ``critical_policies.DEFAULTS`` holds.
    """

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="critical_policies")
    category = models.PositiveSmallIntegerField(choices=CriticalResult.Category.choices)
    deadline_minutes = models.PositiveIntegerField()
    step_minutes = models.PositiveIntegerField(help_text="Once late, the next ones are told after each such span.")
    levels = models.JSONField(help_text="In order, who is told: groups by name, people by id.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["site", "category"], name="critical_policy_unique")]

    def __str__(self) -> str:
        return f"critical policy of {self.site_id}, category {self.category}"
