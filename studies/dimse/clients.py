"""From a node to the client that speaks its protocol."""

from __future__ import annotations

from studies.dimse.client import NodeClient
from studies.dimse.dicomweb_client import DicomwebNodeClient
from studies.dimse.dimse_client import DimseClient
from studies.dimse.models import Node


def client_of(node: Node) -> NodeClient:
    """Give the node's client. Raises NodeUnavailable where its credentials can't be read any more."""
    return DicomwebNodeClient(node) if node.is_dicomweb else DimseClient(node)
