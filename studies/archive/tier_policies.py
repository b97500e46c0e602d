"""Which studies a site's policy moves to the cold tier, and how much lies where."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Sum
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.archive import objects
from studies.archive.errors import MoveRefused, MoveUnderWay, NotAuthorised
from studies.archive.models import TierFigure, TierMove, TierPolicy
from studies.archive.tiers import OPEN, Origin, in_use, to_cold
from studies.models import Instance, Study

MOST_DAYS = 36_500
# No more wait at a time, and no more are looked at in one run: the archive's other work goes first.
MOST_WAITING, MOST_LOOKED_AT = 200, 500
LOOK_AGAIN = timedelta(days=1)
LOOKED_AT = (
    *(AuditEvent.Action.VIEW, AuditEvent.Action.RETRIEVE, AuditEvent.Action.EXPORT),
    *(AuditEvent.Action.REPORT_READ, AuditEvent.Action.REPORT_DRAFT, AuditEvent.Action.REPORT_SIGN),
)


@dataclass(frozen=True)
class Policy:
    """After how many days a site's studies go to the cold tier (None: never), and whether the site decided that."""

    days: int | None
    is_own: bool


def default_policy() -> int | None:
    """Give the days of sites that have decided nothing; None: never."""
    kept = TierPolicy.objects.filter(site__isnull=True).first()
    return kept.cold_after_days if kept is not None else None


def policies_of(sites: Collection[Site]) -> dict[int, Policy]:
    """Give each site's policy, by the site's id."""
    default = default_policy()
    own = dict(TierPolicy.objects.filter(site__in=sites).values_list("site_id", "cold_after_days"))
    return {s.pk: Policy(own[s.pk], True) if s.pk in own else Policy(default, False) for s in sites}


@transaction.atomic
def set_policy(*, site: Site | None, days: int | None, is_own: bool = True, principal: Principal) -> None:
    """Decide after how many days a site's studies go cold, without a site those of all that have decided nothing.

    With ``is_own`` false the site goes by the installation's again. Raises NotAuthorised, ValueError.
    """
    may = (
        principal.may(Capability.STORAGE_MANAGE, site.pk)
        if site is not None
        else principal.sites_with(Capability.STORAGE_MANAGE) is None
    )
    if not may:
        raise NotAuthorised
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise ValueError(days)
    kept = TierPolicy.objects.select_for_update().filter(site=site).first()
    before = kept.cold_after_days if kept is not None else "installation's"
    after = days if is_own or site is None else "installation's"
    if before == after:
        return
    if site is not None and not is_own:
        TierPolicy.objects.filter(site=site).delete()
    else:
        TierPolicy.objects.update_or_create(site=site, defaults={"cold_after_days": days})
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=site.pk if site is not None else None,
        details={"what": "tier policy", "cold_after_days": after, "before": before},
    )


def propose_moves(*, now: datetime | None = None) -> int:
    """Ask for the moves that the sites' policies want, a bounded number; give how many."""
    if not objects.has_cold_tier():
        return 0
    now = now or timezone.now()
    room = MOST_WAITING - TierMove.objects.filter(status__in=OPEN).count()
    asked = 0
    sites = list(Site.objects.order_by("pk"))
    for site_id, policy in policies_of(sites).items():
        if policy.days is None:
            continue
        cutoff = now - timedelta(days=policy.days)
        asked_for = TierMove.objects.filter(study=OuterRef("pk"), status__in=OPEN)
        unused = Study.objects.filter(~Exists(asked_for), site=site_id, tier=Study.Tier.HOT, used_at__lt=cutoff)
        candidates = list(unused.order_by("used_at", "pk")[: min(MOST_LOOKED_AT, max(room - asked, 0))])
        asked += _propose(candidates, cutoff)
    return asked


def _propose(candidates: list[Study], cutoff: datetime) -> int:
    failed = set(
        TierMove.objects.filter(study__in=candidates, status=TierMove.Status.FAILED).values_list("study_id", flat=True)
    )
    held = in_use(candidates)
    asked = 0
    for study in candidates:
        used_at = max(study.updated_at, study.received_at, _looked_at(study, cutoff) or study.received_at)
        if used_at >= cutoff:
            Study.objects.filter(pk=study.pk).update(used_at=used_at)
        elif study.pk in held or study.pk in failed:
            # So that those behind it get their turn.
            Study.objects.filter(pk=study.pk).update(used_at=cutoff + LOOK_AGAIN)
        else:
            try:
                to_cold(study, origin=Origin.POLICY)
                asked += 1
            except (MoveRefused, MoveUnderWay):
                Study.objects.filter(pk=study.pk).update(used_at=cutoff + LOOK_AGAIN)
    return asked


def _looked_at(study: Study, since: datetime) -> datetime | None:
    """Give when somebody looked at the study last, by the trail; None when that was before ``since``."""
    events = AuditEvent.objects.filter(
        study_instance_uid=study.study_instance_uid, site=study.site_id, action__in=LOOKED_AT, occurred_at__gte=since
    )
    return events.order_by("-sequence").values_list("occurred_at", flat=True).first()


def count_tiers() -> None:
    """Count what lies where; reads every instance's row, so that it's done now and then and kept."""
    now = timezone.now()
    rows = (
        Study.objects.order_by()
        .values("site_id", "tier")
        .annotate(studies=Count("pk"))
        .values_list("site_id", "tier", "studies")
    )
    sizes = {
        (site, tier): (count, octets)
        for site, tier, count, octets in Instance.objects.order_by()
        .values(site=F("series__study__site_id"), of=F("series__study__tier"))
        .annotate(count=Count("pk"), octets=Sum("object_length"))
        .values_list("site", "of", "count", "octets")
    }
    counted = {(site, tier): studies for site, tier, studies in rows}
    for site_id, tier in {*counted, *TierFigure.objects.values_list("site_id", "tier")}:
        instances, octets = sizes.get((site_id, tier), (0, 0))
        TierFigure.objects.update_or_create(
            site_id=site_id,
            tier=tier,
            defaults={
                "studies": counted.get((site_id, tier), 0),
                "instances": instances,
                "bytes": octets,
                "counted_at": now,
            },
        )


def stranded() -> int:
    """Give how many studies are cold while no cold tier is configured."""
    return 0 if objects.has_cold_tier() else Study.objects.filter(~Q(tier=Study.Tier.HOT)).count()
