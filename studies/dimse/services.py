"""Every write on nodes."""

from __future__ import annotations

from django.db import transaction

from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from portal.sealing import seal
from studies.dimse.models import Node

NOT_TOLD = {"id", "site", "sealed_secret"}


@transaction.atomic
def save_node(*, node: Node, principal: Principal, secret: str = "") -> Node:
    """Keep a new or changed node, already validated; the listener obeys it from the next association on.

    A ``secret`` (token or password) replaces the kept one; without credentials none is kept.
    """
    what = "node added" if node._state.adding else "node changed"
    if not node.is_dicomweb or node.credentials == Node.Credentials.NONE:
        node.sealed_secret = ""
    elif secret:
        node.sealed_secret = seal(secret)
    node.save()
    _record(what, node, principal, secret_changed=bool(secret))
    return node


@transaction.atomic
def delete_node(*, node: Node, principal: Principal) -> None:
    """Forget a node; what it sent stays."""
    site_id = node.site_id
    node.delete()
    _record("node removed", node, principal, site_id=site_id)


def _record(
    what: str, node: Node, principal: Principal, *, site_id: int | None = None, secret_changed: bool = False
) -> None:
    settings = {f.name: getattr(node, f.name) for f in node._meta.concrete_fields if f.name not in NOT_TOLD}
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=site_id or node.site_id,
        details={"what": what, **settings, "secret_changed": secret_changed},
    )
