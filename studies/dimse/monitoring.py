"""What the network monitor and the list of transfers show, from the gate on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.dimse.models import AssociationLog, Node, NodeState, Transfer
from studies.dimse.selectors import nodes_managed_by, sites_with_nodes_of

OPEN = (Transfer.Status.QUEUED, Transfer.Status.RUNNING)
LATEST = 12


@dataclass
class NodeFigures:
    """How it goes with one node, over the last 24 hours where it's about time."""

    node: Node
    live: int = 0
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
        )
    ):
        one = nodes[row["node"]]
        one.live, one.received, one.not_stored = row["live"], row["stored"], row["failed"]
        one.received_bytes = row["taken"]
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
        one.failed_transfers, one.sent, one.sent_bytes = queue["failures"], queue["sent"], queue["size"]
    for state in NodeState.objects.filter(node__in=nodes):
        nodes[state.node_id].states.append(state)
    return list(nodes.values())


def live_associations(principal: Principal) -> QuerySet[AssociationLog]:
    """Give the associations that are open now at the principal's sites, unknown callers' of the open mode too."""
    return AssociationLog.objects.filter(
        site__in=sites_with_nodes_of(principal), closed_at__isnull=True
    ).select_related("node")


def latest_troubles(principal: Principal) -> QuerySet[AssociationLog]:
    """Give the last associations that were aborted or had an error."""
    return (
        AssociationLog.objects.filter(site__in=sites_with_nodes_of(principal))
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
