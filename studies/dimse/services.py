"""Every write on nodes."""

from __future__ import annotations

from django.db import transaction

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dimse.models import Node


@transaction.atomic
def save_node(*, node: Node, principal: Principal) -> Node:
    """Keep a new or changed node, already validated; the listener obeys it from the next association on."""
    what = "node added" if node._state.adding else "node changed"
    node.save()
    _record(what, node, principal)
    return node


@transaction.atomic
def delete_node(*, node: Node, principal: Principal) -> None:
    """Forget a node; what it sent stays."""
    site_id = node.site_id
    node.delete()
    _record("node removed", node, principal, site_id=site_id)


def _record(what: str, node: Node, principal: Principal, *, site_id: int | None = None) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=site_id or node.site_id,
        details={
            "what": what,
            "ae_title": node.ae_title,
            "host": node.host,
            "port": node.port,
            "may_store": node.may_store,
            "may_query": node.may_query,
            "may_retrieve": node.may_retrieve,
            "may_worklist": node.may_worklist,
            "allowed_addresses": node.allowed_addresses,
            "is_active": node.is_active,
        },
    )
