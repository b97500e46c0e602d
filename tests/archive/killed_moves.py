"""Moves that are killed (SIGKILL) at chosen instants, each in a process of its own, and what is there afterwards.

Run inside an installation with a cold tier and one study: ``manage.py shell -c "…; main()"``; prints one JSON list.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

from django.core.files.storage import storages
from django.db import connections

from studies.archive import objects, tiers
from studies.models import Study
from tests.archive.tiered import COLD, HOT, assert_all_is_there, lies

# After a batch is placed, before and after the commit, after some sources are removed.
INSTANTS = (("place_all", 1), ("_commit", 0), ("_remove_sources", 0), ("remove_from", 0), ("remove_from", 2))


def main(*instants: int) -> None:
    """Kill a move at every instant, or at some, both ways; after each read everything, and have the move done again."""
    # No worker runs here that would hear it.
    tiers.current_app.send_task = lambda *_: None
    seen: list[dict[str, Any]] = []
    for name, count in [INSTANTS[n] for n in instants] or INSTANTS:
        for tier in (COLD, HOT):
            killed = in_child(lambda name=name, count=count, tier=tier: _move(tier, name, count))
            readable = in_child(assert_all_is_there)
            again = in_child(tiers.work_off)
            whole = in_child(lambda tier=tier: _ended(tier))
            seen.append(
                {"instant": f"{name} {count}", "to": tier.value, "signal": -killed, "readable": readable == 0}
                | {"again": again == 0, "whole": whole == 0}
            )
    print(json.dumps(seen))


def _move(tier: Study.Tier, name: str, count: int) -> None:
    tiers.BATCH_OBJECTS = 2
    module = tiers if name.startswith("_") else objects
    real, left = getattr(module, name), [count]

    def dies(*arguments: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*arguments)

    setattr(module, name, dies)
    tiers.request_move(study=Study.objects.get(), tier=tier, origin="person")
    tiers.work_off()


def _ended(tier: Study.Tier) -> None:
    assert lies() == {tier.value}
    assert Study.objects.get().tier == tier
    assert_all_is_there()


def in_child(work: Callable[[], Any]) -> int:
    """Do the work in a forked process; give its exit code, below zero the signal that ended it."""
    connections.close_all()
    storages._storages = {}
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main()
