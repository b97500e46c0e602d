"""Prefetch of relevant priors when an order is placed or a study has arrived; never in the way of either."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.utils import timezone

from studies import events
from studies.archive.models import TierMove
from studies.archive.recalls import want
from studies.dimse.client import FoundStudy, Query
from studies.dimse.clients import client_of
from studies.dimse.errors import NodeRefuses, NodeUnavailable
from studies.dimse.models import PrefetchRule, Transfer
from studies.dimse.transfers import queue_retrieval
from studies.models import Study
from studies.orders.models import Order

logger = logging.getLogger("atrium.prefetch")
MOST_FOUND = 100


@dataclass(frozen=True)
class Occasion:
    """For what priors are wanted."""

    site_id: int
    patient_id: str
    patient_pk: int
    modalities: frozenset[str]
    body_parts: frozenset[str]
    study_instance_uid: str
    on: date

    def wants(self, rule: PrefetchRule, modalities: set[str], body_parts: set[str], when: date | None) -> bool:
        """Say whether a prior is relevant by the rule."""
        if when is None or when > self.on or when < self.on - timedelta(days=366 * rule.within_years):
            return False
        if rule.same_modality and self.modalities and not self.modalities & modalities:
            return False
        # Remote archives seldom tell the body part of a study: where it isn't known, it's no reason against.
        return not (rule.same_body_part and self.body_parts and body_parts and not self.body_parts & body_parts)


@events.handle("order.placed")
def prefetch_for_order(payload: dict[str, Any]) -> None:
    """Fetch priors for a new order."""
    order = Order.objects.select_related("patient").filter(pk=payload["order"]).first()
    if order is None:
        return
    steps = order.scheduled_steps.order_by("scheduled_at")
    first = steps.first()
    occasion = Occasion(
        site_id=order.site_id,
        patient_id=order.patient.patient_id,
        patient_pk=order.patient_id,
        modalities=frozenset(steps.values_list("modality", flat=True)),
        body_parts=frozenset(),
        study_instance_uid=order.study_instance_uid,
        on=first.scheduled_at.date() if first else timezone.now().date(),
    )
    prefetch(occasion, PrefetchRule.objects.filter(on_order=True))


@events.handle("study.settled")
def prefetch_for_study(payload: dict[str, Any]) -> None:
    """Fetch priors for a study that came; not for one that was itself fetched, or each would bring the next."""
    study = Study.objects.filter(pk=payload["study"]).first()
    if study is None:
        return
    fetched = Transfer.objects.filter(
        kind=Transfer.Kind.RETRIEVE, site_id=study.site_id, study_instance_uid=study.study_instance_uid
    )
    if fetched.exists():
        return
    occasion = Occasion(
        site_id=study.site_id,
        patient_id=study.patient_id_value,
        patient_pk=study.patient_id,
        modalities=frozenset(study.modalities),
        body_parts=frozenset(study.body_part_examined.split("\\")) - {""},
        study_instance_uid=study.study_instance_uid,
        on=study.study_date or timezone.now().date(),
    )
    prefetch(occasion, PrefetchRule.objects.filter(on_study=True))


def prefetch(occasion: Occasion, rules: Any) -> list[Transfer]:
    """Bring the priors that the site's active rules want, and give the retrievals that were queued.

    Those that are held here and lie in the cold tier are brought back; the others are fetched from the rules' nodes.

    A node that can't be asked is left out: the order or the study goes on without its priors.
    """
    if not occasion.patient_id:
        return []
    queued: list[Transfer] = []
    for rule in rules.filter(site_id=occasion.site_id, is_active=True).prefetch_related("nodes"):
        if rule.modalities and occasion.modalities and not occasion.modalities & set(rule.modalities):
            continue
        held = _held_priors(occasion, rule)
        for prior in held:
            want(prior, origin=TierMove.Origin.PREFETCH)
        queued += _from_nodes(occasion, rule, already=len(held))
    return queued


def _held_priors(occasion: Occasion, rule: PrefetchRule) -> list[Study]:
    priors = (
        Study.objects.filter(site_id=occasion.site_id, patient_id=occasion.patient_pk)
        .exclude(study_instance_uid=occasion.study_instance_uid)
        .order_by("-study_date", "-pk")[:MOST_FOUND]
    )
    wanted = [
        study
        for study in priors
        if occasion.wants(
            rule, set(study.modalities), set(study.body_part_examined.split("\\")) - {""}, study.study_date
        )
    ]
    return wanted[: rule.at_most]


def _from_nodes(occasion: Occasion, rule: PrefetchRule, *, already: int) -> list[Transfer]:
    queued: list[Transfer] = []
    for node in rule.nodes.all():
        if not (node.is_active and node.may_be_queried and node.can_be_called and node.site_id == occasion.site_id):
            continue
        first = occasion.on - timedelta(days=366 * rule.within_years)
        query = Query(patient_id=occasion.patient_id, study_date=f"{first:%Y%m%d}-{occasion.on:%Y%m%d}")
        try:
            found = client_of(node).find(query, at_most=MOST_FOUND)
        except (NodeUnavailable, NodeRefuses):
            logger.warning("no priors: the node can't be asked", extra={"node": node.pk, "rule": rule.pk})
            continue
        held = set(
            Study.objects.filter(
                site_id=occasion.site_id, study_instance_uid__in=[f.study_instance_uid for f in found]
            ).values_list("study_instance_uid", flat=True)
        )
        relevant = [
            study
            for study in sorted(found, key=lambda f: f.study_date, reverse=True)
            # The patient ID is checked again: some archives match it loosely, and a wrong prior is worse than none.
            if study.patient_id == occasion.patient_id
            and study.study_instance_uid not in held | {occasion.study_instance_uid}
            and occasion.wants(rule, set(study.modalities), set(), _date(study))
        ]
        for study in relevant[: max(rule.at_most - already, 0)]:
            queued.append(
                queue_retrieval(node=node, study_instance_uid=study.study_instance_uid, origin=Transfer.Origin.PREFETCH)
            )
            already += 1
    return queued


def _date(found: FoundStudy) -> date | None:
    text = found.study_date.replace(".", "")
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None
