"""What a study and its series hold, counted: only current instances count, only series that hold some."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from django.db.models import Count, F, Q
from django.utils import timezone

from studies.models import Series, Study


@dataclass(frozen=True)
class Summary:
    """What a study holds, as its columns say it."""

    modalities_in_study: str
    body_part_examined: str
    number_of_series: int
    number_of_instances: int


def summary(series: Iterable[tuple[str, str, int]]) -> Summary:
    """Sum a study up from its series' modality, body part and number of instances."""
    rows = [row for row in series if row[2]]
    return Summary(
        modalities_in_study=_joined({modality for modality, _, _ in rows})[:128],
        body_part_examined=_joined({body_part for _, body_part, _ in rows})[:64],
        number_of_series=len(rows),
        number_of_instances=sum(count for _, _, count in rows),
    )


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


def count_study(study: Study) -> None:
    """Sum a study up from its series, in the caller's transaction, the study locked."""
    rows = study.series.values_list("modality", "body_part_examined", "number_of_instances")
    summed = asdict(summary(rows))
    for name, value in summed.items():
        setattr(study, name, value)
    study.save(update_fields=[*summed, "updated_at"])


def _joined(values: set[str]) -> str:
    return "\\".join(sorted(values - {""}))
