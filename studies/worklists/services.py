"""What people keep of their worklists."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from accounts.capabilities import Capability
from accounts.models import Membership, Role, User
from accounts.principals import Principal
from studies.errors import NotAllowed
from studies.worklists.columns import COLUMNS
from studies.worklists.models import ReadingGroup, SavedFilter, WorklistPreference


@transaction.atomic
def save_filter(
    *, principal: Principal, name: str, query: str, group: ReadingGroup | None = None, role: Role | None = None
) -> SavedFilter:
    """Keep a filter under a name, an equal name of the same person overwritten; with a group or role it's shared.

    Raises NotAllowed for a group or role that the person isn't in, unless they assign cases.
    """
    user = principal.user
    if user is None:
        raise NotAllowed
    if not principal.may(Capability.CASE_ASSIGN):
        is_member = group is None or group.members.filter(pk=user.pk).exists()
        holds = role is None or Membership.objects.filter(user=user, role=role).exists()
        if not (is_member and holds):
            raise NotAllowed
    kept, _ = SavedFilter.objects.update_or_create(
        user=user, name=name[:60], defaults={"query": query[:1000], "group": group, "role": role}
    )
    return kept


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
