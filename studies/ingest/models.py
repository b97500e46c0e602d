"""Refused files, kept."""

from __future__ import annotations

from django.db import models

from accounts.models import Site


class QuarantinedFile(models.Model):
    """A file that could not be archived: its bytes lie in the quarantine storage until a person decides."""

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="quarantined_files")
    object_key = models.CharField(max_length=200)
    sha256 = models.BinaryField(max_length=32)
    size = models.BigIntegerField()
    reason = models.CharField(max_length=300)
    file_name = models.CharField(max_length=300, blank=True)
    received_by = models.CharField(max_length=20, help_text="The way in: dimse, stow, upload, import.")
    received_from = models.CharField(max_length=170, help_text="User name or AE title.")
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["site", "-received_at"], name="quarantine_by_arrival")]

    def __str__(self) -> str:
        return f"{self.file_name} {self.reason}"
