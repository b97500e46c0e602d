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
    """A series' DICOM JSON metadata, gzipped, valid while ``revision`` is the series' own and ``form`` today's."""

    series = models.OneToOneField(Series, on_delete=models.CASCADE, primary_key=True, related_name="metadata")
    revision = models.PositiveIntegerField()
    # With a default in the database: processes of the version before still write rows while this one is rolled out.
    form = models.PositiveSmallIntegerField(default=0, db_default=0)
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
    sop_instance_uid = models.CharField(
        max_length=UID_LENGTH, help_text="Whose it was: instances are found by it, not by the key."
    )
    due_at = models.DateTimeField()
    failed_at = models.DateTimeField(
        null=True, help_text="When others that lie in it, a pack, couldn't be moved out last."
    )

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


class TierPolicy(models.Model):
    """When a site's studies go to the cold tier; without a site, when those of sites that have decided nothing do."""

    site = models.OneToOneField(Site, null=True, on_delete=models.CASCADE, related_name="tier_policy")
    cold_after_days = models.PositiveIntegerField(null=True, help_text="Days without arrival or viewing; empty: never.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                models.Value(1), condition=models.Q(site__isnull=True), name="tier_policy_default_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.site_id or 'default'}: {self.cold_after_days}"


class TierMove(models.Model):
    """A study's way to another tier: asked for, under way with its progress, or ended."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    class Origin(models.TextChoices):
        POLICY = "policy", "Site's policy"
        PERSON = "person", "By hand"
        WANTED = "wanted", "Opened or retrieved"
        PREFETCH = "prefetch", "Prior of a new order or study"
        ARRIVAL = "arrival", "New images came"

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="tier_moves")
    tier = models.CharField(max_length=4, choices=Study.Tier.choices, help_text="Where to.")
    status = models.CharField(max_length=7, choices=Status.choices, default=Status.QUEUED)
    origin = models.CharField(max_length=8, choices=Origin.choices)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Empty: the archive itself.",
    )
    requested_at = models.DateTimeField(auto_now_add=True)
    due_at = models.DateTimeField(help_text="When to try next.")
    ended_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=200, blank=True, help_text="Why the last attempt failed.")
    total_objects = models.PositiveIntegerField(default=0)
    objects_done = models.PositiveIntegerField(default=0)
    bytes_done = models.BigIntegerField(default=0)
    lease = models.CharField(max_length=40, blank=True)
    leased_until = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            # One at a time: of two that go opposite ways each would remove what the other has copied.
            models.UniqueConstraint(
                fields=["study"], condition=models.Q(status__in=["queued", "running"]), name="tier_move_open_unique"
            )
        ]
        indexes = [
            models.Index(fields=["due_at"], name="tier_move_due", condition=models.Q(status__in=["queued", "running"])),
            models.Index(fields=["status", "-id"], name="tier_move_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.study_id} to {self.tier}: {self.status}"


class TierFigure(models.Model):
    """How much of a site lies in a tier, as it was counted last."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="tier_figures")
    tier = models.CharField(max_length=4, choices=Study.Tier.choices)
    studies = models.PositiveBigIntegerField(default=0)
    instances = models.PositiveBigIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    counted_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["site", "tier"], name="tier_figure_unique")]

    def __str__(self) -> str:
        return f"{self.site_id} {self.tier}"
