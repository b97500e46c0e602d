"""What people keep of their worklists."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class SavedFilter(models.Model):
    """A worklist filter that a person named."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_filters")
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=1000, help_text="The worklist's query string.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="saved_filter_unique")]
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
