"""A row of the worklist: a study, or an order whose images aren't there yet, as plain values.

Thirty rows of five joined models each would take longer to make than to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from django.db.models import QuerySet

from studies.models import Study
from studies.orders.models import Order
from studies.reading import OPEN_STATUSES
from studies.worklists.sorting import NEVER


@dataclass(slots=True)
class Row:
    """What cells show and cursors continue after; an order's columns are called as those of studies are."""

    pk: int
    site_id: int
    site: str
    patient_name: str
    patient_name_search: str
    patient_id_value: str
    patient_birth_date: date | None
    patient_sex: str
    sort_date: date
    received_at: datetime
    accession_number: str
    study_description: str
    referring_physician_name: str
    modalities_in_study: str
    number_of_instances: int
    status: str
    priority: str
    priority_rank: int
    study_instance_uid: str = ""
    study_date: date | None = None
    study_time: time | None = None
    body_part_examined: str = ""
    has_conflict: bool = False
    assigned_to: int | None = None
    claimed_by: int | None = None
    claimed_until: datetime | None = None
    due_at: datetime | None = None
    tier: str = Study.Tier.HOT
    is_order: bool = False
    # Behind what the page has loaded of its list.
    is_further: bool = False

    @property
    def next_due_at(self) -> datetime:
        """Give when the case is due, as lists are sorted by it."""
        return self.due_at if self.due_at is not None and self.status in OPEN_STATUSES else NEVER

    @property
    def key(self) -> str:
        """Give what the row is called in the page: the row id, of an order with an ``o`` before it."""
        return f"o{self.pk}" if self.is_order else str(self.pk)


_COMMON = (
    *("pk", "site_id", "site__name", "patient_name", "patient_name_search", "patient_id_value"),
    *("patient__patient_birth_date", "patient__patient_sex", "sort_date", "received_at", "accession_number"),
    *("study_description", "referring_physician_name", "modalities_in_study", "number_of_instances", "status"),
    *("priority", "priority_rank"),
)
_OF_STUDIES = (
    *("study_instance_uid", "study_date", "study_time", "body_part_examined", "has_conflict", "assigned_to_id"),
    *("claimed_by_id", "claimed_until", "clock__due_at", "tier"),
)


def rows_of_studies(studies: QuerySet[Study]) -> list[Row]:
    """Give a row for each study."""
    return [Row(*values) for values in studies.order_by().values_list(*_COMMON, *_OF_STUDIES)]


def rows_of_orders(orders: QuerySet[Order]) -> list[Row]:
    """Give a row for each order, its columns named as those of studies are."""
    rows = [Row(*values) for values in orders.order_by().values_list(*_COMMON)]
    for row in rows:
        row.is_order = True
        moment: Any = row.sort_date
        row.study_date, row.study_time = moment.date(), moment.time()
    return rows
