"""How people like their images hung."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class HangingPreference(models.Model):
    """The hanging protocol that a person last chose for a modality and body part."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="hanging_preferences")
    modality = models.CharField(max_length=16)
    body_part_examined = models.CharField(max_length=64, blank=True)
    hanging_protocol = models.CharField(max_length=40)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "modality", "body_part_examined"], name="hanging_preference_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.modality} {self.body_part_examined} {self.hanging_protocol}"
