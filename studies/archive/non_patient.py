"""Objects of no patient: colour palettes, hanging protocols and the like, kept for a whole site (PS3.4 Annex GG)."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import QuerySet

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.access import sites_where
from studies.archive.models import NonPatientInstance
from studies.archive.objects import stream_object


def non_patient_instances_visible_to(principal: Principal, category: str) -> QuerySet[NonPatientInstance]:
    """Give a category's objects of the sites where the principal sees studies, the newest first."""
    sites = sites_where(principal, Capability.STUDY_VIEW)
    return NonPatientInstance.objects.filter(site__in=sites, category=category).order_by("-pk")


def stream(instance: NonPatientInstance) -> Iterator[bytes]:
    """Give the Part 10 file in chunks. Raises ObjectMissing."""
    return stream_object(instance.object_key, instance.object_length)
