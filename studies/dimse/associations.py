"""Every write on the log of associations, by which the network monitor knows who is connected."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import timedelta

from django.utils import timezone

from accounts.models import Site
from studies.dimse.models import AssociationLog, Node

KEPT_DAYS = 30


def _host() -> str:
    return socket.gethostname()[:60]


def opened(*, node: Node | None, site: Site, ae_title: str, address: str, uses_tls: bool = False) -> AssociationLog:
    """Note that an association was accepted, and give the row to close it by."""
    return AssociationLog.objects.create(
        node=node,
        site=site,
        ae_title=ae_title,
        address=address,
        uses_tls=uses_tls,
        listener=f"{_host()}:{os.getpid()}",
    )


def closed(
    *,
    association_id: int,
    was_aborted: bool = False,
    stored: int = 0,
    failed: int = 0,
    received_bytes: int = 0,
    requests: Mapping[str, int] | None = None,
    last_error: str = "",
) -> None:
    """Note that an association ended, and what it brought. ``requests`` counts C-FIND, C-MOVE and the like."""
    outcome = AssociationLog.Outcome.ABORTED if was_aborted else AssociationLog.Outcome.RELEASED
    AssociationLog.objects.filter(pk=association_id).update(
        outcome=outcome,
        closed_at=timezone.now(),
        stored=stored,
        failed=failed,
        received_bytes=received_bytes,
        requests=dict(requests or {}),
        last_error=last_error[:200],
    )


def close_all_of_this_host() -> int:
    """Close what a listener of this machine left open when it was killed; call it before listening. Gives how many."""
    live = AssociationLog.objects.filter(closed_at__isnull=True, listener__startswith=f"{_host()}:")
    return live.update(outcome=AssociationLog.Outcome.LOST, closed_at=timezone.now())


def live_of(node: Node) -> int:
    """Give how many associations of the node are open, over all listeners."""
    return AssociationLog.objects.filter(node=node, closed_at__isnull=True).count()


def forget_old() -> int:
    """Remove what ended long ago; gives how many rows."""
    oldest = timezone.now() - timedelta(days=KEPT_DAYS)
    return AssociationLog.objects.filter(closed_at__lt=oldest).delete()[0]
