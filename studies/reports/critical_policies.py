"""By when a critical result must be acknowledged, and who is told when it isn't: a site's own decision per category.

The defaults follow ACR's categories of actionable findings: communicated within minutes, hours or days.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _

from accounts.capabilities import Capability
from accounts.models import Site, User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.reports.errors import NotAllowed, ReportError
from studies.reports.models import CriticalPolicy, CriticalResult

Category = CriticalResult.Category
REPORTER, LEADS, READERS = "reporter", "leads", "readers"
GROUPS = {
    REPORTER: _("Who flagged it"),
    LEADS: _("Lead radiologists"),
    READERS: _("Everyone who signs reports here"),
}
# The last level is told again and again; more of them would be more names for the same.
MOST_LEVELS = 3
MOST_PEOPLE = 20
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=30)


class UnusablePolicy(ReportError):
    """A policy that would tell nobody, or at once, or never."""

    text = "Each category needs times between 1 minute and 30 days, and at every step someone to tell."


@dataclass(frozen=True)
class Level:
    """Who is told at one step of the escalation: groups, and people by their primary keys."""

    groups: frozenset[str] = frozenset()
    people: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.groups and not self.people


@dataclass(frozen=True)
class Policy:
    """A category's deadline, the span between two steps once it's late, and who is told at each."""

    deadline: timedelta
    step: timedelta
    levels: tuple[Level, ...]

    def level(self, number: int) -> Level:
        """Give who is told at the step counted from 1; after the last one it's those of the last again."""
        return self.levels[min(number, len(self.levels)) - 1]


_LEVELS = (Level(frozenset({REPORTER, LEADS})), Level(frozenset({REPORTER, LEADS, READERS})))
DEFAULTS = {
    Category.MINUTES: Policy(timedelta(minutes=60), timedelta(minutes=15), _LEVELS),
    Category.HOURS: Policy(timedelta(hours=12), timedelta(hours=2), _LEVELS),
    Category.DAYS: Policy(timedelta(days=3), timedelta(days=1), _LEVELS),
}


def policies_of(site_id: int) -> dict[Category, Policy]:
    """Give the site's policy of every category, the defaults where it has decided nothing."""
    kept = {Category(p.category): _policy(p) for p in CriticalPolicy.objects.filter(site=site_id)}
    return {category: kept.get(category, default) for category, default in DEFAULTS.items()}


def policy_of(site_id: int, category: int) -> Policy:
    """Give the site's policy of a category."""
    kept = CriticalPolicy.objects.filter(site=site_id, category=category).first()
    return _policy(kept) if kept is not None else DEFAULTS[Category(category)]


def _policy(kept: CriticalPolicy) -> Policy:
    return Policy(
        timedelta(minutes=kept.deadline_minutes),
        timedelta(minutes=kept.step_minutes),
        tuple(Level(frozenset(one["groups"]), tuple(one["people"])) for one in kept.levels),
    )


@transaction.atomic
def set_policy(*, site: Site, category: int, policy: Policy, principal: Principal) -> bool:
    """Decide a category's policy at a site from now on; results that are flagged already keep their deadline.

    Give whether anything changed. Raises NotAllowed, UnusablePolicy.
    """
    if not principal.may(Capability.ACCOUNT_MANAGE, site.pk):
        raise NotAllowed
    _check(site, policy)
    before = policy_of(site.pk, category)
    if policy == before:
        return False
    CriticalPolicy.objects.update_or_create(site=site, category=category, defaults=_as_row(policy))
    details = {"critical_policy": int(category), "before": _as_row(before), "after": _as_row(policy)}
    record(AuditEvent.Action.CHANGE, principal=principal, site_id=site.pk, details=details)
    return True


def _check(site: Site, policy: Policy) -> None:
    times_are_right = all(SHORTEST <= span <= LONGEST for span in (policy.deadline, policy.step))
    people = {pk for level in policy.levels for pk in level.people}
    if (
        not times_are_right
        or not 0 < len(policy.levels) <= MOST_LEVELS
        or any(
            level.is_empty or level.groups - set(GROUPS) or len(level.people) > MOST_PEOPLE for level in policy.levels
        )
        or people - set(people_of(site).values_list("pk", flat=True))
    ):
        raise UnusablePolicy


def people_of(site: Site) -> QuerySet[User]:
    """Give the people of a site who may be named in its escalation."""
    at_site = User.objects.filter(memberships__site=site, is_active=True)
    return at_site.distinct().order_by("last_name", "first_name", "username")


def people_at(level: Level, *, reporter: User, site_id: int) -> list[User]:
    """Give everyone who is told at a level, each once; who has left meanwhile isn't."""
    people = [reporter] if REPORTER in level.groups else []
    if LEADS in level.groups:
        people += holders(site_id, Capability.CASE_ASSIGN)
    if READERS in level.groups:
        people += holders(site_id, Capability.REPORT_SIGN)
    people += User.objects.filter(pk__in=level.people, is_active=True)
    return list({person.pk: person for person in people}.values())


def holders(site_id: int, capability: Capability) -> list[User]:
    """Give the people whose role at the site holds the capability."""
    found = []
    memberships = Q(memberships__site=site_id)
    for user in User.objects.filter(memberships, is_active=True).distinct().prefetch_related("memberships__role"):
        # Who administers the whole installation holds every capability, but reads no results.
        roles = [m.role for m in user.memberships.all() if m.site_id == site_id]
        if any(capability.value in role.capabilities for role in roles):
            found.append(user)
    return found


def levels_of(groups: Sequence[Collection[str]], people: Sequence[Collection[int]]) -> tuple[Level, ...]:
    """Give the levels that a form names, without empty ones at the end."""
    levels = [Level(frozenset(g), tuple(sorted(p))) for g, p in zip(groups, people, strict=True)]
    while levels and levels[-1].is_empty:
        levels.pop()
    return tuple(levels)


def _as_row(policy: Policy) -> dict[str, Any]:
    return {
        "deadline_minutes": int(policy.deadline.total_seconds() // 60),
        "step_minutes": int(policy.step.total_seconds() // 60),
        "levels": [{"groups": sorted(level.groups), "people": list(level.people)} for level in policy.levels],
    }
