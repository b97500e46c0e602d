"""What the network monitor and the list of transfers show, from the gate on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.dimse.associations import WINDOW_SECONDS
from studies.dimse.models import AssociationLog, Node, NodeState, Transfer
from studies.dimse.selectors import nodes_managed_by, sites_with_nodes_of

OPEN = (Transfer.Status.QUEUED, Transfer.Status.RUNNING)
LATEST, MOST_LIVE = 12, 100
# An association that only keeps itself alive isn't said to move; bytes a second.
LEAST_TOLD = 1000


@dataclass(frozen=True)
class Rate:
    """How much passes in a second, both ways, over the last minute or as much of it as there was."""

    instances: float = 0.0
    octets: float = 0.0

    @property
    def is_worth_telling(self) -> bool:
        return self.octets >= LEAST_TOLD


@dataclass(frozen=True)
class LiveAssociation:
    """An open association and its speed."""

    log: AssociationLog
    rate: Rate

    @property
    def instances(self) -> int:
        return self.log.stored + self.log.sent


@dataclass
class NodeFigures:
    """How it goes with one node, over the last 24 hours where it's about time."""

    node: Node
    live: int = 0
    rate: Rate = Rate()
    received: int = 0
    received_bytes: int = 0
    not_stored: int = 0
    sent: int = 0
    sent_bytes: int = 0
    waiting_to_send: int = 0
    waiting_to_retrieve: int = 0
    failed_transfers: int = 0
    states: list[NodeState] = field(default_factory=list)
    last_association: AssociationLog | None = None

    @property
    def down(self) -> NodeState | None:
        """Give the direction in which the node doesn't answer, if there's one."""
        return next((state for state in self.states if state.down_since), None)

    @property
    def last_error(self) -> NodeState | None:
        """Give the direction with the youngest error, if there's one."""
        told = [state for state in self.states if state.last_error_at]
        return max(told, key=lambda state: state.last_error_at, default=None)  # type: ignore[arg-type,return-value]


def figures_of_nodes(principal: Principal) -> list[NodeFigures]:
    """Give the figures of every node that the principal manages, a fixed number of queries however many there are."""
    nodes = {node.pk: NodeFigures(node) for node in nodes_managed_by(principal)}
    since = timezone.now() - timedelta(hours=24)
    associations = AssociationLog.objects.filter(node__in=nodes)
    for row in (
        associations.filter(Q(opened_at__gte=since) | Q(closed_at__isnull=True))
        .order_by()
        .values("node")
        .annotate(
            live=Count("pk", filter=Q(closed_at__isnull=True)),
            stored=Sum("stored", default=0),
            failed=Sum("failed", default=0),
            taken=Sum("received_bytes", default=0),
            given=Sum("sent", default=0),
            given_bytes=Sum("sent_bytes", default=0),
        )
    ):
        one = nodes[row["node"]]
        one.live, one.received, one.not_stored = row["live"], row["stored"], row["failed"]
        one.received_bytes = row["taken"]
        one.sent, one.sent_bytes = row["given"], row["given_bytes"]
    recent = defaultdict(list)
    for association in _of_the_last_minute(associations):
        recent[association.node_id].append(association)
    for node_id, of_node in recent.items():
        nodes[node_id or 0].rate = rate_of(of_node)
    for queue in (
        Transfer.objects.filter(Q(status__in=OPEN) | Q(created_at__gte=since), node__in=nodes)
        .order_by()
        .values("node")
        .annotate(
            sending=Count("pk", filter=Q(status__in=OPEN, kind=Transfer.Kind.SEND)),
            retrieving=Count("pk", filter=Q(status__in=OPEN, kind=Transfer.Kind.RETRIEVE)),
            failures=Count("pk", filter=Q(status=Transfer.Status.FAILED)),
            sent=Sum("completed", filter=Q(kind=Transfer.Kind.SEND), default=0),
            size=Sum("transferred_bytes", filter=Q(kind=Transfer.Kind.SEND), default=0),
        )
    ):
        one = nodes[queue["node"]]
        one.waiting_to_send, one.waiting_to_retrieve = queue["sending"], queue["retrieving"]
        one.failed_transfers = queue["failures"]
        if one.node.is_dicomweb:
            one.sent, one.sent_bytes = queue["sent"], queue["size"]
    for state in NodeState.objects.filter(node__in=nodes):
        nodes[state.node_id].states.append(state)
    return list(nodes.values())


def rate_of(associations: Iterable[AssociationLog]) -> Rate:
    """Give what passed through all of the associations together in the last minute, by the second.

    An association that began later counts from its beginning.
    """
    now = timezone.now().timestamp()
    begins = now - WINDOW_SECONDS
    instances, octets, first = 0.0, 0.0, now
    for one in associations:
        before = [passed for passed in one.recent if passed[0] <= begins][-1:] or [[begins, 0, 0]]
        ((_at, instances_before, octets_before),) = before
        instances += one.stored + one.sent - instances_before
        octets += one.received_bytes + one.sent_bytes - octets_before
        first = min(first, max(one.opened_at.timestamp(), begins))
    seconds = max(now - first, 1.0)
    return Rate(instances / seconds, octets / seconds)


def _of_the_last_minute(associations: QuerySet[AssociationLog]) -> QuerySet[AssociationLog]:
    begins = timezone.now() - timedelta(seconds=WINDOW_SECONDS)
    return associations.filter(Q(closed_at__isnull=True) | Q(closed_at__gte=begins))


def throughput(principal: Principal) -> Rate:
    """Give what passes in a second at the principal's sites, unknown callers of the open mode included."""
    return rate_of(_of_the_last_minute(AssociationLog.objects.filter(site__in=sites_with_nodes_of(principal))))


def live_associations(principal: Principal) -> list[LiveAssociation]:
    """Give the associations that are open now at the principal's sites, unknown callers' of the open mode too."""
    live = AssociationLog.objects.filter(site__in=sites_with_nodes_of(principal), closed_at__isnull=True)
    return [LiveAssociation(log, rate_of([log])) for log in live.select_related("node").order_by("pk")[:MOST_LIVE]]


def latest_troubles(principal: Principal) -> QuerySet[AssociationLog]:
    """Give the last associations of callers that were aborted or had an error; of nodes' own, see their states."""
    return (
        AssociationLog.objects.filter(site__in=sites_with_nodes_of(principal), is_outgoing=False)
        .filter(Q(outcome=AssociationLog.Outcome.ABORTED) | ~Q(last_error=""))
        .order_by("-opened_at")[:LATEST]
    )


def transfers_of(principal: Principal) -> QuerySet[Transfer]:
    """Give the transfers of the sites where the principal sends studies or manages nodes."""
    site_ids: set[int] = set()
    for capability in (Capability.STUDY_SEND, Capability.NODE_MANAGE):
        sites = principal.sites_with(capability)
        if sites is None:
            return _with_names(Transfer.objects.all())
        site_ids |= sites
    return _with_names(Transfer.objects.filter(site_id__in=site_ids))


def _with_names(transfers: QuerySet[Transfer]) -> QuerySet[Transfer]:
    return transfers.select_related("node", "study", "study__patient", "rule", "requested_by", "site")
