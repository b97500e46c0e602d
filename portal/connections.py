"""Connections to the database that a thread holds while it waits for somebody."""

from __future__ import annotations

from django.db import connections


def release_connections() -> None:
    """Give back what this thread holds, as at a request's end, unless a transaction is under way."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
