"""Names of who holds a lease on work, by which the next one knows whether that process is still there."""

from __future__ import annotations

import os
import socket
import uuid


def _host() -> str:
    return socket.gethostname()[:12]


def new_lease() -> str:
    """Give a name that no other holder has."""
    return f"{_host()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def has_died(lease: str) -> bool:
    """Say whether the lease's holder was a process of this machine that's no more."""
    host, pid, _rest = lease.split(":")
    if host != _host():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
