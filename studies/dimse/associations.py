"""Every write on the log of associations, by which the network monitor knows who is connected and how fast it goes."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta

from django.db import DatabaseError, transaction
from django.utils import timezone

from accounts.models import Site
from studies.dimse.models import AssociationLog, Node
from studies.dimse.transport import TunedAssociation

logger = logging.getLogger("atrium.dimse")
KEPT_DAYS = 30
# How often a working association tells how far it is, and how much of the past is kept to tell its speed.
PULSE_SECONDS, WINDOW_SECONDS = 5.0, 60.0
# How often one that rests says that it's still there; one of another machine that is silent for longer is no more.
ALIVE_SECONDS, SILENT_SECONDS = 300.0, 1800.0


def _host() -> str:
    return socket.gethostname()[:60]


def opened(
    *,
    node: Node | None,
    site: Site,
    ae_title: str,
    address: str,
    uses_tls: bool = False,
    is_outgoing: bool = False,
) -> AssociationLog:
    """Note that an association was accepted or requested, and give the row to close it by."""
    return AssociationLog.objects.create(
        node=node,
        site=site,
        ae_title=ae_title,
        address=address,
        uses_tls=uses_tls,
        is_outgoing=is_outgoing,
        listener=f"{_host()}:{os.getpid()}",
    )


@transaction.atomic
def reserved(node: Node) -> AssociationLog | None:
    """Note that we're about to call the node; None while it has as many associations of ours as it bears."""
    # One at a time: of two that count at once both would find the last place free.
    Node.objects.select_for_update().filter(pk=node.pk).first()
    _close_of_the_dead(node)
    if live_of(node, is_outgoing=True) >= node.maximum_associations:
        return None
    return opened(
        node=node,
        site=node.site,
        ae_title=node.ae_title,
        address=node.host[:45],
        uses_tls=node.uses_tls,
        is_outgoing=True,
    )


def forget(row: AssociationLog) -> None:
    """Take back what was noted of an association that never came to be."""
    row.delete()


def closed(
    *,
    association_id: int,
    was_aborted: bool = False,
    requests: Mapping[str, int] | None = None,
    last_error: str = "",
    counts: Mapping[str, int] | None = None,
) -> None:
    """Note that an association ended, and what it brought. ``requests`` counts C-FIND, C-MOVE and the like.

    ``counts`` are columns of the log: stored, failed, received_bytes, sent, sent_bytes.
    """
    outcome = AssociationLog.Outcome.ABORTED if was_aborted else AssociationLog.Outcome.RELEASED
    AssociationLog.objects.filter(pk=association_id).update(
        outcome=outcome,
        closed_at=timezone.now(),
        requests=dict(requests or {}),
        last_error=last_error[:200],
        **(counts or {}),
    )


class Live:
    """An open association: tells every few seconds how much has passed, and now and then that it's still there."""

    def __init__(self, association_id: int, association: TunedAssociation) -> None:
        self.association_id, self.association = association_id, association
        self.noted: dict[str, int] = {}
        self.recent: list[list[float]] = []
        self.next_at = time.monotonic() + PULSE_SECONDS
        self.told_at = time.time()

    def counts(self) -> dict[str, int]:
        """Give what has passed, by column of the log."""
        traffic, upper_layer = self.association.traffic, self.association.dul
        return {
            "stored": traffic.stored,
            "failed": traffic.failed,
            "sent": traffic.sent,
            "received_bytes": upper_layer.bytes_received,
            "sent_bytes": upper_layer.bytes_sent,
        }

    def pulse(self) -> None:
        """Note how far it is, when it's time to; called often, from the thread that does the work."""
        if time.monotonic() < self.next_at:
            return
        self.next_at = time.monotonic() + PULSE_SECONDS
        counts, now = self.counts(), time.time()
        if counts == self.noted and now < self.told_at + ALIVE_SECONDS:
            return
        passed = [now, counts["stored"] + counts["sent"], counts["received_bytes"] + counts["sent_bytes"]]
        # The last one from before the window is where its count begins.
        older = [one for one in self.recent if one[0] <= now - WINDOW_SECONDS][-1:]
        self.recent = [*older, *(one for one in self.recent if one[0] > now - WINDOW_SECONDS), passed]
        try:
            AssociationLog.objects.filter(pk=self.association_id).update(recent=self.recent, **counts)
        except DatabaseError:
            logger.warning("an association's progress can't be noted", exc_info=True)
            return
        self.noted, self.told_at = counts, now

    def close(self, *, was_aborted: bool, requests: Mapping[str, int] | None = None, last_error: str = "") -> None:
        """Note that it ended; a database that fails now loses the note and nothing else."""
        try:
            closed(
                association_id=self.association_id,
                was_aborted=was_aborted,
                requests=requests,
                last_error=last_error,
                counts=self.counts(),
            )
        except DatabaseError:
            logger.exception("an association's end can't be noted")


def close_all_of_this_host() -> int:
    """Close what a listener of this machine left open when it was killed; call it before listening. Gives how many."""
    live = AssociationLog.objects.filter(closed_at__isnull=True, listener__startswith=f"{_host()}:")
    lost = live.filter(is_outgoing=False).update(outcome=AssociationLog.Outcome.LOST, closed_at=timezone.now())
    return lost + _close_of_the_dead()


def has_room(node: Node) -> bool:
    """Say whether the node may open one more association; what died without a word doesn't count."""
    if live_of(node) < node.maximum_associations:
        return True
    _close_of_the_dead(node)
    return live_of(node) < node.maximum_associations


def _close_of_the_dead(node: Node | None = None) -> int:
    """Close what processes that are no more had open with the node, or with any."""
    live = AssociationLog.objects.filter(closed_at__isnull=True)
    if node is not None:
        live = live.filter(node=node)
    dead = [row.pk for row in live.only("listener", "recent", "opened_at") if not _is_alive(row)]
    return AssociationLog.objects.filter(pk__in=dead).update(
        outcome=AssociationLog.Outcome.LOST, closed_at=timezone.now()
    )


def _is_alive(row: AssociationLog) -> bool:
    host, _, pid = row.listener.rpartition(":")
    if host == _host():
        return _is_running(int(pid))
    told_at = row.recent[-1][0] if row.recent else row.opened_at.timestamp()
    return bool(time.time() - told_at < SILENT_SECONDS)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def live_of(node: Node, *, is_outgoing: bool = False) -> int:
    """Give how many associations with the node are open, those that it or those that we requested."""
    return AssociationLog.objects.filter(node=node, closed_at__isnull=True, is_outgoing=is_outgoing).count()


def forget_old() -> int:
    """Close what died without a word and remove what ended long ago; gives how many rows are gone."""
    _close_of_the_dead()
    oldest = timezone.now() - timedelta(days=KEPT_DAYS)
    return AssociationLog.objects.filter(closed_at__lt=oldest).delete()[0]
