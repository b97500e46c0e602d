"""The DICOM network's state: nodes and associations, transfers and their queues, rules."""

from studies.dimse.models.commitments import Commitment
from studies.dimse.models.network import AssociationLog, AvailabilityNotice, Node
from studies.dimse.models.rules import PrefetchRule, RoutedStudy, RoutingRule
from studies.dimse.models.transfers import NodeState, Transfer, TransferItem

__all__ = [
    "AssociationLog",
    "AvailabilityNotice",
    "Commitment",
    "Node",
    "NodeState",
    "PrefetchRule",
    "RoutedStudy",
    "RoutingRule",
    "Transfer",
    "TransferItem",
]
