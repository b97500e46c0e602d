"""From how many clients each web process of a machine takes long uploads: none takes all while another waits for work.

A client's connection stays at the process that happened to accept it. One that has more than its share says
``Connection: close`` with an answer; the client's next request opens another, which any process may accept.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO

logger = logging.getLogger("atrium.web")
_COUNT = struct.Struct("=I")
# In seconds: a client counts for so long after its upload, for its next follows at once.
LINGER = 1.0
# In seconds: for so long after a connection was let go it's seen where it went.
PAUSE = 0.1
# A connection's address.
Client = tuple[str, int]


class Uploads:
    """Counts the connections that upload where its siblings see them; used by one thread, the event loop's."""

    def __init__(self, path: Path, processes: int) -> None:
        self._processes = processes
        # What forgets each once it's quiet; None while it uploads.
        self._clients: dict[Client, asyncio.TimerHandle | None] = {}
        self._let_go_at = 0.0
        self._place: int | None = None
        self._file: IO[bytes] | None = None
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
            _COUNT.pack_into(self._counts, self._place * _COUNT.size, len(self._clients))

    @contextmanager
    def one(self, client: Client) -> Iterator[None]:
        """Count a client while its upload is under way, and a little longer."""
        waiting = self._clients.get(client)
        if waiting is not None:
            waiting.cancel()
        self._clients[client] = None
        self._show()
        try:
            yield
        finally:
            if client in self._clients:
                self._clients[client] = asyncio.get_running_loop().call_later(LINGER, self._forget, client)

    def _forget(self, client: Client) -> None:
        # Over HTTP/2 one client may have several under way: whichever ends last finds it forgotten.
        self._clients.pop(client, None)
        self._show()

    def let_go(self, client: Client) -> bool:
        """Say whether the connection had better be closed: a sibling would still have fewer if it took it."""
        if self._place is None or self._processes == 1:
            return False
        fewest = min(count for (count,) in _COUNT.iter_unpack(self._counts))
        now = monotonic()
        if len(self._clients) - fewest < 2 or now - self._let_go_at < PAUSE:
            return False
        self._let_go_at = now
        self._forget(client)
        return True

    def close(self) -> None:
        """Give the place up."""
        if self._file is not None:
            self._place = None
            self._counts.close()
            self._file.close()
