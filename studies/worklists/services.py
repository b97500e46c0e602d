"""What people keep of their worklists."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.http import QueryDict

from accounts.capabilities import Capability
from accounts.models import Membership, Role, User
from accounts.principals import Principal
from studies.errors import NotAllowed
from studies.worklists.columns import COLUMNS
from studies.worklists.models import ReadingGroup, SavedFilter, WorklistPreference
from studies.worklists.selectors import filters_of, preference_of

# A patient's name, ID or accession number in a filter is for whoever may see that patient: not for a whole role.
OF_A_PATIENT = ("q", "accession_number")


class NamesPatient(ValueError):
    """A filter that names a patient can't be shared."""


@transaction.atomic
def save_filter(
    *, principal: Principal, name: str, query: str, group: ReadingGroup | None = None, role: Role | None = None
) -> SavedFilter:
    """Keep a filter under a name, an equal name of the same person overwritten; with a group or role it's shared.

    Raises NotAllowed for a group or role that the person isn't in, unless they assign cases; NamesPatient.
    """
    user = principal.user
    if user is None or not _may_share(principal, user, group, role):
        raise NotAllowed
    _check_shared(query, group, role)
    kept, _ = SavedFilter.objects.update_or_create(
        user=user, name=name[:60], defaults={"query": query, "group": group, "role": role}
    )
    return kept


def _check_shared(query: str, group: ReadingGroup | None, role: Role | None) -> None:
    if (group or role) and any(QueryDict(query).get(name) for name in OF_A_PATIENT):
        raise NamesPatient


def _may_share(principal: Principal, user: User, group: ReadingGroup | None, role: Role | None) -> bool:
    if principal.may(Capability.CASE_ASSIGN):
        return True
    is_member = group is None or group.members.filter(pk=user.pk).exists()
    return is_member and (role is None or Membership.objects.filter(user=user, role=role).exists())


@transaction.atomic
def change_filter(
    *,
    kept: SavedFilter,
    principal: Principal,
    name: str,
    group: ReadingGroup | None = None,
    role: Role | None = None,
) -> None:
    """Give one of one's own filters another name or other readers.

    Raises NotAllowed for another's filter, and for a group or role that the person isn't in, unless they assign cases
    or the filter is shared with it already; NamesPatient.
    """
    user = principal.user
    is_as_before = (kept.group, kept.role) == (group, role)
    if user is None or kept.user_id != user.pk or not (is_as_before or _may_share(principal, user, group, role)):
        raise NotAllowed
    _check_shared(kept.query, group, role)
    kept.name, kept.group, kept.role = name[:60], group, role
    kept.save(update_fields=["name", "group", "role"])


@transaction.atomic
def replace_filter(*, kept: SavedFilter, query: str) -> None:
    """Give a filter other conditions. Raises NamesPatient."""
    _check_shared(query, kept.group, kept.role)
    kept.query = query
    kept.save(update_fields=["query"])


@transaction.atomic
def move_filter(*, user: User, pk: int, step: int) -> None:
    """Move a filter so many places in the user's own order; one that the user doesn't see stays out of it."""
    preference = preference_of(user)
    pks = [kept.pk for kept in filters_of(user, preference)]
    if pk not in pks:
        return
    place = pks.index(pk)
    pks.insert(max(place + step, 0), pks.pop(place))
    WorklistPreference.objects.update_or_create(user=user, defaults={"filters": pks})


@transaction.atomic
def delete_filter(*, user: User, pk: int) -> None:
    """Forget one of the user's own filters."""
    SavedFilter.objects.filter(user=user, pk=pk).delete()


@transaction.atomic
def save_columns(*, user: User, names: Sequence[str]) -> None:
    """Remember the columns and their order; unknown ones are left out, none means the usual ones."""
    known = list(dict.fromkeys(name for name in names if name in COLUMNS))
    WorklistPreference.objects.update_or_create(user=user, defaults={"columns": known})


@transaction.atomic
def save_sort(*, user: User, sort: str) -> None:
    """Remember the sort that was used last."""
    WorklistPreference.objects.update_or_create(user=user, defaults={"sort": sort[:120]})
