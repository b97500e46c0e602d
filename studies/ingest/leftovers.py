"""What a process that was killed leaves behind, and who removes it.

Of staged files, and of what was begun to be copied into storage, no sender was ever told: they go once they are old.
Objects that were placed and never indexed are told of by notes: before a batch is placed its keys are written to a file
that this process keeps locked, and they are struck out after the commit. What an unlocked note still tells is nobody's;
whether the index names it all the same is asked before it's removed (:func:`studies.archive.deletion.remove_objects`).

A note is written to memory only: it outlives its process, not a loss of power.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connections

from studies.archive import deletion, objects

logger = logging.getLogger("atrium.ingest")
SWEEP_SECONDS = 3600
# Whatever comes on the slowest line has grown within this time, and who placed the same meanwhile has indexed it.
GRACE = timedelta(days=1)
STRUCK_OUT = b"\n"
# By key: the SOP Instance UID of one that lies there, and how many do.
Noted = dict[str, tuple[str, int]]


class _Page:
    """A file that holds one batch's note at a time, locked as long as it's open. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / uuid.uuid4().hex
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            if os.fstat(self.descriptor).st_nlink == 0:
                raise FileNotFoundError(f"removed by a sweep before it was locked: {self.path}")
        except OSError:
            self.discard()
            raise

    def write(self, line: bytes) -> None:
        if os.pwrite(self.descriptor, line, 0) < len(line):
            raise OSError(f"no room for a note: {self.path}")

    def close(self) -> None:
        os.close(self.descriptor)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()


# Written over and over: making a file for each batch would take longer than all else that is done with a note.
_free: list[_Page] = []


def _forget_pages() -> None:
    while _free:
        _free.pop().close()


# The lock is one with the parent's.
os.register_at_fork(after_in_child=_forget_pages)


class Note:
    """What one batch places, from before it's placed until it's indexed; entered around both.

    Where ``is_settled`` wasn't set at the end, some of it may be named by nobody, and it's left to the sweep.
    """

    def __init__(self) -> None:
        self._page: _Page | None = None
        self.is_settled = False

    def __enter__(self) -> Note:
        return self

    def write(self, placed: Sequence[tuple[str, str]]) -> None:
        """Note instances: object key and SOP Instance UID. Storing goes on where that can't be written."""
        if not placed:
            return
        uid_of, count_of = dict(placed), Counter(key for key, _ in placed)
        text = json.dumps({key: (uid, count_of[key]) for key, uid in uid_of.items()}).encode()
        page: _Page | None = None
        try:
            page = _page()
            page.write(b"%08x %s\n" % (zlib.crc32(text), text))
        except OSError:
            logger.exception("a note of what is placed can't be written: a crash now would leave it for ever")
            if page is not None:
                page.discard()
            return
        self._page = page

    def __exit__(self, *_: object) -> None:
        page, self._page = self._page, None
        if page is None:
            return
        if self.is_settled:
            with suppress(OSError):
                page.write(STRUCK_OUT)
                _free.append(page)
                return
        page.close()


def _page() -> _Page:
    folder: Path = settings.PLACING_ROOT
    with suppress(IndexError):
        page = _free.pop()
        if page.folder == folder:
            return page
        page.close()
    return _Page(folder)


def sweep() -> None:
    """Remove what dead processes of this machine left; several may sweep at a time. Raises DatabaseError."""
    oldest = time.time() - GRACE.total_seconds()
    folders: list[tuple[Path, Callable[[Path], None]]] = [
        (settings.STAGING_ROOT, lambda path: _remove_older(path, oldest)),
        (settings.PLACING_ROOT, _take_over),
    ]
    for folder, look_at in folders:
        for path in folder.glob("*"):
            try:
                look_at(path)
            except (FileNotFoundError, BlockingIOError):
                # Another sweep was faster, or its process lives.
                continue
            except OSError:
                logger.exception("what was left behind can't be removed")
    try:
        objects.remove_partial(oldest)
    except OSError:
        logger.exception("copies that were left behind can't be removed")


def _remove_older(path: Path, oldest: float) -> None:
    if path.is_file() and path.stat().st_mtime < oldest:
        path.unlink()
        logger.warning("a staged file was left behind")


def _take_over(path: Path) -> None:
    """Have removed what a dead process's note tells. Raises BlockingIOError when the process lives, DatabaseError."""
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        noted = _read(file.readline())
        # A pack in which others lie is taken apart: not one of which all was indexed.
        unnamed = {key: uid for key, (uid, count) in noted.items() if deletion.naming(key, uid).count() < count}
        if unnamed:
            deletion.remove_later(unnamed, after=GRACE)
            logger.warning("objects were left behind", extra={"objects": len(unnamed)})
        path.unlink()


def _read(line: bytes) -> Noted:
    """Give what a line notes: nothing where it's struck out, or where only part of it was written."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not text or checksum != b"%08x" % zlib.crc32(text):
        return {}
    noted: Noted = json.loads(text)
    return noted


def keep_swept() -> None:
    """Sweep now and every hour, in a thread that ends with the process."""
    threading.Thread(target=_sweep_for_ever, name="leftovers", daemon=True).start()


def _sweep_for_ever() -> None:
    while True:
        try:
            sweep()
        except DatabaseError:
            logger.exception("what was left behind stays until the next sweep: the database can't be written")
        finally:
            connections.close_all()
        time.sleep(SWEEP_SECONDS)
