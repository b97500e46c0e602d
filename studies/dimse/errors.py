"""What goes wrong with nodes, in words for people."""

from __future__ import annotations


class NodeUnavailable(Exception):
    """The node can't be used now; the message says why. Trying again later makes sense."""


class NodeBusy(NodeUnavailable):
    """The node has as many associations of ours as it bears; it's no fault of anybody's."""


class BrokeOff(NodeUnavailable):
    """The connection ended in the middle of an instance: the node's fault, the network's, or that instance's."""


class NodeRefuses(Exception):
    """The node answers, but won't do what was asked; trying again changes nothing before somebody does."""


class NotSendable(Exception):
    """The instance can't be sent to the node; the message says why."""


class NotAllowed(Exception):
    """The person may not do this with this node or study."""
