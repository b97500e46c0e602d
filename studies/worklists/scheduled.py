"""Cases whose images aren't there yet: orders as rows of the worklist, where its filter asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.db.models import Case, F, IntegerField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Cast, Upper
from django.utils.translation import gettext_lazy as _

from accounts.principals import Principal
from studies.models import Patient, Priority, Study
from studies.orders.models import Order
from studies.orders.selectors import orders_visible_to
from studies.person_names import searchable
from studies.worklists import selectors
from studies.worklists.selectors import SCHEDULED
from studies.worklists.sorting import Sorting

AWAITING = (Order.Status.SCHEDULED, Order.Status.ARRIVED, Order.Status.IN_PROGRESS)
LABELS = {
    Order.Status.ARRIVED: _("Patient is here"),
    Order.Status.IN_PROGRESS: _("Being imaged"),
}
# A cursor among the orders, which come after the studies.
AMONG_ORDERS = "o."
MOST_KNOWN = 1000
Row = Study | Order


@dataclass(frozen=True)
class CasePage:
    """A window of the list and the cursor after which it goes on, empty at the end."""

    cases: list[Row]
    after: str


def orders_asked_for(principal: Principal, criteria: dict[str, Any]) -> QuerySet[Order] | None:
    """Give the orders without images that match the filter form's values; None when its status asks for none."""
    statuses = criteria.get("status") or []
    wanted = [*AWAITING] if SCHEDULED in statuses else []
    if Study.Status.CANCELLED in statuses:
        wanted.append(Order.Status.CANCELLED)
    if not wanted:
        return None
    orders = orders_visible_to(principal).prefetch_related(None).filter(study__isnull=True, status__in=wanted)
    return _matching(orders, criteria)


def _matching(orders: QuerySet[Order], criteria: dict[str, Any]) -> QuerySet[Order]:
    if criteria.get("body_part") or criteria.get("assigned") not in (None, "", "nobody", "me_or_nobody"):
        return orders.none()  # only images tell of a body part, and nobody reads what isn't there
    if text := (criteria.get("q") or "").strip():
        orders = _of_patient(orders, text)
    if criteria.get("description"):
        orders = orders.filter(requested_procedure_description__icontains=criteria["description"].strip())
    if criteria.get("referrer"):
        orders = orders.filter(referring_physician__name_search__prefix=searchable(criteria["referrer"]))
    for name, column in (("modality", "modality__in"), ("priority", "priority__in"), ("site", "site__in")):
        if criteria.get(name):
            orders = orders.filter(**{column: criteria[name]})
    if criteria.get("accession_number"):
        orders = orders.filter(accession_number=criteria["accession_number"])
    if criteria.get("since"):
        orders = orders.filter(scheduled_at__gte=datetime.combine(criteria["since"], time.min, tzinfo=UTC))
    if criteria.get("until"):
        end = datetime.combine(criteria["until"], time.min, tzinfo=UTC) + timedelta(days=1)
        orders = orders.filter(scheduled_at__lt=end)
    if group := criteria.get("group"):
        if group.body_parts:
            return orders.none()
        orders = orders.filter(site=group.site_id)
        if group.modalities:
            orders = orders.filter(modality__in=group.modalities)
        words = Q()
        for word in group.words:
            words |= Q(requested_procedure_description__icontains=word)
        orders = orders.filter(words)
    return orders


def _of_patient(orders: QuerySet[Order], text: str) -> QuerySet[Order]:
    """Give the orders of patients with the ID, or whose name begins so."""
    name = text.replace(",", "^").replace("^ ", "^")
    # Few orders wait, patients are many: each order's is looked up, instead of all patients joined.
    own = Patient.objects.filter(pk=OuterRef("patient")).values_list(Upper("patient_name"))
    # Without the marks a name is known only from a patient's studies; more letters find more of them.
    known = Study.objects.filter(patient_name_search__prefix=searchable(name)).values("patient")[:MOST_KNOWN]
    return orders.alias(own_name=Subquery(own[:1])).filter(
        Q(own_name__startswith=name.upper())
        | Q(patient__in=Patient.objects.filter(patient_id=text).values("pk"))
        | Q(patient__in=known)
    )


def named_as_studies(orders: QuerySet[Order]) -> QuerySet[Order]:
    """Give the orders with their columns called as those of studies are, so that one sorting orders both."""
    return _own_named_as_studies(orders).annotate(
        patient_name=F("patient__patient_name"),
        patient_name_search=F("patient__patient_name"),
        patient_id_value=F("patient__patient_id"),
    )


def _own_named_as_studies(orders: QuerySet[Order]) -> QuerySet[Order]:
    rank = Case(
        *(When(priority=value, then=rank) for rank, value in enumerate(Priority.values)),
        default=len(Priority.values),
        output_field=IntegerField(),
    )
    return orders.annotate(
        sort_date=F("scheduled_at"),
        received_at=F("placed_at"),
        priority_rank=rank,
        modalities_in_study=F("modality"),
        study_description=F("requested_procedure_description"),
        number_of_instances=Cast(Value(0), IntegerField()),  # a bare 0 would be a column's place
    )


def page_of(studies: QuerySet[Study], orders: QuerySet[Order] | None, order: Sorting, *, after: str = "") -> CasePage:
    """Give one window by keyset: the studies, which can be read now, then the orders that were asked for."""
    cases: list[Row] = []
    size = selectors.size_of(after)
    if not after.startswith(AMONG_ORDERS):
        found = selectors.page_of(studies, order, after=after)
        if found.after or orders is None:
            return CasePage([*found.studies], found.after)
        cases, after = [*found.studies], AMONG_ORDERS
    if orders is None:
        return CasePage(cases, "")
    room = size - len(cases)
    orders = _sortable(orders, order)
    following = order.after(orders, after.removeprefix(AMONG_ORDERS)).order_by(*order.order)
    pks = list(following.values_list("pk", flat=True)[: room + 1])
    place = {pk: number for number, pk in enumerate(pks)}
    rows = sorted(rows_of(orders, pks[:room]), key=lambda row: place[row.pk])
    if len(pks) <= room:
        return CasePage([*cases, *rows], "")
    return CasePage([*cases, *rows], AMONG_ORDERS + (order.cursor(rows[-1]) if rows else ""))


def rows_of(orders: QuerySet[Order], pks: list[int]) -> list[Order]:
    """Give those of the rows that the list holds now."""
    return list(named_as_studies(orders.filter(pk__in=pks)).select_related("patient", "site"))


def _sortable(orders: QuerySet[Order], order: Sorting) -> QuerySet[Order]:
    """Name what the list is sorted by; a patient's columns cost a join."""
    if any(step.name in {"name", "patient_id"} for step in order.steps):
        return named_as_studies(orders)
    return _own_named_as_studies(orders)


def key_of(case: Row) -> str:
    """Give what a row is called in the list: the row id, of an order with an ``o`` before it."""
    return f"o{case.pk}" if isinstance(case, Order) else str(case.pk)


def dress(order: Order) -> None:
    """Give an order what the list's cells ask of a study."""
    shown: Any = order
    shown.is_order = True
    shown.modalities = [order.modality] if order.modality else []
    shown.study_date, shown.study_time = order.scheduled_at.date(), order.scheduled_at.time()
    shown.status_label = LABELS.get(Order.Status(order.status), "")
