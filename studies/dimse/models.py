"""The nodes of the DICOM network."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models

from accounts.models import Site


class Node(models.Model):
    """A DICOM application that may talk to us, and what it may do."""

    ae_title = models.CharField(
        max_length=16, unique=True, validators=[RegexValidator(r"^[\x20-\x5b\x5d-\x7e]{1,16}$", "1 to 16 characters.")]
    )
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="nodes")
    description = models.CharField(max_length=120, blank=True)
    host = models.CharField(max_length=255, blank=True)
    port = models.PositiveIntegerField(null=True, blank=True)
    may_store = models.BooleanField(default=True)
    may_query = models.BooleanField(default=False)
    may_retrieve = models.BooleanField(default=False)
    may_worklist = models.BooleanField(default=False, help_text="Modality worklist and performed procedure steps.")
    allowed_addresses = models.JSONField(default=list, blank=True, help_text="Networks in CIDR form; empty: any.")
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ["ae_title"]

    def __str__(self) -> str:
        return self.ae_title
