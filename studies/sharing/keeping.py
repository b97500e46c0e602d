"""Which studies are being discussed, so that the archive keeps them in the hot tier."""

from __future__ import annotations

from collections.abc import Sequence

from studies.archive import tiers
from studies.sharing.models import Comment, TeachingCase


@tiers.keeps_hot
def under_discussion(study_ids: Sequence[int]) -> set[int]:
    """Give those of the studies that have an open consult, or of which a teaching file is being prepared."""
    consults = Comment.objects.filter(study__in=study_ids, kind=Comment.Kind.CONSULT, closed_at__isnull=True)
    preparing = TeachingCase.objects.filter(source_study__in=study_ids, state=TeachingCase.State.PREPARING)
    return {*consults.values_list("study_id", flat=True), *preparing.values_list("source_study_id", flat=True)}
