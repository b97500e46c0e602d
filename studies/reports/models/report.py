"""A study's report: signed parts that never change, at most one open draft, and every version of it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models

from studies.models import Study
from studies.reports.models.template import ReportTemplate
from studies.reports.outline import ADDENDUM, GENERIC, Outline, SectionText


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
    template = models.ForeignKey(
        ReportTemplate, null=True, on_delete=models.PROTECT, related_name="parts", help_text="Empty: the plain outline."
    )
    values = models.JSONField(default=dict, help_text="Field id to what was entered.")
    sections = models.JSONField(default=dict, help_text="Section id to plain text, put together from the values.")
    value_revisions = models.JSONField(default=dict, help_text="Field id to the revision that last changed it.")
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
    verification_code = models.CharField(max_length=32, blank=True, help_text="Of the page that verifies a print.")
    sop_instance_uid = models.CharField(max_length=64, blank=True, help_text="Of the Encapsulated PDF once archived.")
    sr_instance_uid = models.CharField(max_length=64, blank=True, help_text="Of the structured report once archived.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["report", "ordinal"], name="report_part_ordinal_unique"),
            models.UniqueConstraint(
                fields=["report"], condition=models.Q(signed_at__isnull=True), name="report_one_open_draft"
            ),
            models.UniqueConstraint(
                fields=["verification_code"],
                condition=~models.Q(verification_code=""),
                name="report_part_verification_unique",
            ),
        ]
        ordering = ["ordinal"]

    def __str__(self) -> str:
        return f"{self.kind} {self.ordinal}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; of a signed part only the UIDs of its documents, as the database's trigger would refuse the rest."""
        if self._loaded_signed and not set(kwargs.get("update_fields") or ["all"]) <= _KNOWN_LATER:
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
    def is_retracted(self) -> bool:
        return hasattr(self, "retraction")

    @property
    def outline(self) -> Outline:
        if self.kind == self.Kind.ADDENDUM:
            return ADDENDUM
        return Outline.of(self.template.content) if self.template is not None else GENERIC

    @property
    def section_texts(self) -> list[SectionText]:
        """Give the sections that have text, in the outline's order, with their titles."""
        return self.outline.section_texts(self.sections)

    @property
    def preliminary(self) -> PreliminarySignature | None:
        """Give the latest preliminary signature."""
        return self.preliminary_signatures.order_by("-pk").first()


_KNOWN_LATER = {"sop_instance_uid", "sr_instance_uid"}


class PreliminarySignature(models.Model):
    """A draft as its writer signed it before the one who answers for it did; it never changes."""

    part = models.ForeignKey(ReportPart, on_delete=models.PROTECT, related_name="preliminary_signatures")
    revision = models.PositiveIntegerField()
    template = models.ForeignKey(ReportTemplate, null=True, on_delete=models.PROTECT, related_name="+")
    values = models.JSONField()
    sections = models.JSONField()
    signed_at = models.DateTimeField()
    signed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    signer_name = models.CharField(max_length=300)
    canonical_text = models.TextField()
    sha256 = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"preliminary {self.pk}"

    @property
    def section_texts(self) -> list[SectionText]:
        outline = Outline.of(self.template.content) if self.template is not None else self.part.outline
        return outline.section_texts(self.sections)


class Retraction(models.Model):
    """That a signed part no longer holds, and why; its text stays."""

    part = models.OneToOneField(ReportPart, on_delete=models.PROTECT, related_name="retraction")
    reason = models.CharField(max_length=300)
    retracted_at = models.DateTimeField()
    retracted_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    retracter_name = models.CharField(max_length=300)
    sop_instance_uid = models.CharField(max_length=64, blank=True, help_text="Of the marked PDF once archived.")
    sr_instance_uid = models.CharField(max_length=64, blank=True, help_text="Of the marked SR once archived.")

    def __str__(self) -> str:
        return f"retraction of {self.part_id}"


class ReportVersion(models.Model):
    """A draft as it was saved; saves of one person within a few minutes share a version. Kept after a discard too."""

    class Kind(models.TextChoices):
        SAVED = "saved", "Saved"
        TAKEN_OVER = "taken_over", "Taken over"
        TEMPLATE = "template", "Template changed"
        RESTORED = "restored", "Restored"
        DISCARDED = "discarded", "Discarded"
        PRELIMINARY = "preliminary", "Signed as preliminary"
        SIGNED = "signed", "Signed"

    report = models.ForeignKey(Report, on_delete=models.PROTECT, related_name="versions")
    ordinal = models.PositiveSmallIntegerField(help_text="Of the part.")
    part_kind = models.CharField(max_length=8, choices=ReportPart.Kind.choices)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    revision = models.PositiveIntegerField()
    template = models.ForeignKey(ReportTemplate, null=True, on_delete=models.PROTECT, related_name="+")
    values = models.JSONField(default=dict)
    sections = models.JSONField(default=dict)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    began_at = models.DateTimeField()
    saved_at = models.DateTimeField()

    class Meta:
        ordering = ["pk"]
        indexes = [models.Index(fields=["report", "ordinal", "id"], name="report_version_in_order")]

    def __str__(self) -> str:
        return f"{self.kind} {self.revision}"


class OpenedPrior(models.Model):
    """That a person opened an earlier study beside this one; offered as the report's comparison."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="opened_priors")
    prior = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    opened_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["study", "prior", "user"], name="opened_prior_unique")]

    def __str__(self) -> str:
        return f"{self.study_id} beside {self.prior_id}"
