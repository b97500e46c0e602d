"""Measurements and key images, each tied to the image on which it was made."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from studies.models import UID_LENGTH, Study


class ImageFinding(models.Model):
    """A measurement, or a viewport that was marked as a key image.

    ``tracking_identifier`` is the viewer's name for it, so that a measurement that is dragged further stays one.
    A measurement belongs to the study that has the image; a key image to the one whose report shows it, and where its
    image is a prior's, ``prior_study_instance_uid`` names the prior.
    """

    class Kind(models.TextChoices):
        MEASUREMENT = "measurement", "Measurement"
        KEY_IMAGE = "key_image", "Key image"

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="findings")
    kind = models.CharField(max_length=11, choices=Kind.choices)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="image_findings")
    tracking_identifier = models.CharField(max_length=64)
    series_instance_uid = models.CharField(max_length=UID_LENGTH)
    sop_instance_uid = models.CharField(max_length=UID_LENGTH)
    frame_number = models.PositiveIntegerField(default=1)
    prior_study_instance_uid = models.CharField(max_length=UID_LENGTH, blank=True)
    prior_study_date = models.DateField(null=True)
    series_number = models.BigIntegerField(null=True)
    instance_number = models.BigIntegerField(null=True)
    label = models.CharField(max_length=120, blank=True)
    text = models.CharField(
        max_length=300, blank=True, help_text="The values with their units, as the report says them."
    )
    values = models.JSONField(default=list, help_text="name, value and unit (UCUM) of each quantity.")
    window_center = models.FloatField(null=True)
    window_width = models.FloatField(null=True)
    picture = models.BinaryField(null=True, help_text="JPEG of the viewport as it was seen, marks included.")
    key_object_uid = models.CharField(max_length=UID_LENGTH, blank=True)
    presentation_state_uid = models.CharField(max_length=UID_LENGTH, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["study", "tracking_identifier"], name="finding_tracked_once"),
        ]
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def place(self) -> str:
        """Where it is, as reports write it: ``"series 2, image 52"``, ``"2024-03-02, series 1, image 3, frame 7"``."""
        if self.prior_study_instance_uid and not self.prior_study_date:
            # Without a day the numbers would lead to an image of the study that is read.
            return "prior of unknown date"
        day = f"{self.prior_study_date:%Y-%m-%d}, " if self.prior_study_date else ""
        series = self.series_number if self.series_number is not None else "?"
        image = self.instance_number if self.instance_number is not None else "?"
        return f"{day}series {series}, image {image}" + (
            f", frame {self.frame_number}" if self.frame_number > 1 else ""
        )

    @property
    def caption(self) -> str:
        """What stands below a key image; of a prior's always which day it is of."""
        if self.label and self.prior_study_instance_uid:
            return f"{self.label} ({self.place})"
        return self.label or self.place
