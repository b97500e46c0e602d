"""Every write on routing and prefetch rules."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dimse.models import Node, PrefetchRule, RoutingRule

Rule = RoutingRule | PrefetchRule
NOT_TOLD = {"id", "site", "assign_to"}


@transaction.atomic
def save_rule(*, rule: Rule, nodes: Iterable[Node], principal: Principal) -> None:
    """Keep a new or changed rule, already validated. What's in the queues stays as it was asked for."""
    what = "rule added" if rule._state.adding else "rule changed"
    rule.save()
    rule.nodes.set(nodes)
    _record(what, rule, principal)


@transaction.atomic
def delete_rule(*, rule: Rule, principal: Principal) -> None:
    """Remove a rule; what it queued goes on."""
    _record("rule removed", rule, principal)
    rule.delete()


def _record(what: str, rule: Rule, principal: Principal) -> None:
    settings = {f.name: getattr(rule, f.name) for f in rule._meta.concrete_fields if f.name not in NOT_TOLD}
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=rule.site_id,
        details={
            "what": what,
            "kind": "routing" if isinstance(rule, RoutingRule) else "prefetch",
            **settings,
            "nodes": [node.ae_title for node in rule.nodes.all()],
        },
    )
