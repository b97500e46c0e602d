"""The department's figures: volume, turnaround, backlog, load. Each begins at the gate."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Count, F, Min, Q, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from accounts.models import Site, User
from accounts.principals import Principal
from studies.access import studies_visible_to
from studies.models import Priority, StatusChange, Study
from studies.reading import OPEN_STATUSES

# Up to how many hours a case of the backlog has waited; the last is open to the end.
AGES = ((1, "< 1 h"), (4, "1–4 h"), (24, "4–24 h"), (72, "1–3 d"), (None, "> 3 d"))
MOST_READ = 50_000


@dataclass(frozen=True)
class Turnaround:
    """Minutes from arrival to the final report: how many reports, and the percentiles of their times."""

    label: str
    count: int
    p50: int
    p90: int
    p95: int


@dataclass(frozen=True)
class Load:
    """What a reader has before and behind them."""

    reader: User
    assigned: int
    reading: int
    finished: int


def department(principal: Principal, sites: Sequence[Site]) -> QuerySet[Study]:
    """Give the studies of the sites that the principal may see."""
    return studies_visible_to(principal).filter(site__in=sites)


def volume(studies: QuerySet[Study], days: int) -> tuple[list[date], dict[str, list[int]]]:
    """Give the days, and by modality how many studies arrived on each of them."""
    today = timezone.now().date()
    dates = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    rows = (
        studies.filter(received_at__date__gte=dates[0], received_at__gte=timezone.now() - timedelta(days=days + 1))
        .annotate(day=TruncDate("received_at"))
        .values_list("day", "modalities_in_study")
        .order_by()
        .annotate(count=Count("pk"))
    )
    counts: dict[str, Counter[date]] = defaultdict(Counter)
    for day, modalities, count in rows:
        counts[main_modality(modalities)][day] += count
    most = sorted(counts, key=lambda modality: -sum(counts[modality].values()))
    return dates, {modality: [counts[modality][day] for day in dates] for modality in most}


def main_modality(modalities: str) -> str:
    """Give the modality that stands for a study: documents and structured reports only where there's nothing else."""
    known = [m for m in modalities.split("\\") if m]
    images = [m for m in known if m not in {"SR", "PR", "KO", "SEG", "DOC", "OT"}]
    return (images or known or ["—"])[0]


def turnaround(studies: QuerySet[Study], days: int) -> tuple[list[Turnaround], list[Turnaround]]:
    """Give the times of the reports that became final in the last days, by priority and by modality."""
    finals = (
        StatusChange.objects.filter(
            status=Study.Status.FINAL, changed_at__gte=timezone.now() - timedelta(days=days), study__in=studies
        )
        .values("study")
        .annotate(final_at=Min("changed_at"))
        .values_list("final_at", "study__received_at", "study__priority", "study__modalities_in_study")
        .order_by()[:MOST_READ]
    )
    by_priority: dict[str, list[float]] = defaultdict(list)
    by_modality: dict[str, list[float]] = defaultdict(list)
    for final_at, received_at, priority, modalities in finals:
        minutes = max((final_at - received_at).total_seconds() / 60, 0)
        by_priority[priority].append(minutes)
        by_modality[main_modality(modalities)].append(minutes)
    labels = dict(Priority.choices)
    return (
        [_percentiles(str(labels[p]), by_priority[p]) for p in Priority.values if p in by_priority],
        [_percentiles(m, by_modality[m]) for m in sorted(by_modality)],
    )


def _percentiles(label: str, minutes: list[float]) -> Turnaround:
    if len(minutes) == 1:
        return Turnaround(label, 1, *[round(minutes[0])] * 3)
    cuts = statistics.quantiles(minutes, n=100, method="inclusive")
    return Turnaround(label, len(minutes), round(cuts[49]), round(cuts[89]), round(cuts[94]))


def backlog(studies: QuerySet[Study], now: datetime) -> dict[str, list[int]]:
    """Give by priority how many open cases have waited how long (:data:`AGES`)."""
    waiting = studies.filter(status__in=OPEN_STATUSES).values_list("priority", "received_at")
    counts: dict[str, list[int]] = {priority: [0] * len(AGES) for priority in Priority.values}
    for priority, received_at in waiting.order_by().iterator(chunk_size=5000):
        counts[priority][_age((now - received_at).total_seconds() / 3600)] += 1
    labels = dict(Priority.choices)
    return {str(labels[p]): row for p, row in counts.items() if any(row)}


def _age(hours: float) -> int:
    return next(place for place, (limit, _) in enumerate(AGES) if limit is None or hours < limit)


def load(readers: Iterable[User], studies: QuerySet[Study], days: int) -> list[Load]:
    """Give each reader's open cases, those they have open now, and what they finished in the last days."""
    now = timezone.now()
    assigned = _counted(studies.filter(status__in=OPEN_STATUSES, assigned_to__isnull=False), "assigned_to")
    reading = _counted(studies.filter(claimed_until__gt=now, claimed_by__isnull=False), "claimed_by")
    finished = dict(
        StatusChange.objects.filter(
            Q(status=Study.Status.FINAL) | Q(status=Study.Status.PRELIMINARY),
            changed_at__gte=now - timedelta(days=days),
            study__in=studies,
            user__isnull=False,
        )
        .values_list("user")
        .annotate(count=Count("study", distinct=True))
        .order_by()
    )
    rows = [
        Load(reader, assigned.get(reader.pk, 0), reading.get(reader.pk, 0), finished.get(reader.pk, 0))
        for reader in readers
    ]
    return sorted(rows, key=lambda row: (-row.assigned, -row.finished, str(row.reader)))


def _counted(studies: QuerySet[Study], column: str) -> dict[int, int]:
    return dict(studies.values_list(F(column)).annotate(count=Count("pk")).order_by())
