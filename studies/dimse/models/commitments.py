"""What nodes asked us to answer for (Storage Commitment, PS3.4 Annex J)."""

from __future__ import annotations

from django.db import models

from accounts.models import Site
from studies.dimse.models.network import Node
from studies.models import UID_LENGTH


class Commitment(models.Model):
    """One request, what was found, and whether the node has been told.

    ``committed`` holds pairs [SOP class UID, SOP instance UID], ``failed`` triples with the Failure Reason (0008,1197).
    """

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="+")
    node = models.ForeignKey(Node, null=True, on_delete=models.CASCADE, related_name="commitments")
    transaction_uid = models.CharField(max_length=UID_LENGTH)
    committed = models.JSONField(default=list)
    failed = models.JSONField(default=list)
    requested_at = models.DateTimeField(auto_now_add=True)
    reported_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["node", "-requested_at"], name="commitment_by_node")]

    def __str__(self) -> str:
        return self.transaction_uid
