"""Routing: when a study has settled, its site's rules are asked in order, and what they want is queued."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive.corrections import correct_study
from studies.archive.errors import NotCorrectable
from studies.dimse.coercion import Coercion
from studies.dimse.conditions import Condition, series_satisfying, study_satisfies
from studies.dimse.models import Node, RoutedStudy, RoutingRule, Transfer
from studies.dimse.transfers import current_instances, queue_sending
from studies.models import Series, Study
from studies.reading import assign_by_rule, set_priority
from studies.trail import subject_of

logger = logging.getLogger("atrium.routing")
DRY_RUN_STUDIES = 100


@events.handle("study.settled")
def route_settled_study(payload: dict[str, Any]) -> None:
    """Route what came of the study since it was last routed."""
    study = Study.objects.select_related("site").filter(pk=payload["study"]).first()
    if study is not None:
        route(study=study)


def route(*, study: Study) -> list[Transfer]:
    """Ask the active rules of the study's site in their order and give what was queued.

    Each rule remembers up to which instance it sent, so that what comes later follows and nothing goes twice.
    """
    queued: list[Transfer] = []
    for rule in RoutingRule.objects.filter(site_id=study.site_id, is_active=True).prefetch_related("nodes"):
        applied, transfers = _apply(rule, study)
        queued += transfers
        if applied and rule.stops:
            break
        if applied:
            study.refresh_from_db()
    return queued


@transaction.atomic
def _apply(rule: RoutingRule, study: Study) -> tuple[bool, list[Transfer]]:
    conditions = [Condition.of(kept) for kept in rule.conditions]
    # What a study was routed by once, its later series follow, whatever the hour.
    routed = RoutedStudy.objects.select_for_update().filter(rule=rule, study=study).first()
    now = timezone.now()
    if routed is None and not study_satisfies(study, conditions, now=now):
        return False, []
    series = series_satisfying(study, conditions, now=now)
    if not series:
        return False, []
    if routed is None:
        routed = RoutedStudy.objects.create(rule=rule, study=study)
        _apply_to_study(rule, study)
    new = current_instances(study).filter(series__in=series, pk__gt=routed.last_instance_id)
    newest = new.aggregate(newest=Max("pk"))["newest"]
    if newest is None:
        return True, []
    transfers = []
    for node in destinations(rule, study):
        transfer = queue_sending(
            study=study,
            node=node,
            instances=new,
            origin=Transfer.Origin.RULE,
            rule=rule,
            coercions=rule.coercions_out,
            deidentification=rule.deidentification if rule.deidentify else None,
        )
        if transfer is not None:
            transfers.append(transfer)
    routed.last_instance_id = newest
    routed.save(update_fields=["last_instance_id", "applied_at"])
    return True, transfers


def destinations(rule: RoutingRule, study: Study) -> list[Node]:
    """Give the nodes to which the rule sends the study: never back to the one that it came from."""
    return [
        node
        for node in rule.nodes.all()
        if node.is_active
        and node.may_receive
        and node.can_be_called
        and node.site_id == study.site_id
        and node.ae_title != study.source_ae_title
    ]


def _apply_to_study(rule: RoutingRule, study: Study) -> None:
    principal = Principal(
        grants=frozenset({(Capability.CASE_ASSIGN.value, study.site_id)}), ae_title=settings.ATRIUM.ae_title
    )
    _coerce_index(rule, study, principal)
    if rule.set_priority:
        set_priority(study=study, priority=rule.set_priority, principal=principal)
    if rule.assign_to is not None:
        assign_by_rule(study=study, reader=rule.assign_to)
    if rule.reading_group:
        events.emit("study.routed_to_group", study=study.pk, group=rule.reading_group)
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details={"what": "routing rule applied", "rule": rule.name},
    )


def _coerce_index(rule: RoutingRule, study: Study, principal: Principal) -> None:
    """Lay the coercions on the way in over the study; the received objects stay as they are."""
    received = {**study.attributes, **study.corrections}
    changes: dict[str, str] = {}
    for coercion in (Coercion.of(kept) for kept in rule.coercions_in):
        current = changes.get(coercion.attribute, coercion.current_in(received))
        result = coercion.result_on(current)
        if result != current:
            changes[coercion.attribute] = result
    if not changes:
        return
    try:
        correct_study(study=study, attributes=changes, reason=f"Routing rule {rule.name}", principal=principal)
    except NotCorrectable as error:
        logger.warning("coercion not possible: %s", error, extra={"rule": rule.pk})


@dataclass(frozen=True)
class WouldDo:
    """What a rule would have done with a study."""

    study: Study
    series: list[Series]
    nodes: list[Node]

    @property
    def instances(self) -> int:
        return sum(series.number_of_instances for series in self.series)


def dry_run(rule: RoutingRule, studies: Iterable[Study]) -> list[WouldDo]:
    """Give the studies to which the rule would have applied when they came, and what it would have done."""
    conditions = [Condition.of(kept) for kept in rule.conditions]
    done = []
    for study in studies:
        if not study_satisfies(study, conditions, now=study.received_at):
            continue
        series = series_satisfying(study, conditions, now=study.received_at)
        if series:
            done.append(WouldDo(study, series, destinations(rule, study)))
    return done
