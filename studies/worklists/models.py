"""What people keep of their worklists, and how a department shares its cases out."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from accounts.models import Role, Site
from studies.models import Priority, Study


class ReadingGroup(models.Model):
    """Readers of a subspecialty at a site; empty rules take every case."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="reading_groups")
    name = models.CharField(max_length=80)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="reading_groups", blank=True)
    modalities = models.JSONField(default=list, blank=True, help_text="CT, MR…; empty: any.")
    body_parts = models.JSONField(default=list, blank=True, help_text="HEAD, CHEST…; empty: any.")
    words = models.JSONField(default=list, blank=True, help_text="One of them is in the study description; empty: any.")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["site", "name"], name="reading_group_unique")]

    def __str__(self) -> str:
        return self.name


class Shift(models.Model):
    """When a reader is on duty at a site."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="shifts")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="shifts")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()

    class Meta:
        ordering = ["starts_at"]
        constraints = [
            models.CheckConstraint(condition=models.Q(ends_at__gt=models.F("starts_at")), name="shift_has_a_length")
        ]
        indexes = [models.Index(fields=["site", "ends_at"], name="shift_by_end")]

    def __str__(self) -> str:
        return f"{self.user} {self.starts_at:%Y-%m-%d %H:%M}"


class AssignmentRule(models.Model):
    """Gives a case that fits the group to the member with the fewest open cases; the first rule that fits counts."""

    group = models.ForeignKey(ReadingGroup, on_delete=models.CASCADE, related_name="rules")
    rank = models.PositiveSmallIntegerField(default=10, help_text="The lowest is asked first.")
    only_on_shift = models.BooleanField(default=True, help_text="Only members who are on duty.")
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ["rank", "pk"]

    def __str__(self) -> str:
        return f"{self.rank} {self.group}"


class TurnaroundTarget(models.Model):
    """Within how many minutes of arrival a case is to be read; the narrowest target that fits counts."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="turnaround_targets")
    priority = models.CharField(max_length=8, choices=Priority.choices)
    modality = models.CharField(max_length=16, blank=True, help_text="Empty: every modality.")
    minutes = models.PositiveIntegerField()

    class Meta:
        ordering = ["site", "modality", "priority"]
        constraints = [
            models.UniqueConstraint(fields=["site", "priority", "modality"], name="turnaround_target_unique")
        ]

    def __str__(self) -> str:
        return f"{self.priority} {self.modality} {self.minutes} min"


class CaseClock(models.Model):
    """By when a case is to be read, and whether those who must know were told that it's late."""

    study = models.OneToOneField(Study, on_delete=models.CASCADE, related_name="clock")
    due_at = models.DateTimeField()
    escalated_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["due_at"], name="clock_running", condition=models.Q(escalated_at__isnull=True))]

    def __str__(self) -> str:
        return f"{self.study_id} {self.due_at:%Y-%m-%d %H:%M}"


class SavedFilter(models.Model):
    """A worklist filter with a name: a person's own, or shared with a group or a role."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_filters")
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=1000, help_text="The worklist's query string.")
    group = models.ForeignKey(
        ReadingGroup, null=True, blank=True, on_delete=models.CASCADE, related_name="saved_filters"
    )
    role = models.ForeignKey(Role, null=True, blank=True, on_delete=models.CASCADE, related_name="saved_filters")
    made_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="saved_filter_unique")]
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class WorklistPreference(models.Model):
    """The columns and saved filters that a person chose, in their order, and the sort they used last."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="worklist_preference")
    columns = models.JSONField(default=list)
    filters = models.JSONField(default=list, help_text="Row ids of saved filters; others come after these, by name.")
    sort = models.CharField(max_length=120, blank=True)

    def __str__(self) -> str:
        return f"{self.user_id}"
