"""Comments on studies, and teaching cases."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.models import Site
from studies.models import Study


class Comment(models.Model):
    """A colleague's words on a study; a consult asks the mentioned ones for their opinion until one closes it."""

    class Kind(models.TextChoices):
        COMMENT = "comment", "Comment"
        CONSULT = "consult", "Consult request"

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="comments")
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.COMMENT)
    text = models.TextField()
    mentions = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="mentioned_in", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)
    closed_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["pk"]
        indexes = [
            models.Index(
                fields=["-id"],
                name="consult_open",
                condition=models.Q(kind="consult", closed_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def is_open_consult(self) -> bool:
        return self.kind == self.Kind.CONSULT and self.closed_at is None


class TeachingCase(models.Model):
    """A de-identified copy of a study with what it teaches. The copy belongs to the teaching site."""

    class Level(models.TextChoices):
        STUDENT = "student", "Student"
        RESIDENT = "resident", "Resident"
        FELLOW = "fellow", "Fellow"

    class State(models.TextChoices):
        PREPARING = "preparing", "Being prepared"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    source_site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="teaching_cases")
    source_study = models.ForeignKey(Study, null=True, on_delete=models.SET_NULL, related_name="teaching_cases")
    study = models.OneToOneField(Study, null=True, on_delete=models.SET_NULL, related_name="teaching_case")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="teaching_cases")
    title = models.CharField(max_length=120)
    history = models.TextField(blank=True)
    findings = models.TextField(blank=True)
    diagnosis = models.CharField(max_length=200, blank=True)
    discussion = models.TextField(blank=True)
    keywords = models.CharField(max_length=200, blank=True)
    level = models.CharField(max_length=8, choices=Level.choices, default=Level.RESIDENT)
    state = models.CharField(max_length=9, choices=State.choices, default=State.PREPARING)
    state_reason = models.CharField(
        max_length=300, blank=True, help_text="What was left out of the copy, or why it failed."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.title
