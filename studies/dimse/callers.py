"""Who calls: a calling AE title and an address become a node, its site and what it may do."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass

from django.conf import settings

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal, principal_of_node
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dimse.models import Node

logger = logging.getLogger("atrium.dimse")
SEEING = (Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)


@dataclass(frozen=True)
class Caller:
    """The peer of an association, at its own site with what its node may do; ``node`` is None for an unknown one."""

    site: Site
    principal: Principal
    node: Node | None = None

    @property
    def may_store(self) -> bool:
        return self.principal.may(Capability.STUDY_UPLOAD, self.site.pk)

    @property
    def character_set(self) -> str:
        """Give the character set that the node means whatever it says; empty where it's to be believed."""
        return self.node.character_set if self.node is not None else ""

    @property
    def may_query(self) -> bool:
        return self.node is not None and self.node.may_query and self._may_see

    @property
    def may_retrieve(self) -> bool:
        return self.node is not None and self.node.may_retrieve and self._may_see

    @property
    def may_worklist(self) -> bool:
        return self.node is not None and self.node.may_worklist and (self.principal.user is None or self._may_see)

    @property
    def _may_see(self) -> bool:
        return any(self.principal.may(capability, self.site.pk) for capability in SEEING)

    @property
    def may_perform(self) -> bool:
        return self.node is not None and self.node.may_perform


def caller_from(calling_ae_title: str, address: str) -> Caller | None:
    """Give the caller; None for one who may not call. Unknown ones, where the listener is open, may only store."""
    title = calling_ae_title.strip()
    node = Node.objects.select_related("site").filter(ae_title=title, kind=Node.Kind.DIMSE).first()
    if node is None:
        site = Site.objects.order_by("pk").first() if settings.ATRIUM.dicom_open else None
    else:
        site = node.site if node.is_active and _is_allowed(address, node.allowed_addresses) else None
    if site is None:
        return None
    principal = principal_of_node(ae_title=title, site_id=site.pk, capabilities=_capabilities(node), ip_address=address)
    return Caller(site, principal, node)


def narrowed(caller: Caller, user: Principal) -> Caller:
    """Give the same caller with a user signed in at it: what both may, at the node's site."""
    capabilities = set(_capabilities(caller.node))
    if Capability.STUDY_VIEW in capabilities:
        capabilities.update(SEEING)
    principal = Principal(
        grants=frozenset((c.value, caller.site.pk) for c in capabilities if user.may(c, caller.site.pk)),
        user=user.user,
        token_id=user.token_id,
        ae_title=caller.principal.ae_title,
        ip_address=caller.principal.ip_address,
        user_agent=f"AE {caller.principal.ae_title}",
        practice_ids=user.practice_ids,
    )
    return Caller(caller.site, principal, caller.node)


def _capabilities(node: Node | None) -> list[Capability]:
    if node is None:
        return [Capability.STUDY_UPLOAD]
    capabilities = [Capability.STUDY_UPLOAD] if node.may_store else []
    if node.may_query or node.may_retrieve:
        capabilities.append(Capability.STUDY_VIEW)
    if node.may_perform:
        capabilities += [Capability.WORKITEM_VIEW, Capability.WORKITEM_PERFORM]
    return capabilities


def _is_allowed(address: str, networks: list[str]) -> bool:
    caller = ipaddress.ip_address(address)
    # A listener on IPv6 gives IPv4 callers as ::ffff:a.b.c.d.
    caller = getattr(caller, "ipv4_mapped", None) or caller
    return not networks or any(caller in ipaddress.ip_network(n, strict=False) for n in networks)


def refuse(principal: Principal, reason: str, *, site_id: int | None = None) -> None:
    """Put a refusal into the trail and the log."""
    record(
        AuditEvent.Action.REFUSAL,
        principal=principal,
        outcome=AuditEvent.Outcome.REFUSED,
        site_id=site_id,
        details={"protocol": "DIMSE", "reason": reason},
    )
    logger.warning("refused: %s", reason, extra={"ae_title": principal.ae_title, "address": principal.ip_address})
