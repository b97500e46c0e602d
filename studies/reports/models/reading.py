"""Who has read which report, and how much of it."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from studies.reports.models.report import Report


class ReportReading(models.Model):
    """That a person read a report; ``parts_read`` counts its signed parts then, so that an addendum is news again."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="report_readings")
    report = models.ForeignKey(Report, on_delete=models.CASCADE, related_name="readings")
    parts_read = models.PositiveSmallIntegerField()
    read_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "report"], name="report_reading_unique")]

    def __str__(self) -> str:
        return f"{self.user_id} read {self.report_id}"
