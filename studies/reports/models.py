"""A study's report: signed parts that never change, and at most one open draft."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models

from studies.models import Study

SECTIONS = ("indication", "technique", "comparison", "findings", "impression")
ADDENDUM_SECTIONS = ("reason", "findings", "impression")


class SignedPartIsFrozen(RuntimeError):
    """Something tried to change or delete a signed part."""


class Report(models.Model):
    """The report on one study."""

    study = models.OneToOneField(Study, on_delete=models.PROTECT, related_name="report")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"report {self.pk}"


class ReportPart(models.Model):
    """The report proper or an addendum to it; a draft until signed, frozen ever after."""

    _loaded_signed = False

    class Kind(models.TextChoices):
        REPORT = "report", "Report"
        ADDENDUM = "addendum", "Addendum"

    report = models.ForeignKey(Report, on_delete=models.PROTECT, related_name="parts")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    ordinal = models.PositiveSmallIntegerField(help_text="1 for the report, from 2 for addenda.")
    sections = models.JSONField(default=dict, help_text="Section name to plain text.")
    revision = models.PositiveIntegerField(default=0, help_text="Counts saves, so that two windows notice each other.")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="report_parts")
    updated_at = models.DateTimeField(auto_now=True)
    signed_at = models.DateTimeField(null=True)
    signed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="signed_report_parts"
    )
    signer_name = models.CharField(max_length=300, blank=True, help_text="As it was on signing.")
    canonical_text = models.TextField(blank=True, help_text="Exactly what was signed.")
    sha256 = models.CharField(max_length=64, blank=True, help_text="Of the canonical text in UTF-8, hexadecimal.")
    sop_instance_uid = models.CharField(max_length=64, blank=True, help_text="Of the Encapsulated PDF once archived.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["report", "ordinal"], name="report_part_ordinal_unique"),
            models.UniqueConstraint(
                fields=["report"], condition=models.Q(signed_at__isnull=True), name="report_one_open_draft"
            ),
        ]
        ordering = ["ordinal"]

    def __str__(self) -> str:
        return f"{self.kind} {self.ordinal}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; of a signed part only the UID of its document, as the database's trigger would refuse the rest."""
        if self._loaded_signed and kwargs.get("update_fields") != ["sop_instance_uid"]:
            raise SignedPartIsFrozen
        super().save(*args, **kwargs)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> ReportPart:
        part = super().from_db(*args, **kwargs)
        part._loaded_signed = "signed_at" in part.__dict__ and part.is_signed
        return part

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        if self.is_signed:
            raise SignedPartIsFrozen
        return super().delete(*args, **kwargs)

    @property
    def is_signed(self) -> bool:
        return self.signed_at is not None

    @property
    def section_names(self) -> tuple[str, ...]:
        return SECTIONS if self.kind == self.Kind.REPORT else ADDENDUM_SECTIONS
