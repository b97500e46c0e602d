"""What the archive builds from instances and keeps."""

from __future__ import annotations

from django.db import models

from studies.models import Series


class SeriesMetadata(models.Model):
    """A series' DICOM JSON metadata, gzipped, valid while ``revision`` is the series' own."""

    series = models.OneToOneField(Series, on_delete=models.CASCADE, primary_key=True, related_name="metadata")
    revision = models.PositiveIntegerField()
    content = models.BinaryField()
    etag = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.series_id} r{self.revision}"
