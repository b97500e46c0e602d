"""The worklist's writes."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from studies.worklists.models import SavedFilter


@transaction.atomic
def save_filter(*, user: User, name: str, query: str) -> SavedFilter:
    """Keep a filter under a name; an equal name is overwritten."""
    kept, _ = SavedFilter.objects.update_or_create(user=user, name=name[:60], defaults={"query": query[:1000]})
    return kept


@transaction.atomic
def delete_filter(*, user: User, pk: int) -> None:
    """Forget one of the user's filters."""
    SavedFilter.objects.filter(user=user, pk=pk).delete()
