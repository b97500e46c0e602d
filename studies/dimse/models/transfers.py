"""What goes to and comes from nodes: a queue for each node, worked off in order."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Site
from studies.dimse.models.network import Node
from studies.models import UID_LENGTH, Instance, Study


class Transfer(models.Model):
    """A study on its way to a node, or from one. What was asked is frozen here: rules may change meanwhile."""

    class Kind(models.TextChoices):
        SEND = "send", "Send"
        RETRIEVE = "retrieve", "Retrieve"

    class Origin(models.TextChoices):
        PERSON = "person", "A person"
        RULE = "rule", "A routing rule"
        PREFETCH = "prefetch", "Prefetch of priors"

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    kind = models.CharField(max_length=8, choices=Kind.choices)
    origin = models.CharField(max_length=8, choices=Origin.choices, default=Origin.PERSON)
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="transfers")
    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="+")
    study = models.ForeignKey(Study, null=True, on_delete=models.CASCADE, related_name="transfers")
    study_instance_uid = models.CharField(max_length=UID_LENGTH)
    series_instance_uid = models.CharField(max_length=UID_LENGTH, blank=True, help_text="Empty: the whole study.")
    rule = models.ForeignKey("dimse.RoutingRule", null=True, on_delete=models.SET_NULL, related_name="transfers")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    coercions = models.JSONField(default=list)
    deidentification = models.JSONField(null=True, help_text="Options of the profile; null: identified.")
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    total = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    transferred_bytes = models.BigIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=300, blank=True, help_text="In plain words, never patient data.")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["node", "id"], name="transfer_queue", condition=Q(status__in=["queued", "running"])),
            models.Index(fields=["site", "-id"], name="transfer_by_site"),
            models.Index(fields=["status", "-id"], name="transfer_by_status"),
            models.Index(fields=["study", "-id"], name="transfer_by_study"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.study_instance_uid}"

    @property
    def is_over(self) -> bool:
        return self.status in {self.Status.DONE, self.Status.FAILED, self.Status.CANCELLED}


class TransferItem(models.Model):
    """One instance of a transfer and what became of it."""

    class Status(models.TextChoices):
        WAITING = "waiting", "Waiting"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    transfer = models.ForeignKey(Transfer, on_delete=models.CASCADE, related_name="items")
    instance = models.ForeignKey(Instance, null=True, on_delete=models.CASCADE, related_name="+")
    sop_instance_uid = models.CharField(max_length=UID_LENGTH)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["transfer", "sop_instance_uid"], name="transfer_item_unique"),
        ]
        indexes = [models.Index(fields=["transfer", "status", "id"], name="transfer_item_state")]

    def __str__(self) -> str:
        return self.sop_instance_uid


class NodeState(models.Model):
    """How it goes with a node in one direction: does it answer, when is it tried again, which worker has its queue."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="states")
    kind = models.CharField(max_length=8, choices=Transfer.Kind.choices)
    failures = models.PositiveIntegerField(default=0, help_text="Attempts in a row that didn't reach it.")
    down_since = models.DateTimeField(null=True)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    last_error = models.CharField(max_length=300, blank=True)
    last_error_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    lease = models.CharField(max_length=32, blank=True)
    leased_until = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "kind"], name="node_state_unique")]

    def __str__(self) -> str:
        return f"{self.node_id}"
