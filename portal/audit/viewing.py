"""Bulk viewing in the trail: one event when it begins, one with the counts when the quarter of an hour is over.

Frames and instances are counted in memory and written every few seconds, so that sending one costs no write. A process
that is killed loses the counts of its last seconds, never the event that says who began to look.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.db.models import F

from accounts.principals import Principal
from portal.audit.chain import append, lock_head, record
from portal.audit.models import AuditEvent, ViewingWindow
from portal.insertion import Insertion

logger = logging.getLogger("atrium.audit")
QUARTER_HOUR = 900
FLUSH_SECONDS = 5.0
# Counts arrive late by the time between flushes, and machines' clocks differ.
LATEST = 60
MOST_REMEMBERED = 20_000
# Windows whose counts are made durable together.
WRITTEN_AT_ONCE = 100


@dataclass(frozen=True)
class _Window:
    quarter: int
    principal: str
    action: str
    study_instance_uid: str
    site_id: int


@dataclass
class _Counts:
    instances: int = 0
    frames: int = 0
    octets: int = 0


_insert = Insertion(ViewingWindow)
_BEGUN = (
    f"SELECT 1 FROM {ViewingWindow._meta.db_table} "  # noqa: S608  our own names
    f"WHERE {' AND '.join(f'{column.name} = %s' for column in fields(_Window))}"
)
_recorded: OrderedDict[_Window, None] = OrderedDict()
_pending: dict[_Window, _Counts] = {}
_lock = Lock()
_flushed_at = time.monotonic()


def record_viewing(
    action: AuditEvent.Action,
    *,
    principal: Principal,
    site_id: int,
    patient_id: str,
    patient_name: str,
    study_instance_uid: str,
    details: dict[str, Any] | None = None,
    instances: int = 0,
    frames: int = 0,
    octets: int = 0,
) -> None:
    """Record a view, retrieval or import once per principal, study and quarter of an hour, over all processes.

    How many instances, frames and bytes it was in all is recorded by :func:`close_viewing_windows` when it's over.
    """
    window = _Window(int(time.time()) // QUARTER_HOUR, principal.name, action.value, study_instance_uid, site_id)
    counts = _Counts(instances, frames, octets)
    to_count = any(counts.__dict__.values())
    if window not in _recorded:
        with transaction.atomic(savepoint=False):
            # Whoever else begins the same window waits for the head, and finds the window there.
            lock_head()
            if not _is_begun(window):
                event = record(
                    action,
                    principal=principal,
                    site_id=site_id,
                    patient_id=patient_id,
                    patient_name=patient_name,
                    study_instance_uid=study_instance_uid,
                    details=details,
                )
                _insert.many([{**window.__dict__, **counts.__dict__, "event_sequence": event.sequence}])
                to_count = False
            transaction.on_commit(lambda: _remember(window))
    # After the event, so that what writes the counts never makes a window that nobody began.
    if to_count:
        # A transaction that fails is tried again: what it counted didn't happen.
        transaction.on_commit(lambda: _count(window, counts))
    if time.monotonic() - _flushed_at > FLUSH_SECONDS and not transaction.get_connection().in_atomic_block:
        flush_counts()


def _is_begun(window: _Window) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_BEGUN, list(window.__dict__.values()))
        return cursor.fetchone() is not None


def count_viewing(
    action: AuditEvent.Action,
    *,
    principal: Principal,
    site_id: int,
    study_instance_uid: str,
    frames: int,
    octets: int,
) -> bool:
    """Count more of a viewing that this process knows to be recorded, else say False; asks no database."""
    window = _Window(int(time.time()) // QUARTER_HOUR, principal.name, action.value, study_instance_uid, site_id)
    if window not in _recorded:
        return False
    _count(window, _Counts(0, frames, octets))
    return True


def _remember(window: _Window) -> None:
    with _lock:
        _recorded[window] = None
        while len(_recorded) > MOST_REMEMBERED:
            _recorded.popitem(last=False)


def _count(window: _Window, counts: _Counts) -> None:
    with _lock:
        sums = _pending.setdefault(window, _Counts())
        sums.instances += counts.instances
        sums.frames += counts.frames
        sums.octets += counts.octets


def flush_counts() -> None:
    """Write what was counted since the last time. Counts of a failed write are kept for the next."""
    global _pending, _flushed_at
    with _lock:
        counted, _pending = _pending, {}
        _flushed_at = time.monotonic()
    # One order for all processes, so that two never wait for each other.
    windows = sorted(counted, key=lambda w: (w.quarter, w.principal, w.study_instance_uid, w.action, w.site_id))
    written = 0
    try:
        for begin in range(0, len(windows), WRITTEN_AT_ONCE):
            some = windows[begin : begin + WRITTEN_AT_ONCE]
            with transaction.atomic():
                for window in some:
                    _write(window, counted[window])
            written += len(some)
    finally:
        for window in windows[written:]:
            _count(window, counted[window])


def _write(window: _Window, counts: _Counts) -> None:
    sums = {name: F(name) + value for name, value in counts.__dict__.items()}
    if not ViewingWindow.objects.filter(**window.__dict__).update(**sums):
        # It was closed already: these counts get an event of their own.
        ViewingWindow.objects.create(**window.__dict__, **counts.__dict__)


def forget_recorded() -> None:
    """Forget which windows this process knows to be recorded, and what it counted."""
    with _lock:
        _recorded.clear()
        _pending.clear()


def close_viewing_windows(*, now: float | None = None) -> int:
    """Put the counts of quarters that are over into the trail and give how many windows were closed."""
    current = (now or time.time()) - LATEST
    closed = 0
    while True:
        with transaction.atomic():
            over = ViewingWindow.objects.select_for_update(skip_locked=True).filter(
                quarter__lt=int(current) // QUARTER_HOUR
            )
            window = over.order_by("quarter", "pk").first()
            if window is None:
                return closed
            _summarise(window)
            window.delete()
            closed += 1


def _summarise(window: ViewingWindow) -> None:
    if not (window.instances or window.frames or window.octets):
        return
    begun = AuditEvent.objects.filter(sequence=window.event_sequence).first()
    summary = AuditEvent(
        occurred_at=_end_of(window),
        action=window.action,
        username=window.principal,
        site_id=window.site_id,
        study_instance_uid=window.study_instance_uid,
        details={
            "total_of": window.event_sequence,
            "instances": window.instances,
            "frames": window.frames,
            "bytes": window.octets,
        },
    )
    if begun is not None:
        for name in ("user_id", "patient_id", "patient_name", "ip_address", "user_agent"):
            setattr(summary, name, getattr(begun, name))
    append(summary)


def _end_of(window: ViewingWindow) -> datetime:
    return datetime.fromtimestamp((window.quarter + 1) * QUARTER_HOUR, UTC)


@atexit.register
def _flush_at_exit() -> None:
    try:
        flush_counts()
    except DatabaseError:
        logger.exception("the last counts of viewing are lost")
