"""Writing the trail: the room's door for all others."""

from __future__ import annotations

from portal.audit.chain import event_digest, head_seal, record
from portal.audit.viewing import close_viewing_windows, count_viewing, flush_counts, forget_recorded, record_viewing

__all__ = [
    "close_viewing_windows",
    "count_viewing",
    "event_digest",
    "flush_counts",
    "forget_recorded",
    "head_seal",
    "record",
    "record_viewing",
]
