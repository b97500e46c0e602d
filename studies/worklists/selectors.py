"""The worklist's reads; each begins at the gate."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db.models import F, OrderBy, Q, QuerySet

from accounts.principals import Principal
from studies.access import studies_visible_to
from studies.models import Study
from studies.person_names import searchable

PAGE = 50


@dataclass(frozen=True)
class Sort:
    """An order of the worklist: by a column, ties by row id, rows without a value last."""

    column: str
    is_descending: bool

    def order(self, *, reverse: bool = False) -> list[OrderBy]:
        column, pk = F(self.column), F("pk")
        nulls: dict[str, Any] = {"nulls_first": True} if reverse else {"nulls_last": True}
        if self.is_descending is not reverse:
            return [column.desc(**nulls), pk.desc()]
        return [column.asc(**nulls), pk.asc()]

    def beyond(self, value: Any, pk: int, *, reverse: bool = False) -> Q:
        """Give what comes after the row with this value and id; with ``reverse`` what comes before it."""
        goes_down = self.is_descending is not reverse
        step = "lt" if goes_down else "gt"
        further = Q(**{f"pk__{step}": pk})
        if value is None:
            same = Q(**{f"{self.column}__isnull": True})
            return (same & further) | (Q(**{f"{self.column}__isnull": False}) if reverse else Q(pk__in=[]))
        after = Q(**{f"{self.column}__{step}": value}) | (Q(**{self.column: value}) & further)
        return after if reverse else after | Q(**{f"{self.column}__isnull": True})


SORTS = {
    "-date": Sort("sort_date", True),
    "date": Sort("sort_date", False),
    "-arrival": Sort("received_at", True),
    "arrival": Sort("received_at", False),
    "name": Sort("patient_name_search", False),
    "-name": Sort("patient_name_search", True),
    "status": Sort("status", False),
    "-status": Sort("status", True),
}
DEFAULT_SORT = "-date"


@dataclass(frozen=True)
class Page:
    """A page of studies and the cursors of the pages beside it, empty where there's none."""

    studies: list[Study]
    before: str
    after: str


def worklist(principal: Principal, criteria: dict[str, Any]) -> QuerySet[Study]:
    """Give the principal's studies that match the filter form's cleaned values; empty ones are left out."""
    studies = studies_visible_to(principal)
    if criteria.get("q"):
        name = searchable(criteria["q"].replace(",", "^").replace("^ ", "^"))
        studies = studies.filter(Q(patient_name_search__prefix=name) | Q(patient_id_value=criteria["q"].strip()))
    if criteria.get("modality"):
        studies = studies.filter(modalities_in_study__holds=criteria["modality"])
    if criteria.get("referrer"):
        studies = studies.filter(referring_physician__name_search__prefix=searchable(criteria["referrer"]))
    exact = {"accession_number": "accession_number", "status": "status", "site": "site__slug"}
    for name, column in exact.items():
        if criteria.get(name):
            studies = studies.filter(**{column: criteria[name]})
    if criteria.get("since"):
        studies = studies.filter(sort_date__gte=criteria["since"])
    if criteria.get("until"):
        studies = studies.filter(sort_date__lte=criteria["until"], study_date__isnull=False)
    return studies


def page_of(studies: QuerySet[Study], sort_name: str, *, after: str = "", before: str = "") -> Page:
    """Give one page by keyset. A cursor that can't be read gives the first page."""
    sort = SORTS.get(sort_name, SORTS[DEFAULT_SORT])
    cursor = _decoded(before or after, sort)
    is_backward = bool(before) and cursor is not None
    if cursor is not None:
        studies = studies.filter(sort.beyond(*cursor, reverse=is_backward))
    rows = list(studies.select_related("site", "patient").order_by(*sort.order(reverse=is_backward))[: PAGE + 1])
    has_more = len(rows) > PAGE
    rows = rows[:PAGE]
    if is_backward:
        rows.reverse()
    if not rows:
        return Page([], "", "")
    has_previous = has_more if is_backward else cursor is not None
    has_next = True if is_backward else has_more
    return Page(
        rows,
        _encoded(rows[0], sort) if has_previous else "",
        _encoded(rows[-1], sort) if has_next else "",
    )


def _encoded(study: Study, sort: Sort) -> str:
    value = getattr(study, sort.column)
    text = value.isoformat() if isinstance(value, date | datetime) else value
    return base64.urlsafe_b64encode(json.dumps([text, study.pk]).encode()).decode().rstrip("=")


def _decoded(cursor: str, sort: Sort) -> tuple[Any, int] | None:
    if not cursor:
        return None
    try:
        text, pk = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(pk, int) or abs(pk) > 2**62 or not isinstance(text, str | None):
            return None
        if text is None:
            return None, pk
        if sort.column == "sort_date":
            return date.fromisoformat(text), pk
        if sort.column == "received_at":
            return datetime.fromisoformat(text), pk
        return text.replace("\x00", ""), pk
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None


def priors(principal: Principal, study: Study) -> QuerySet[Study]:
    """Give the same patient's other studies at the same site, the newest first."""
    others = studies_visible_to(principal).filter(patient_id=study.patient_id).exclude(pk=study.pk)
    return others.order_by("-sort_date", "-pk")[:30]


def next_unread(principal: Principal, criteria: dict[str, Any], *, beside: Study | None = None) -> Study | None:
    """Give the next study that waits for a reader, the oldest first; another one than ``beside``."""
    waiting = worklist(principal, {**criteria, "status": Study.Status.ARRIVED})
    if beside is not None:
        waiting = waiting.exclude(pk=beside.pk)
    return waiting.order_by(F("study_date").asc(nulls_last=True), "pk").first()
