"""The unified procedure step, who wants to hear of it, and what they are still to be told (PS3.4 Annex CC)."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from accounts.models import Site
from studies.models import PN_LENGTH, UID_LENGTH

AE_TITLE_LENGTH = 16


class Workitem(models.Model):
    """A piece of work to be done on images. Its columns are what is matched; ``attributes`` is all that is known."""

    class State(models.TextChoices):
        """Procedure Step State, (0074,1000)."""

        SCHEDULED = "SCHEDULED", "Scheduled"
        IN_PROGRESS = "IN PROGRESS", "In progress"
        COMPLETED = "COMPLETED", "Completed"
        CANCELED = "CANCELED", "Canceled"

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="workitems")
    sop_instance_uid = models.CharField(max_length=UID_LENGTH)
    state = models.CharField(max_length=16, choices=State.choices, default=State.SCHEDULED)
    transaction_uid = models.CharField(
        max_length=UID_LENGTH, blank=True, help_text="The performer's key; it never leaves (PS3.4 CC.2.7.3)."
    )
    priority = models.CharField(max_length=8)
    procedure_step_label = models.CharField(max_length=64)
    worklist_label = models.CharField(max_length=64, blank=True)
    input_readiness_state = models.CharField(max_length=16)
    scheduled_start_at = models.DateTimeField()
    expected_completion_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    patient_id = models.CharField(max_length=64, blank=True)
    issuer_of_patient_id = models.CharField(max_length=64, blank=True)
    patient_name = models.CharField(max_length=PN_LENGTH, blank=True)
    patient_name_search = models.CharField(max_length=PN_LENGTH, blank=True)
    patient_birth_date = models.DateField(null=True)
    patient_sex = models.CharField(max_length=16, blank=True)
    admission_id = models.CharField(max_length=64, blank=True)
    study_instance_uid = models.CharField(max_length=UID_LENGTH, blank=True)
    attributes = models.JSONField(default=dict, help_text="DICOM JSON (PS3.18 F.2), without state and transaction UID.")
    created_at = models.DateTimeField(auto_now_add=True)
    modified_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sop_instance_uid", "site"], name="workitem_uid_unique")]
        indexes = [
            models.Index(fields=["site", "state", "scheduled_start_at"], name="workitem_by_state"),
            models.Index(fields=["scheduled_start_at", "id"], name="workitem_by_start"),
            models.Index(fields=["patient_id"], name="workitem_by_patient_id"),
            models.Index(fields=["patient_name_search"], name="workitem_by_name"),
            models.Index(fields=["study_instance_uid"], name="workitem_by_study"),
            models.Index(
                fields=["modified_at"], name="workitem_by_end", condition=Q(state__in=["COMPLETED", "CANCELED"])
            ),
        ]

    def __str__(self) -> str:
        return self.sop_instance_uid

    @property
    def is_final(self) -> bool:
        return self.state in {self.State.COMPLETED, self.State.CANCELED}


class WorkitemKey(models.Model):
    """One value inside a workitem's sequences that is matched: a station's or work's code, an accession number."""

    workitem = models.ForeignKey(Workitem, on_delete=models.CASCADE, related_name="keys")
    path = models.CharField(max_length=160, help_text="Keywords joined by dots.")
    value = models.CharField(max_length=64)

    class Meta:
        indexes = [models.Index(fields=["path", "value", "workitem"], name="workitem_key_by_value")]

    def __str__(self) -> str:
        return f"{self.path}={self.value}"


class Subscription(models.Model):
    """An AE that is told of a workitem; without a workitem, of every one made from now on that its filter matches."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="workitem_subscriptions")
    ae_title = models.CharField(max_length=AE_TITLE_LENGTH)
    workitem = models.ForeignKey(Workitem, null=True, on_delete=models.CASCADE, related_name="subscriptions")
    filter = models.JSONField(default=dict, help_text="Matching keys of a filtered global subscription.")
    deletion_lock = models.BooleanField(default=False)
    subscribed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workitem", "ae_title"], name="subscription_unique"),
            models.UniqueConstraint(
                fields=["site", "ae_title"], condition=Q(workitem__isnull=True), name="global_subscription_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.ae_title} {self.workitem_id or 'every workitem'}"


class EventReport(models.Model):
    """What one subscriber is to be told, kept until told (PS3.4 CC.2.4)."""

    class Type(models.IntegerChoices):
        """Event Type ID (PS3.4 Table CC.2.4-1)."""

        STATE = 1, "UPS State Report"
        CANCEL_REQUESTED = 2, "UPS Cancel Requested"
        PROGRESS = 3, "UPS Progress Report"
        SCP_STATUS = 4, "SCP Status Change"
        ASSIGNED = 5, "UPS Assigned"

    workitem = models.ForeignKey(Workitem, on_delete=models.CASCADE, related_name="event_reports")
    ae_title = models.CharField(max_length=AE_TITLE_LENGTH)
    event_type = models.PositiveSmallIntegerField(choices=Type.choices)
    information = models.JSONField(help_text="DICOM JSON.")
    created_at = models.DateTimeField(auto_now_add=True)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["ae_title", "id"], name="event_report_waiting", condition=Q(delivered_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.ae_title} {self.workitem_id}"
