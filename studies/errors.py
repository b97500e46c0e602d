"""What the core refuses."""

from __future__ import annotations

from datetime import datetime

from accounts.models import User


class NotAllowed(PermissionError):
    """The principal lacks the capability at the study's site."""


class ClaimHeldByOther(RuntimeError):
    """Another person has the case open to write it."""

    def __init__(self, holder: User, until: datetime) -> None:
        super().__init__(f"{holder} holds the case until {until:%H:%M}.")
        self.holder = holder
        self.until = until
