"""What a study and its series hold, counted: only current instances count, only series that hold some."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Count, F, Q
from django.utils import timezone

from studies.models import Series, Study


def count_series(series_ids: Iterable[int]) -> None:
    """Count series' current instances again and make what was built from them stale."""
    counted = (
        Series.objects.filter(pk__in=list(series_ids))
        .annotate(current=Count("instances", filter=Q(instances__is_current=True)))
        .values_list("pk", "current")
    )
    for pk, current in counted:
        Series.objects.filter(pk=pk).update(
            number_of_instances=current, revision=F("revision") + 1, metadata_due_at=timezone.now()
        )


def count_study(study: Study, *, has_conflict: bool = False) -> None:
    """Sum a study up from its series, in the caller's transaction, the study locked."""
    rows = list(
        study.series.filter(number_of_instances__gt=0).values_list(
            "modality", "body_part_examined", "number_of_instances"
        )
    )
    study.modalities_in_study = _joined({modality for modality, _, _ in rows})[:128]
    study.body_part_examined = _joined({body_part for _, body_part, _ in rows})[:64]
    study.number_of_series = len(rows)
    study.number_of_instances = sum(count for _, _, count in rows)
    study.has_conflict = study.has_conflict or has_conflict
    study.save(
        update_fields=[
            *("modalities_in_study", "body_part_examined", "number_of_series", "number_of_instances"),
            *("has_conflict", "unsettled_since", "updated_at"),
        ]
    )


def _joined(values: set[str]) -> str:
    return "\\".join(sorted(values - {""}))
