"""The audit event and the chain's head."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models


class TrailIsImmutable(RuntimeError):
    """Something tried to change or delete an audit event."""


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """Events can be read and added, never changed."""

    def update(self, **kwargs: Any) -> int:
        raise TrailIsImmutable("audit events can't be changed")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TrailIsImmutable("audit events can't be deleted")


class AuditEvent(models.Model):
    """Who did what to whose data, when, from where, and with which outcome (IHE ITI TF-2 3.20, DICOM PS3.15 A.5).

    ``digest`` is an HMAC over the event and the digest of the event before it, so that an edit or a gap shows.
    """

    class Action(models.TextChoices):
        SIGN_IN = "sign_in", "Sign-in"
        SIGN_IN_FAILED = "sign_in_failed", "Sign-in failed"
        SIGN_OUT = "sign_out", "Sign-out"
        SEARCH = "search", "Search"
        VIEW = "view", "View"
        RETRIEVE = "retrieve", "Image retrieval"
        IMPORT = "import", "Import"
        QUARANTINE = "quarantine", "Quarantine"
        REPORT_DRAFT = "report_draft", "Report draft"
        REPORT_SIGN = "report_sign", "Report signed"
        REPORT_READ = "report_read", "Report read"
        REPORT_PDF = "report_pdf", "Report PDF"
        REPORT_RETRACT = "report_retract", "Report retracted"
        CRITICAL_RESULT = "critical_result", "Critical result"
        EXPORT = "export", "Export"
        CHANGE = "change", "Change"
        REFUSAL = "refusal", "Refusal"

    class Outcome(models.TextChoices):
        SUCCESS = "success", "Success"
        FAILURE = "failure", "Failure"
        REFUSED = "refused", "Refused"

    sequence = models.PositiveBigIntegerField(unique=True)
    occurred_at = models.DateTimeField()
    action = models.CharField(max_length=20, choices=Action.choices)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.SUCCESS)
    username = models.CharField(max_length=150)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.DO_NOTHING, db_constraint=False)
    site = models.ForeignKey("accounts.Site", null=True, on_delete=models.DO_NOTHING, db_constraint=False)
    patient_id = models.CharField(max_length=64, blank=True)
    patient_name = models.CharField(max_length=324, blank=True)
    study_instance_uid = models.CharField(max_length=64, blank=True)
    ip_address = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=200, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    details = models.JSONField(default=dict)
    digest = models.CharField(max_length=64)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        ordering = ["-sequence"]
        indexes = [
            models.Index(fields=["occurred_at"], name="audit_time"),
            models.Index(fields=["username", "sequence"], name="audit_username"),
            models.Index(fields=["site", "sequence"], name="audit_site"),
            models.Index(fields=["patient_id", "sequence"], name="audit_patient"),
            models.Index(fields=["study_instance_uid", "sequence"], name="audit_study"),
            models.Index(fields=["action", "sequence"], name="audit_action"),
        ]

    def __str__(self) -> str:
        return f"{self.sequence} {self.action} {self.username}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TrailIsImmutable("audit events can't be changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TrailIsImmutable("audit events can't be deleted")


class ChainHead(models.Model):
    """The last event's place and digest; its row is the lock that puts events in order."""

    sequence = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=64, default="")
    seal = models.CharField(max_length=64, default="", help_text="HMAC over both, so that a cut tail shows.")

    def __str__(self) -> str:
        return str(self.sequence)


class ViewingWindow(models.Model):
    """A principal's viewing of a study in a quarter of an hour: recorded when it began, its counts when it's over."""

    principal = models.CharField(max_length=170)
    action = models.CharField(max_length=20)
    study_instance_uid = models.CharField(max_length=64)
    site = models.ForeignKey("accounts.Site", null=True, on_delete=models.CASCADE)
    quarter = models.BigIntegerField(help_text="Quarter hours since 1970-01-01 UTC.")
    event_sequence = models.PositiveBigIntegerField(default=0, help_text="The event that began it.")
    instances = models.PositiveBigIntegerField(default=0)
    frames = models.PositiveBigIntegerField(default=0)
    octets = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["quarter", "principal", "action", "study_instance_uid", "site"], name="viewing_window_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.principal} {self.action} {self.study_instance_uid}"
