"""The database backend: a transaction waits asleep until no other is under way.

SQLite itself would have each ask again and again, after ever longer pauses, until it gives up: who comes late in a busy
hour hardly gets a turn, and most of the time that the others leave is nobody's.
"""

from __future__ import annotations

import fcntl
import logging
from time import monotonic
from typing import IO

from django.db.backends.sqlite3 import base

logger = logging.getLogger("atrium.database")
# Seconds for SQLite's own lock, however long the line was.
LEAST_TIMEOUT = 1.0


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that holds a lock of the file system, ``….sqlite3.lock``, from a transaction's begin to its end.

    Whoever dies loses it; whoever has it and waits for something else is waited for without an end. Statements outside
    a transaction, and other programs, go by SQLite's own locks: for these a transaction waits as long as the timeout
    says, its time in the line included, so that where another program keeps one, a line ends together.
    """

    _lock: IO[bytes] | None = None

    def _start_transaction_under_autocommit(self) -> None:
        try:
            if self.is_in_memory_db():
                super()._start_transaction_under_autocommit()  # type: ignore[misc]
            else:
                begun_at = monotonic()
                self._take_turn()
                self._begin(waited=monotonic() - begun_at)
        except BaseException:
            self._end_turn()
            raise

    def _begin(self, *, waited: float) -> None:
        if waited < LEAST_TIMEOUT:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
            return
        timeout = float(self.settings_dict["OPTIONS"].get("timeout", 5.0))
        self._set_timeout(max(timeout - waited, min(timeout, LEAST_TIMEOUT)))
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        finally:
            self._set_timeout(timeout)

    def _set_timeout(self, seconds: float) -> None:
        with self.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def _set_autocommit(self, autocommit: bool) -> None:
        # What waits for the commit runs after this, and needs no turn.
        try:
            super()._set_autocommit(autocommit)  # type: ignore[misc]
        finally:
            self._end_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _take_turn(self) -> None:
        try:
            self._lock = open(f"{self.settings_dict['NAME']}.lock", "ab")  # noqa: SIM115  held until the end
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError:
            # Without it SQLite's own waiting has to do.
            logger.exception("the database's lock can't be used")
            self._end_turn()

    def _end_turn(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
