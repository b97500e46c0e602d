"""The trail as a keyed hash chain."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from accounts.principals import Principal
from portal.audit.models import AuditEvent, ChainHead
from portal.insertion import Insertion
from portal.middleware import request_id

# Its statements are part of nearly every commit: composing them would take Django several times longer than running.
_insert = Insertion(AuditEvent)
_HEAD = ChainHead._meta.db_table


@lru_cache(maxsize=1)
def _key() -> bytes:
    return hashlib.sha256(b"atrium audit chain" + settings.SECRET_KEY.encode()).digest()


def event_digest(event: AuditEvent, previous: str) -> str:
    """Give the HMAC-SHA256 of the event's canonical JSON chained to ``previous``, the digest before it."""
    canonical = json.dumps(
        [
            event.sequence,
            event.occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
            event.action,
            event.outcome,
            event.username,
            event.user_id,
            event.site_id,
            event.patient_id,
            event.patient_name,
            event.study_instance_uid,
            event.ip_address,
            event.user_agent,
            event.request_id,
            event.details,
        ],
        sort_keys=True,
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return hmac.new(_key(), f"{previous}{canonical}".encode(), hashlib.sha256).hexdigest()


def head_seal(sequence: int, digest: str) -> str:
    """Give the HMAC by which the chain's head proves that no tail was cut off."""
    return hmac.new(_key(), f"{sequence}:{digest}".encode(), hashlib.sha256).hexdigest()


@transaction.atomic(savepoint=False)
def record(
    action: AuditEvent.Action,
    *,
    principal: Principal,
    outcome: AuditEvent.Outcome = AuditEvent.Outcome.SUCCESS,
    site_id: int | None = None,
    patient_id: str = "",
    patient_name: str = "",
    study_instance_uid: str = "",
    details: dict[str, Any] | None = None,
    occurred_at: datetime | None = None,
) -> AuditEvent:
    """Add one event to the trail, in the caller's transaction.

    Call it last in a transaction: from here to the commit other writers of events wait.
    """
    event = AuditEvent(
        occurred_at=occurred_at or timezone.now(),
        action=action,
        outcome=outcome,
        username=principal.name,
        user=principal.user,
        site_id=site_id,
        patient_id=patient_id.replace("\x00", "")[:64],
        patient_name=patient_name.replace("\x00", "")[:324],
        study_instance_uid=study_instance_uid[:64],
        ip_address=principal.ip_address or "",
        user_agent=principal.user_agent,
        request_id=request_id.get(),
        details=details or {},
    )
    append(event)
    return event


def lock_head() -> tuple[int, str]:
    """Give the sequence and digest of the chain's head; other writers of events wait from here to the commit."""
    lock = "FOR UPDATE" if connection.features.has_select_for_update else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT sequence, digest FROM {_HEAD} WHERE id = 1 {lock}")  # noqa: S608  our own names
        sequence, digest = cursor.fetchone()
    return sequence, digest


def append(event: AuditEvent) -> None:
    """Chain a new event to the one before it, in the caller's transaction."""
    sequence, digest = lock_head()
    event.sequence = sequence + 1
    event.digest = event_digest(event, digest)
    _insert.many([event.__dict__])
    event._state.adding = False
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {_HEAD} SET sequence = %s, digest = %s, seal = %s WHERE id = 1",  # noqa: S608  our own names
            [event.sequence, event.digest, head_seal(event.sequence, event.digest)],
        )
