"""Keeps a machine's processes running: starts them, restarts those that die, stops them all in order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

logger = logging.getLogger("atrium.supervisor")
SHORTEST_WAIT, LONGEST_WAIT = 0.5, 30.0
HEALTHY_AFTER = 30.0
GRACE = 15.0


@dataclass
class Child:
    """One supervised process."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    wait: float = SHORTEST_WAIT
    start_again_at: float = 0.0

    def start(self) -> None:
        # An own session: Ctrl-C reaches the supervisor alone, which then stops the children in order.
        self.process = subprocess.Popen(self.command, start_new_session=True)  # noqa: S603  our own commands
        self.started_at = time.monotonic()

    def look_after(self) -> None:
        """Start the process if it isn't running and its turn has come."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.start_again_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        _end_rest(self.process)
        self.wait = SHORTEST_WAIT if now - self.started_at > HEALTHY_AFTER else min(self.wait * 2, LONGEST_WAIT)
        logger.error("%s ended with code %s, again in %.1f s", self.name, code, self.wait)
        self.process, self.start_again_at = None, now + self.wait


def _end_rest(process: subprocess.Popen[bytes]) -> None:
    """End what a process that is gone had started: a web worker without its parent would answer for ever."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def supervise(children: list[Child]) -> None:
    """Run the children until SIGTERM or SIGINT, then stop them: first asking, after a grace by force."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    while not stop.is_set():
        for child in children:
            child.look_after()
        stop.wait(0.3)
    _stop(children)


def _stop(children: list[Child]) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.error("process %s didn't stop in time", process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
