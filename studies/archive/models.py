"""What the archive builds from instances and keeps."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from studies.models import Series, Study


class Correction(models.Model):
    """One step of correcting a study: which values (DICOM JSON) took the place of which, why, and by whom."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="correction_steps")
    corrected = models.JSONField()
    original = models.JSONField()
    reason = models.CharField(max_length=300, blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.study_id} {self.created_at:%F}"


class SeriesMetadata(models.Model):
    """A series' DICOM JSON metadata, gzipped, valid while ``revision`` is the series' own."""

    series = models.OneToOneField(Series, on_delete=models.CASCADE, primary_key=True, related_name="metadata")
    revision = models.PositiveIntegerField()
    content = models.BinaryField()
    etag = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.series_id} r{self.revision}"
