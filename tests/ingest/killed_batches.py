"""Batches whose process is killed (SIGKILL) at chosen instants, and what is there after a sweep.

Run inside an installation: ``manage.py shell -c "…; main(token)"``; prints one JSON list.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.files.storage import storages
from django.test import Client
from django.utils import timezone

from studies.archive import deletion, objects
from studies.archive.models import ObjectRemoval
from studies.ingest import incoming, index, leftovers
from studies.models import Instance
from tests.archive.killed_moves import in_child
from tests.archive.tiered import assert_all_is_there
from tests.dicomweb.test_packs import DICOM, ct, message

# While it's staged, before it's placed, before the commit, between one instance's and the next's, and after it.
INSTANTS: dict[str, tuple[Any, str, int]] = {
    "staging": (incoming, "_write", 3),
    "placing": (objects, "place_all", 0),
    "committing": (index, "_commit", 0),
    "one by one": (index, "_commit", 3),
    "committed": (leftovers.Note, "__exit__", 0),
}
OLD = leftovers.GRACE.total_seconds() + 60


def main(token: str) -> None:
    """Kill a STOW-RS request at every instant; sweep, remove, and send it again."""
    seen = []
    for number, instant in enumerate(INSTANTS, 1):
        study = f"1.2.826.9.{number}"
        killed = in_child(lambda study=study, instant=instant: _killed(token, study, instant))
        left = {"instant": instant, "signal": -killed, "placed": len(stored(study)), "staged": len(staged())}
        _checked(leftovers.sweep)
        left |= {"fresh": len(staged())}
        for path in staged():
            os.utime(path, (timezone.now().timestamp() - OLD,) * 2)
        _checked(_swept_and_removed)
        left |= {"then placed": len(stored(study)), "then staged": len(staged())}
        _checked(lambda study=study: _sent(token, study))
        _checked(_swept_and_removed)
        _checked(lambda study=study: _stands(study))
        seen.append(left)
    print(json.dumps(seen))


def _checked(work: Callable[[], Any]) -> None:
    assert in_child(work) == 0


def _killed(token: str, study: str, instant: str) -> None:
    module, name, count = INSTANTS[instant]
    real, left = getattr(module, name), [count]

    def dies(*arguments: Any, **more: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*arguments, **more)

    setattr(module, name, dies)
    if instant == "one by one":
        index._keep = _fails_for_many(index._keep)
    _sent(token, study)


def _fails_for_many(keep: Callable[..., Any]) -> Callable[..., Any]:
    def fails(new: list[Any], known: Any) -> Any:
        if len(new) > 1:
            raise ValueError("one of them can't be indexed")
        return keep(new, known)

    return fails


def _sent(token: str, study: str) -> None:
    header = {"HTTP_AUTHORIZATION": f"Bearer {token}"}
    body = message(*(ct(number, study) for number in range(1, 6)))
    answer = Client(SERVER_NAME="localhost").post("/dicom-web/studies", body, content_type=DICOM, **header)
    assert answer.status_code == 200, answer.content


def _swept_and_removed() -> None:
    leftovers.sweep()
    for rounds in (1, 2):
        deletion.remove_objects(now=timezone.now() + rounds * leftovers.GRACE)
    assert not ObjectRemoval.objects.exists()
    assert not list(settings.PLACING_ROOT.glob("*"))


def _stands(study: str) -> None:
    assert Instance.objects.filter(series__study__study_instance_uid=study).count() == 5
    assert_all_is_there()


def stored(study: str) -> list[str]:
    """Give the keys of all of a study's objects in storage, whoever names them."""

    def below(folder: str) -> list[str]:
        try:
            folders, files = storages["objects"].listdir(folder)
        except FileNotFoundError:
            return []
        keys = [f"{folder}{name}" for name in files]
        return keys + [key for name in folders for key in below(f"{folder}{name}/")]

    return below(f"north/{study}/")


def staged() -> list[Any]:
    return list(settings.STAGING_ROOT.glob("*"))
