"""Reads of the nodes, from the gate on."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.dimse.models import Node


def sites_with_nodes_of(principal: Principal) -> QuerySet[Site]:
    """Give the sites whose nodes the principal manages."""
    site_ids = principal.sites_with(Capability.NODE_MANAGE)
    sites = Site.objects.order_by("name")
    return sites if site_ids is None else sites.filter(pk__in=site_ids)


def nodes_managed_by(principal: Principal) -> QuerySet[Node]:
    """Give the nodes that the principal manages, each with its site."""
    return Node.objects.select_related("site").filter(site__in=sites_with_nodes_of(principal))
