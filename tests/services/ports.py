"""Free ports on the loopback interface."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Give a port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
