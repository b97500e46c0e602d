"""The worklist's reads; each begins at the gate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import Membership, Role, User
from accounts.principals import Principal
from studies.access import studies_visible_to
from studies.models import ReferringPhysician, Study
from studies.orders.acquisition import is_under_way
from studies.person_names import identifying, searchable
from studies.reading import OPEN_STATUSES
from studies.worklists.models import ReadingGroup, SavedFilter, WorklistPreference
from studies.worklists.sorting import HasPk, Sorting

PAGE = 30
# What follows while one scrolls comes in larger windows.
NEXT_PAGE = 60
# The status of the filter that no study has: orders whose images aren't there yet; see worklists.scheduled.
SCHEDULED = "scheduled"
# The criteria of a filter that can't be applied: to show all would be another filter.
NOTHING = {"nothing": True}
# A count that goes on costs time and tells nobody more.
MOST_COUNTED = 1000


Case = TypeVar("Case", bound=HasPk)


@dataclass(frozen=True)
class Page:
    """A window of the list and the cursor after which it goes on, empty at the end."""

    studies: list[Study]
    after: str


def worklist(principal: Principal, criteria: dict[str, Any]) -> QuerySet[Study]:
    """Give the principal's studies that match the filter form's cleaned values; empty ones are left out."""
    studies = studies_visible_to(principal)
    if criteria.get("status") == [SCHEDULED] or "nothing" in criteria:
        return studies.none()
    # Copies for teaching wait for nobody.
    if principal.teaching_site_ids:
        studies = studies.exclude(site_id__in=principal.teaching_site_ids)
    if criteria.get("q"):
        name = searchable(criteria["q"].replace(",", "^").replace("^ ", "^"))
        studies = studies.filter(Q(patient_name_search__prefix=name) | Q(patient_id_value=criteria["q"].strip()))
    for name, lookup in (("modality", "modalities_in_study__holds"), ("body_part", "body_part_examined__holds")):
        if criteria.get(name):
            studies = studies.filter(_any(lookup, criteria[name]))
    if criteria.get("description"):
        studies = studies.filter(study_description__icontains=criteria["description"].strip())
    if criteria.get("referrer"):
        studies = studies.filter(_referred_by(identifying(criteria["referrer"])))
    for name, column in (("status", "status__in"), ("priority", "priority__in"), ("site", "site__in")):
        if criteria.get(name):
            studies = studies.filter(**{column: criteria[name]})
    if criteria.get("accession_number"):
        studies = studies.filter(accession_number=criteria["accession_number"])
    if criteria.get("since"):
        studies = studies.filter(sort_date__gte=criteria["since"])
    if criteria.get("until"):
        studies = studies.filter(sort_date__lte=criteria["until"], study_date__isnull=False)
    if criteria.get("assigned"):
        studies = studies.filter(_assigned(criteria["assigned"], principal))
    if criteria.get("group"):
        studies = studies.filter(cases_of(criteria["group"]))
    return late(studies, timezone.now()) if criteria.get("late") else studies


def late(studies: QuerySet[Study], now: datetime) -> QuerySet[Study]:
    """Give the open cases whose time is over."""
    return studies.filter(status__in=OPEN_STATUSES, clock__due_at__lte=now)


def _any(lookup: str, values: Iterable[str]) -> Q:
    wanted = Q(pk__in=[])
    for value in values:
        wanted |= Q(**{lookup: value})
    return wanted


def _referred_by(name: str) -> Q:
    """Name by their row ids those whose name begins so, so that nobody is known at once; many are left to a join."""
    called = ReferringPhysician.objects.filter(name_search__prefix=name).values_list("pk", flat=True)
    pks = list(called[: MOST_COUNTED + 1])
    return Q(referring_physician__in=pks if len(pks) <= MOST_COUNTED else called)


def _assigned(choice: str, principal: Principal) -> Q:
    if choice == "nobody":
        return Q(assigned_to__isnull=True)
    if choice == "me":
        return Q(assigned_to=principal.user)
    if choice == "me_or_nobody":
        return Q(assigned_to=principal.user) | Q(assigned_to__isnull=True)
    return Q(assigned_to_id=int(choice))


def cases_of(group: ReadingGroup) -> Q:
    """Give what a reading group's rules say of its cases."""
    wanted = Q(site=group.site_id)
    if group.modalities:
        wanted &= _any("modalities_in_study__holds", group.modalities)
    if group.body_parts:
        wanted &= _any("body_part_examined__holds", group.body_parts)
    if group.words:
        wanted &= _any("study_description__icontains", group.words)
    return wanted


def page_of(studies: QuerySet[Study], order: Sorting, *, after: str = "") -> Page:
    """Give one window by keyset. A cursor that can't be read gives the first one.

    Which rows those are is asked first: whole rows, joined with others', would make a sort of thousands slow.
    """
    size = size_of(after)
    pks = pks_of(studies, order, after=after, most=size + 1)
    rows = in_order(_shown(order.named(studies).filter(pk__in=pks[:size])), pks)
    # A row that changed in between may be missing; the list goes on all the same.
    return Page(rows, order.cursor(rows[-1]) if rows and len(pks) > size else "")


def pks_of(cases: QuerySet[Any], order: Sorting, *, after: str, most: int) -> list[int]:
    """Give the row ids that follow the cursor, in the list's order."""
    return list(order.after(cases, after).order_by(*order.order).values_list("pk", flat=True)[:most])


def in_order(rows: Iterable[Case], pks: Sequence[int]) -> list[Case]:
    """Give the rows in the order of the row ids."""
    place = {pk: number for number, pk in enumerate(pks)}
    return sorted(rows, key=lambda row: place[row.pk])


def size_of(after: str) -> int:
    """Give how many rows a window has: the first few at once, then more at a time."""
    return NEXT_PAGE if after else PAGE


def _shown(studies: QuerySet[Study]) -> QuerySet[Study]:
    return studies.select_related("site").defer("attributes", "corrections")


def counted(rows: QuerySet[Any]) -> int:
    """Say how many there are; one more than :data:`MOST_COUNTED` where there are more."""
    return rows.order_by()[: MOST_COUNTED + 1].count()


def measured(cases: QuerySet[Any]) -> tuple[QuerySet[Any], int]:
    """Count them as :func:`counted` does, and name the few by their row ids: to sort those nothing else is read.

    A database that takes a rare filter for a common one would look for the first of them through all the archive.
    """
    pks = list(cases.order_by().values_list("pk", flat=True)[: MOST_COUNTED + 1])
    return cases if len(pks) > MOST_COUNTED else cases.filter(pk__in=pks), len(pks)


def number(count: int) -> str:
    """Write a count as it's shown, up to a thousand."""
    return f"{MOST_COUNTED:,}+" if count > MOST_COUNTED else f"{count:,}"


def is_of_open_cases(criteria: dict[str, Any]) -> bool:
    """Say whether the list holds only cases that wait for images or a report: few, so that any column may sort them."""
    statuses = criteria.get("status") or []
    return bool(statuses) and set(statuses) <= {*OPEN_STATUSES, SCHEDULED}


def is_short(criteria: dict[str, Any], count: int) -> bool:
    """Say whether a list of so many may be sorted by any column: of open cases, or of no more than are counted."""
    return is_of_open_cases(criteria) or count <= MOST_COUNTED


def priors(principal: Principal, study: Study) -> QuerySet[Study]:
    """Give the same patient's other studies at the same site, the newest first."""
    others = studies_visible_to(principal).filter(patient_id=study.patient_id).exclude(pk=study.pk)
    return others.order_by("-sort_date", "-pk")[:30]


def waiting(
    principal: Principal,
    criteria: dict[str, Any],
    order: Sorting,
    *,
    beside: Study | None = None,
    passed_over: Sequence[int] = (),
) -> Iterator[Study]:
    """Give the cases of the list that the principal may take next, in the list's own order.

    Those are unread, have all their images, aren't another's by assignment unless the list asks for it, and nobody else
    holds them. Without a filter of its own the list is taken by urgency, the oldest first. Those that were passed over,
    by their row ids, come after all others, in the order in which they were.
    """
    unread = worklist(principal, {**criteria, "status": [Study.Status.ARRIVED]})
    sites = principal.sites_with(Capability.REPORT_WRITE)
    if sites is not None:
        unread = unread.filter(site_id__in=sorted(sites))
    unread = unread.exclude(
        Q(claimed_until__gt=timezone.now()) & ~Q(claimed_by=principal.user) & Q(claimed_by__isnull=False)
    )
    if not criteria.get("assigned"):
        unread = unread.filter(Q(assigned_to__isnull=True) | Q(assigned_to=principal.user))
    # A study's first images are here a moment before its status says that more are to come.
    unread = unread.exclude(is_under_way(sites))
    if beside is not None:
        unread = unread.exclude(pk=beside.pk)
    pks = pks_of(unread.exclude(pk__in=passed_over), order, after="", most=20)
    pks += passed_over[: 20 - len(pks)]
    yield from in_order(unread.filter(pk__in=pks).select_related("site", "patient"), pks)


def filters_of(user: User, preference: WorklistPreference) -> list[SavedFilter]:
    """Give the user's own filters, and those shared with their groups and roles, in the order that the user chose."""
    roles = Membership.objects.filter(user=user).values("role")
    groups = ReadingGroup.objects.filter(members=user)
    found = SavedFilter.objects.filter(Q(user=user) | Q(role__in=roles) | Q(group__in=groups.values("pk")))
    place = {pk: number for number, pk in enumerate(preference.filters)}
    named = found.select_related("group", "role", "user").distinct()
    return sorted(named, key=lambda kept: place.get(kept.pk, len(place)))


def preference_of(user: User | None) -> WorklistPreference:
    """Give what the user chose, or an unsaved default."""
    kept = WorklistPreference.objects.filter(user=user).first() if user is not None else None
    return kept or WorklistPreference(user=user)


def readers_at(site_ids: Iterable[int]) -> QuerySet[User]:
    """Give those who may write reports at one of the sites."""
    return holders_at(site_ids, Capability.REPORT_WRITE)


def names_of(user_ids: set[int]) -> dict[int, str]:
    """Give what the people are called."""
    people = User.objects.filter(pk__in=user_ids).only("username", "first_name", "last_name")
    return {user.pk: str(user) for user in people}


def holders_at(site_ids: Iterable[int], capability: Capability) -> QuerySet[User]:
    """Give those who hold the capability at one of the sites."""
    roles = [pk for pk, held in Role.objects.values_list("pk", "capabilities") if capability in held]
    there = Membership.objects.filter(Q(site__in=list(site_ids)) | Q(site__isnull=True), role__in=roles)
    return User.objects.filter(is_active=True, pk__in=there.values("user")).order_by("last_name", "username")


def groups_shared_with(principal: Principal) -> QuerySet[ReadingGroup]:
    """Give the reading groups with which the principal may share a filter: their own, all of the sites for a lead."""
    groups = groups_seen_by(principal)
    return groups if principal.may(Capability.CASE_ASSIGN) else groups.filter(members=principal.user)


def roles_shared_with(principal: Principal) -> QuerySet[Role]:
    """Give the roles with which the principal may share a filter: their own, every one for a lead."""
    if principal.may(Capability.CASE_ASSIGN):
        return Role.objects.all()
    return Role.objects.filter(pk__in=Membership.objects.filter(user=principal.user).values("role"))


def groups_seen_by(principal: Principal) -> QuerySet[ReadingGroup]:
    """Give the reading groups of the principal's sites."""
    sites = principal.sites_with(Capability.STUDY_VIEW)
    groups = ReadingGroup.objects.select_related("site")
    return groups if sites is None else groups.filter(site__in=sorted(sites))


def open_cases(principal: Principal, site_ids: frozenset[int] | None) -> QuerySet[Study]:
    """Give the cases that wait for a report at the sites (None: at all of them)."""
    cases = studies_visible_to(principal).filter(status__in=OPEN_STATUSES)
    return cases if site_ids is None else cases.filter(site_id__in=sorted(site_ids))
