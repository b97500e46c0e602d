"""What the archive builds from instances and keeps."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.models import Site
from studies.models import UID_LENGTH, Series, Study


class Correction(models.Model):
    """One step of correcting a study: which values (DICOM JSON) took the place of which, why, and by whom."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="correction_steps")
    corrected = models.JSONField()
    original = models.JSONField()
    reason = models.CharField(max_length=300, blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.study_id} {self.created_at:%F}"


class SeriesMetadata(models.Model):
    """A series' DICOM JSON metadata, gzipped, valid while ``revision`` is the series' own."""

    series = models.OneToOneField(Series, on_delete=models.CASCADE, primary_key=True, related_name="metadata")
    revision = models.PositiveIntegerField()
    content = models.BinaryField()
    etag = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.series_id} r{self.revision}"


class Rejection(models.Model):
    """An instance's rejection (IHE RAD TF-3 4.66, IOCM), from the note on until it's lifted.

    It names the instance by UID: the note may come before the instance, and stands when the instance comes again.
    """

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="rejections")
    study_instance_uid = models.CharField(max_length=UID_LENGTH)
    sop_instance_uid = models.CharField(max_length=UID_LENGTH)
    code = models.CharField(max_length=16, help_text="Title code of the note (PS3.16 CID 7011).")
    note_sop_instance_uid = models.CharField(max_length=UID_LENGTH)
    rejected_by = models.CharField(max_length=170, help_text="User name or AE title.")
    rejected_at = models.DateTimeField(auto_now_add=True)
    lifted_by = models.CharField(max_length=170, blank=True)
    lifted_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["sop_instance_uid", "study_instance_uid", "site"],
                condition=models.Q(lifted_at__isnull=True),
                name="rejection_standing_unique",
            ),
        ]
        indexes = [models.Index(fields=["site", "study_instance_uid"], name="rejection_by_study")]

    def __str__(self) -> str:
        return f"{self.code} {self.sop_instance_uid}"


class ObjectRemoval(models.Model):
    """An object whose instance was deleted and that storage still holds, to be removed once it's surely unused."""

    object_key = models.CharField(max_length=400, unique=True)
    due_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["due_at"], name="object_removal_due")]

    def __str__(self) -> str:
        return self.object_key


class NonPatientInstance(models.Model):
    """An object of no patient that a site keeps: a colour palette, a hanging protocol (PS3.4 Annex GG)."""

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="non_patient_instances")
    category = models.CharField(max_length=32, help_text="The resource of PS3.18 §12 that holds it.")
    sop_instance_uid = models.CharField(max_length=UID_LENGTH)
    sop_class_uid = models.CharField(max_length=UID_LENGTH)
    object_key = models.CharField(max_length=400)
    object_length = models.BigIntegerField()
    sha256 = models.BinaryField(max_length=32)
    attributes = models.JSONField(default=dict, help_text="DICOM JSON.")
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sop_instance_uid", "site"], name="non_patient_uid_unique")]
        indexes = [models.Index(fields=["site", "category", "-id"], name="non_patient_by_category")]

    def __str__(self) -> str:
        return self.sop_instance_uid
