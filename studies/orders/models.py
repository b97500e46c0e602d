"""The imaging service request with its requested procedure, scheduled and performed steps (PS3.4 Annexes F and K)."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.models import Site
from studies.models import PN_LENGTH, UID_LENGTH, Patient, Priority, ReferringPhysician, Study


class Order(models.Model):
    """One requested procedure, under one accession number, and the study that answers it."""

    class Status(models.TextChoices):
        SCHEDULED = "scheduled", "Scheduled"
        ARRIVED = "arrived", "Arrived"
        IN_PROGRESS = "in_progress", "In progress"
        COMPLETED = "completed", "Completed"
        DISCONTINUED = "discontinued", "Discontinued"
        CANCELLED = "cancelled", "Cancelled"

    class PatientClass(models.TextChoices):
        """HL7 table 0004."""

        INPATIENT = "I", "Inpatient"
        OUTPATIENT = "O", "Outpatient"
        EMERGENCY = "E", "Emergency"
        UNKNOWN = "U", "Unknown"

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="orders")
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="orders")
    # The patient's, beside the order: a list by name looks no patient up.
    patient_name_search = models.CharField(max_length=PN_LENGTH, blank=True)
    study = models.ForeignKey(Study, null=True, on_delete=models.SET_NULL, related_name="orders")
    accession_number = models.CharField(max_length=64)
    placer_order_number = models.CharField(max_length=64, blank=True)
    filler_order_number = models.CharField(max_length=64, blank=True)
    study_instance_uid = models.CharField(max_length=UID_LENGTH, help_text="Given to the modality by the worklist.")
    requested_procedure_id = models.CharField(max_length=64)
    requested_procedure_description = models.CharField(max_length=256)
    requested_procedure_code = models.JSONField(default=dict, help_text="value, scheme, meaning; or empty.")
    priority = models.CharField(max_length=8, choices=Priority.choices, default=Priority.ROUTINE)
    indication = models.TextField(blank=True, help_text="Reason for the requested procedure.")
    referring_physician = models.ForeignKey(
        ReferringPhysician, null=True, on_delete=models.SET_NULL, related_name="orders"
    )
    referring_physician_name = models.CharField(max_length=PN_LENGTH, blank=True)
    patient_class = models.CharField(max_length=1, choices=PatientClass.choices, default=PatientClass.UNKNOWN)
    patient_location = models.CharField(max_length=64, blank=True)
    admission_id = models.CharField(max_length=64, blank=True)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.SCHEDULED)
    status_at = models.DateTimeField(auto_now_add=True)
    # The first scheduled step's, beside the order: a list is one index walk, without a join.
    scheduled_at = models.DateTimeField()
    modality = models.CharField(max_length=16)
    placed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="placed_orders"
    )
    placed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["site", "accession_number", "requested_procedure_id"], name="order_procedure_unique"
            ),
            models.UniqueConstraint(fields=["site", "study_instance_uid"], name="order_study_uid_unique"),
        ]
        indexes = [
            models.Index(fields=["accession_number"], name="order_by_accession"),
            models.Index(fields=["site", "status", "-placed_at"], name="order_by_status"),
            models.Index(fields=["patient_name_search"], name="order_by_name", opclasses=["varchar_pattern_ops"]),
            # Few orders wait for their images at a time: whatever a worklist asks of them is found among these.
            models.Index(
                fields=["site", "scheduled_at", "id"],
                name="order_awaiting",
                condition=models.Q(study__isnull=True, status__in=["scheduled", "arrived", "in_progress"]),
            ),
        ]

    def __str__(self) -> str:
        return self.accession_number


class OrderStatusChange(models.Model):
    """An order's step to another status: when, and which person or station took it there; empty: by rule."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="status_changes")
    status = models.CharField(max_length=12, choices=Order.Status.choices)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    station_ae_title = models.CharField(max_length=16, blank=True)
    reason = models.CharField(max_length=200, blank=True)
    changed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.order_id} {self.status}"


class ScheduledProcedureStep(models.Model):
    """When and on which station a part of the order is to be done; a modality worklist item."""

    class Status(models.TextChoices):
        """Scheduled Procedure Step Status, (0040,0020)."""

        SCHEDULED = "SCHEDULED", "Scheduled"
        ARRIVED = "ARRIVED", "Arrived"
        READY = "READY", "Ready"
        STARTED = "STARTED", "Started"
        DEPARTED = "DEPARTED", "Departed"
        COMPLETED = "COMPLETED", "Completed"
        DISCONTINUED = "DISCONTINUED", "Discontinued"

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="scheduled_steps")
    scheduled_procedure_step_id = models.CharField(max_length=16)
    modality = models.CharField(max_length=16)
    scheduled_station_ae_title = models.CharField(max_length=16, blank=True)
    scheduled_station_name = models.CharField(max_length=16, blank=True)
    scheduled_procedure_step_location = models.CharField(max_length=16, blank=True)
    scheduled_at = models.DateTimeField()
    scheduled_procedure_step_description = models.CharField(max_length=64, blank=True)
    scheduled_protocol_code = models.JSONField(default=dict, help_text="value, scheme, meaning; or empty.")
    scheduled_performing_physician_name = models.CharField(max_length=PN_LENGTH, blank=True)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.SCHEDULED)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "scheduled_procedure_step_id"], name="scheduled_step_unique"),
        ]
        indexes = [
            models.Index(fields=["scheduled_at", "modality"], name="scheduled_step_by_time"),
            models.Index(fields=["scheduled_station_ae_title", "scheduled_at"], name="scheduled_step_by_station"),
        ]

    def __str__(self) -> str:
        return self.scheduled_procedure_step_id


class PerformedProcedureStep(models.Model):
    """What a modality told that it did (Modality Performed Procedure Step)."""

    class Status(models.TextChoices):
        """Performed Procedure Step Status, (0040,0252)."""

        IN_PROGRESS = "IN PROGRESS", "In progress"
        COMPLETED = "COMPLETED", "Completed"
        DISCONTINUED = "DISCONTINUED", "Discontinued"

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="performed_steps")
    sop_instance_uid = models.CharField(max_length=UID_LENGTH, unique=True)
    status = models.CharField(max_length=12, choices=Status.choices)
    scheduled_steps = models.ManyToManyField(ScheduledProcedureStep, related_name="performed_steps")
    study_instance_uids = models.JSONField(default=list, help_text="Also those that no order announced.")
    performed_station_ae_title = models.CharField(max_length=16)
    attributes = models.JSONField(default=dict, help_text="The data set as DICOM JSON, N-CREATE and N-SETs merged.")
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["site", "received_at"],
                name="performed_step_under_way",
                condition=models.Q(status="IN PROGRESS"),
            )
        ]

    def __str__(self) -> str:
        return self.sop_instance_uid


class AccessionSeries(models.Model):
    """How a site's accession numbers are made: ``prefix``, two digits of the year, a running number."""

    site = models.OneToOneField(Site, on_delete=models.CASCADE, related_name="accession_series")
    prefix = models.CharField(max_length=6)
    last_number = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.prefix


class Mismatch(models.Model):
    """A study that didn't meet its order by itself and waits for a technologist."""

    class Reason(models.TextChoices):
        PATIENT_DIFFERS = "patient", "The order is another patient's"
        SEVERAL = "several", "Several orders fit"
        NO_ORDER = "none", "No order fits"
        TAKEN_BACK = "undone", "Its link was taken back"

    study = models.OneToOneField(Study, on_delete=models.CASCADE, related_name="mismatch")
    reason = models.CharField(max_length=8, choices=Reason.choices)
    found_at = models.DateTimeField(auto_now_add=True)
    settled_at = models.DateTimeField(null=True)
    settled_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        verbose_name_plural = "mismatches"
        indexes = [
            models.Index(fields=["-found_at"], name="mismatch_open", condition=models.Q(settled_at__isnull=True))
        ]

    def __str__(self) -> str:
        return f"{self.study_id} {self.reason}"


class Reconciliation(models.Model):
    """What was changed on a study to make it agree with its order or patient, and what was there before."""

    class Kind(models.TextChoices):
        LINKED = "linked", "Linked to the order"
        CORRECTED = "corrected", "Linked to the order and corrected after it"
        MOVED = "moved", "Moved to another patient"
        MERGED = "merged", "Patient merged"

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="reconciliations")
    order = models.ForeignKey(Order, null=True, on_delete=models.SET_NULL, related_name="reconciliations")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    before = models.JSONField(help_text="The study's and the order's values as they were.")
    after = models.JSONField(help_text="The same values as they became.")
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", help_text="Empty: by rule."
    )
    made_at = models.DateTimeField(auto_now_add=True)
    undone_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    undone_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.study_id} {self.kind}"
