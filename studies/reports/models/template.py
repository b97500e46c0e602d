"""What reports are written with: templates in versions, macros, and a person's own spellings."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from accounts.models import Site


class ReportTemplate(models.Model):
    """One version of a template. A version never changes: reports point at the one they were written with."""

    family = models.UUIDField(default=uuid.uuid4, help_text="The same for all versions of a template.")
    version = models.PositiveIntegerField(default=1)
    is_current = models.BooleanField(default=True, help_text="The family's newest version, unless retired.")
    slug = models.SlugField(max_length=60, blank=True, help_text="Of a template that Atrium brings.")
    name = models.CharField(max_length=120)
    description = models.CharField(max_length=500, blank=True)
    language = models.CharField(max_length=16, default="en", help_text="RFC 5646.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.CASCADE,
        related_name="report_templates",
        help_text="Whose own it is; empty: shared.",
    )
    site = models.ForeignKey(
        Site, null=True, on_delete=models.CASCADE, related_name="report_templates", help_text="Empty: every site."
    )
    modalities = models.JSONField(default=list, help_text="Of which the study has one; empty: any.")
    body_parts = models.JSONField(default=list, help_text="Body Part Examined, of which one fits.")
    procedure_codes = models.JSONField(default=list, help_text="Of requested procedures: value, scheme, meaning.")
    keywords = models.JSONField(default=list, help_text="Words of the study's or procedure's description.")
    content = models.JSONField(help_text="The tree of sections and fields; see studies.reports.outline.")
    metadata = models.JSONField(default=dict, help_text="Dublin Core terms of an imported MRRT template.")
    coded_content = models.TextField(blank=True, help_text="MRRT's template_attributes, kept for export.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["family", "version"], name="report_template_version_unique"),
            models.UniqueConstraint(
                fields=["family"], condition=models.Q(is_current=True), name="report_template_one_current"
            ),
        ]
        indexes = [models.Index(fields=["is_current", "name"], name="report_template_by_name")]
        ordering = ["name", "-version"]

    def __str__(self) -> str:
        return f"{self.name} ({self.version})"


class Macro(models.Model):
    """Text that a trigger and Tab put in; ``[words in brackets]`` in it are places to fill."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="report_macros"
    )
    site = models.ForeignKey(Site, null=True, on_delete=models.CASCADE, related_name="report_macros")
    trigger = models.CharField(max_length=40, help_text="Without the dot; lower case.")
    text = models.TextField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "trigger"], condition=models.Q(owner__isnull=False), name="report_macro_own_unique"
            ),
            models.UniqueConstraint(
                fields=["site", "trigger"],
                condition=models.Q(owner__isnull=True, site__isnull=False),
                name="report_macro_site_unique",
            ),
            models.UniqueConstraint(
                fields=["trigger"],
                condition=models.Q(owner__isnull=True, site__isnull=True),
                name="report_macro_shared_unique",
            ),
        ]
        ordering = ["trigger"]

    def __str__(self) -> str:
        return f".{self.trigger}"


class Spelling(models.Model):
    """A person's own word: what they type or what is heard, and how it's written."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="report_spellings")
    heard = models.CharField(max_length=60, help_text="Lower case.")
    written = models.CharField(max_length=120)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "heard"], name="report_spelling_unique")]
        ordering = ["heard"]

    def __str__(self) -> str:
        return self.heard


class KnownWord(models.Model):
    """A word that a person writes and that no dictionary has."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="report_words")
    word = models.CharField(max_length=60, help_text="Lower case.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "word"], name="report_known_word_unique")]
        ordering = ["word"]

    def __str__(self) -> str:
        return self.word
