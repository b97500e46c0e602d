"""Cases whose images aren't there yet: orders as rows of the worklist, where its filter asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.db.models import Case, DateTimeField, F, IntegerField, Q, QuerySet, Value, When
from django.db.models.functions import Cast

from accounts.principals import Principal
from studies.models import Patient, Priority, Study
from studies.orders.models import Order
from studies.orders.selectors import orders_visible_to
from studies.person_names import identifying, searchable
from studies.worklists import selectors
from studies.worklists.rows import Row, rows_of_orders, rows_of_studies
from studies.worklists.selectors import SCHEDULED, in_order
from studies.worklists.sorting import NEVER, Sorting

AWAITING = (Order.Status.SCHEDULED, Order.Status.ARRIVED, Order.Status.IN_PROGRESS)
# A cursor among the orders, which come after the studies.
AMONG_ORDERS = "o."


@dataclass(frozen=True)
class Window:
    """Some rows of the list, the cursor after which it goes on (empty at the end), and its length if that was asked."""

    rows: list[Row]
    after: str
    count: int | None = None


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
    if (
        criteria.get("body_part")
        or criteria.get("late")
        or criteria.get("assigned") not in (None, "", "nobody", "me_or_nobody")
    ):
        return orders.none()  # only images tell of a body part, and nobody reads what isn't there
    if text := (criteria.get("q") or "").strip():
        orders = _of_patient(orders, text)
    if criteria.get("description"):
        orders = orders.filter(requested_procedure_description__icontains=criteria["description"].strip())
    if criteria.get("referrer"):
        orders = orders.filter(referring_physician__name_search__prefix=identifying(criteria["referrer"]))
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
    name = searchable(text.replace(",", "^").replace("^ ", "^"))
    theirs = Patient.objects.filter(patient_id=text).values("pk")
    return orders.filter(Q(patient_name_search__prefix=name) | Q(patient__in=theirs))


def named_as_studies(orders: QuerySet[Order]) -> QuerySet[Order]:
    """Give the orders with their columns called as those of studies are, so that one sorting orders both."""
    return _own_named_as_studies(orders).annotate(
        patient_name=F("patient__patient_name"), patient_id_value=F("patient__patient_id")
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
        next_due_at=Value(NEVER, DateTimeField()),
        modalities_in_study=F("modality"),
        study_description=F("requested_procedure_description"),
        number_of_instances=Cast(Value(0), IntegerField()),  # a bare 0 would be a column's place
    )


def window_of(
    studies: QuerySet[Study], orders: QuerySet[Order] | None, order: Sorting, *, after: str = "", counts: bool = False
) -> Window:
    """Give one window by keyset: the studies, which can be read now, then the orders that were asked for.

    With ``counts`` the list is also counted, up to one more than :data:`selectors.MOST_COUNTED`, by the same search:
    right for a list that is sorted as a whole anyway.
    """
    size = selectors.size_of(after)
    most = selectors.MOST_COUNTED + 1 if counts else size + 1
    rows: list[Row] = []
    found = 0
    if not after.startswith(AMONG_ORDERS):
        pks = selectors.pks_of(studies, order, after=after, most=most)
        rows = in_order(rows_of_studies(studies.filter(pk__in=pks[:size])), pks)
        found = len(pks)
        if found > size or orders is None:
            if counts and orders is not None:
                found += selectors.counted(orders)
            # A row that changed in between may be missing; the list goes on all the same.
            following = order.cursor(rows[-1]) if rows and len(pks) > size else ""
            return Window(rows, following, found if counts else None)
        after = AMONG_ORDERS
    if orders is None:
        return Window(rows, "")
    room = size - len(rows)
    orders = _sortable(orders, order)
    pks = selectors.pks_of(orders, order, after=after.removeprefix(AMONG_ORDERS), most=most)
    of_orders = in_order(rows_of_orders(named_as_studies(orders.filter(pk__in=pks[:room]))), pks)
    goes_on = len(pks) > room
    following = AMONG_ORDERS + (order.cursor(of_orders[-1]) if of_orders else "") if goes_on else ""
    return Window([*rows, *of_orders], following, found + len(pks) if counts else None)


def further(studies: QuerySet[Study], orders: QuerySet[Order] | None, order: Sorting, after: str) -> set[str]:
    """Give the keys of those that lie behind a cursor: in the list, but not in the part of it before the cursor."""
    is_among_orders = after.startswith(AMONG_ORDERS)
    keys = set()
    if not is_among_orders:
        keys = {str(pk) for pk in order.after(studies, after).values_list("pk", flat=True)}
    if orders is not None:
        behind = order.after(_sortable(orders, order), after.removeprefix(AMONG_ORDERS)) if is_among_orders else orders
        keys |= {f"o{pk}" for pk in behind.values_list("pk", flat=True)}
    return keys


def _sortable(orders: QuerySet[Order], order: Sorting) -> QuerySet[Order]:
    """Name what the list is sorted by; the patient's ID costs a join."""
    if any(step.name == "patient_id" for step in order.steps):
        return named_as_studies(orders)
    return _own_named_as_studies(orders)
