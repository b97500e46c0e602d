"""Cases shared out: by rule on arrival (subspecialty, load, shift), or by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.errors import NotAllowed
from studies.models import Study
from studies.reading import OPEN_STATUSES, UNFINISHED_STATUSES, assign_by_rule, assign_study, set_priority
from studies.worklists.models import AssignmentRule, ReadingGroup, Shift, TurnaroundTarget
from studies.worklists.selectors import cases_of, readers_at

Managed = ReadingGroup | Shift | AssignmentRule | TurnaroundTarget


def assign_on_arrival(*, study_id: int) -> User | None:
    """Give a case that nobody has to the reader whom the first fitting rule finds; None when no rule finds one."""
    rules = list(AssignmentRule.objects.filter(is_active=True, group__site__studies=study_id).select_related("group"))
    # Where a site has none, nothing need be locked.
    return _assign_by(rules, study_id) if rules else None


@transaction.atomic
def _assign_by(rules: list[AssignmentRule], study_id: int) -> User | None:
    study = Study.objects.select_for_update(of=("self",)).filter(pk=study_id, assigned_to__isnull=True).first()
    if study is None or study.status not in UNFINISHED_STATUSES:
        return None
    for rule in rules:
        if (
            Study.objects.filter(cases_of(rule.group), pk=study.pk).exists()
            and (reader := _reader(rule.group, only_on_shift=rule.only_on_shift)) is not None
        ):
            assign_by_rule(study=study, reader=reader)
            return reader
    return None


@transaction.atomic
def assign_to_group(*, study_id: int, name: str) -> User | None:
    """Give a case that a routing rule sent to a reading group to one of its members, those on duty first.

    A case that somebody is writing, and one of a group that its site doesn't have, stays as it is: None.
    """
    study = Study.objects.select_for_update(of=("self",)).filter(pk=study_id).first()
    if study is None or study.status not in UNFINISHED_STATUSES or study.claimed_by_id is not None:
        return None
    group = ReadingGroup.objects.filter(site=study.site_id, name__iexact=name).first()
    if group is None:
        return None
    reader = _reader(group, only_on_shift=True) or _reader(group, only_on_shift=False)
    if reader is not None:
        assign_by_rule(study=study, reader=reader)
    return reader


def _reader(group: ReadingGroup, *, only_on_shift: bool) -> User | None:
    """Give the group's member with the fewest open cases."""
    members = readers_at([group.site_id]).filter(reading_groups=group)
    if only_on_shift:
        now = timezone.now()
        on_duty = Shift.objects.filter(site=group.site_id, starts_at__lte=now, ends_at__gt=now)
        members = members.filter(pk__in=on_duty.values("user"))
    load = Count("assigned_studies", filter=Q(assigned_studies__status__in=OPEN_STATUSES))
    return members.annotate(load=load).order_by("load", "pk").first()


def assign_cases(*, studies: Iterable[Study], reader: User | None, principal: Principal) -> int:
    """Assign cases by hand and give how many; each is a transaction, so that one refusal holds up no other."""
    studies = list(studies)
    readers = {study.site_id: set(readers_at([study.site_id]).values_list("pk", flat=True)) for study in studies}
    done = 0
    for study in studies:
        if reader is None or reader.pk in readers[study.site_id]:
            try:
                assign_study(study=study, reader=reader, principal=principal)
            except NotAllowed:
                continue
            done += 1
    return done


def prioritise_cases(*, studies: Iterable[Study], priority: str, principal: Principal) -> int:
    """Set the priority of cases and give how many were allowed. Raises ValueError for an unknown priority."""
    done = 0
    for study in studies:
        try:
            set_priority(study=study, priority=priority, principal=principal)
        except NotAllowed:
            continue
        done += 1
    return done


@transaction.atomic
def keep(*, thing: Managed, principal: Principal, members: Iterable[User] | None = None) -> None:
    """Keep a new or changed group, shift, rule or target, validated already. Raises NotAllowed."""
    _require(thing, principal)
    what = "added" if thing._state.adding else "changed"
    thing.save()
    if isinstance(thing, ReadingGroup) and members is not None:
        thing.members.set(members)
    _record(thing, what, principal)


@transaction.atomic
def forget(*, thing: Managed, principal: Principal) -> None:
    """Delete a group, shift, rule or target. Raises NotAllowed."""
    _require(thing, principal)
    _record(thing, "removed", principal)
    thing.delete()


def _site_id(thing: Managed) -> int:
    return thing.group.site_id if isinstance(thing, AssignmentRule) else thing.site_id


def _require(thing: Managed, principal: Principal) -> None:
    if not principal.may(Capability.CASE_ASSIGN, _site_id(thing)):
        raise NotAllowed


def _record(thing: Managed, what: str, principal: Principal) -> None:
    details: dict[str, Any] = {"what": f"{thing._meta.verbose_name} {what}", "which": str(thing)}
    record(AuditEvent.Action.CHANGE, principal=principal, site_id=_site_id(thing), details=details)
