"""How many long uploads each web process of a machine takes, so that none takes all while another waits for work.

A client's connection stays at the process that happened to accept it. One that has more than its share of uploads
says ``Connection: close`` with its answer; the client's next request opens another, which any process may accept.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger("atrium.web")
_COUNT = struct.Struct("=I")


class Uploads:
    """Counts this process's uploads where its siblings see them; used by one thread, the event loop's."""

    def __init__(self, path: Path, processes: int) -> None:
        self._processes = processes
        self._mine = 0
        self._place: int | None = None
        try:
            self._take_place(path)
        except OSError:
            logger.exception("uploads can't be counted: they stay at the process that accepts them")

    def _take_place(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.truncate(self._processes * _COUNT.size)
        self._counts = mmap.mmap(self._file.fileno(), self._processes * _COUNT.size)
        for place in range(self._processes):
            try:
                # Whoever dies leaves its place to the one that follows it.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except BlockingIOError:
                continue
            self._place = place
            self._show()
            return

    def _show(self) -> None:
        if self._place is not None:
            _COUNT.pack_into(self._counts, self._place * _COUNT.size, self._mine)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count an upload while it's under way."""
        self._mine += 1
        self._show()
        try:
            yield
        finally:
            self._mine -= 1
            self._show()

    @property
    def are_too_many(self) -> bool:
        """Say whether a sibling would still have fewer if it took one of this process's."""
        if self._place is None or self._processes == 1:
            return False
        return self._mine - min(count for (count,) in _COUNT.iter_unpack(self._counts)) >= 2
