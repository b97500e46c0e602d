"""What a process that dies leaves behind goes, and nothing else does."""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings, settings
from django.db import OperationalError
from django.utils import timezone

from studies.archive import deletion, objects
from studies.archive.models import ObjectRemoval
from studies.archive.packs import is_pack
from studies.ingest import index, leftovers
from studies.ingest.leftovers import Note, sweep
from studies.models import Instance
from tests.archive.tiered import assert_all_is_there
from tests.dicomweb.test_packs import STUDY, ct, hot, keys, send, staged  # noqa: F401  fixtures
from tests.ingest.killed_batches import OLD, stored
from tests.services.atrium import running_atrium
from tests.services.s3 import s3_bucket


@pytest.mark.database
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_what_a_killed_process_placed_or_staged_goes_and_is_stored_when_sent_again(kind: str, tmp_path: Path) -> None:
    if kind == "s3":
        with s3_bucket() as url:
            seen = kill(tmp_path, ATRIUM_STORAGE_URL=url)
    else:
        seen = kill(tmp_path)
    # One instance lies alone, and those that follow it in one pack.
    one = {"signal": 9, "then placed": 0, "then staged": 0}
    assert seen == [
        one | {"instant": "staging", "placed": 0, "staged": 2, "fresh": 2},
        one | {"instant": "placing", "placed": 0, "staged": 2, "fresh": 2},
        one | {"instant": "committing", "placed": 2, "staged": 0, "fresh": 0},
        # Of five that were placed, two are indexed, one of them in the pack: it's taken out of it.
        one | {"instant": "one by one", "placed": 2, "staged": 0, "fresh": 0, "then placed": 2},
        one | {"instant": "committed", "placed": 2, "staged": 0, "fresh": 0, "then placed": 2},
    ]


def kill(tmp_path: Path, **environment: str) -> list[dict[str, Any]]:
    with running_atrium(tmp_path / "atrium", **environment) as atrium:
        script = f"from tests.ingest.killed_batches import main; main({atrium.token('technologist')!r})"
        seen: list[dict[str, Any]] = json.loads(
            atrium.manage("shell", "--no-imports", "-c", script).strip().splitlines()[-1]
        )
    return seen


def test_each_part_that_stages_looks_after_it_when_it_starts(tmp_path: Path) -> None:
    with running_atrium(tmp_path / "atrium") as atrium:
        for part in ("web", "dicom", "worker"):
            old, note = left_in(atrium.data)
            atrium.start(part)
            deadline = time.monotonic() + 30
            while (old.exists() or note.exists()) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not old.exists(), part
            assert not note.exists(), part


def left_in(data: Path) -> tuple[Path, Path]:
    """Leave an old staged file and a note behind, as a dead process did."""
    child = os.fork()
    if child == 0:
        try:
            settings.PLACING_ROOT = data / "placing"
            Note().write([("north/1.2/a.tar", "1.2.3")])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    old = data / "staging" / "old"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"x")
    os.utime(old, (time.time() - OLD,) * 2)
    (note,) = (data / "placing").iterdir()
    return old, note


def notes(tmp_path: Path) -> list[bytes]:
    return [path.read_bytes().splitlines()[0] for path in sorted((tmp_path / "placing").glob("*"))]


def later() -> Any:
    return timezone.now() + leftovers.GRACE


@pytest.mark.django_db
def test_a_sweep_leaves_alone_what_a_living_process_places_and_stages(
    send: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = objects.place_all
    seen = []

    def swept(pairs: Any, **more: Any) -> None:
        before = staged(tmp_path)
        sweep()
        assert staged(tmp_path) == before != []
        place(pairs, **more)
        sweep()
        seen.extend(key for note in notes(tmp_path) for key in json.loads(note.partition(b" ")[2]))

    monkeypatch.setattr(objects, "place_all", swept)
    assert send(ct(1), ct(2), ct(3)).status_code == 200
    assert set(seen) == set(keys())
    assert not ObjectRemoval.objects.exists()
    assert_all_is_there()


@pytest.mark.django_db
def test_a_note_is_struck_out_after_the_commit_and_its_file_used_again(
    send: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    for number in range(1, 7, 2):
        send(ct(number), ct(number + 1))
        assert notes(tmp_path) == [b""]
    (page,) = (tmp_path / "placing").iterdir()
    written_at = page.stat().st_mtime_ns
    # Nothing is placed of what is here.
    send(ct(1), ct(2))
    assert page.stat().st_mtime_ns == written_at
    sweep()
    assert not ObjectRemoval.objects.exists()


@pytest.mark.django_db
def test_what_was_placed_and_couldnt_be_indexed_goes(
    hot: str,  # noqa: F811
    send: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> None:
        raise OperationalError("the database is gone")

    study = "1.2.826.8"
    files = [ct(1, study), ct(2, study), ct(3, study)]
    with monkeypatch.context() as context:
        context.setattr(index, "_index", fails)
        assert send(*files).status_code == 409
    assert len(stored(study)) == 2
    sweep()
    assert deletion.remove_objects(now=later()) == 2
    assert stored(study) == []
    assert send(*files).status_code == 200
    assert_all_is_there()


@pytest.mark.django_db
def test_what_is_sent_again_before_a_sweep_or_after_it_is_kept(
    send: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> None:
        raise OperationalError("the database is gone")

    for files in ([ct(1), ct(2), ct(3)], [ct(4), ct(5), ct(6)]):
        with monkeypatch.context() as context:
            context.setattr(index, "_index", fails)
            send(*files)
        if files[0] == ct(1):
            send(*files)
            sweep()
        else:
            sweep()
            send(*files)
    deletion.remove_objects(now=later())
    assert Instance.objects.count() == 6
    assert set(stored(STUDY)) == set(keys())
    assert_all_is_there()


@pytest.mark.django_db
def test_an_object_of_its_own_goes_when_the_same_bytes_came_faster_in_a_pack(
    send: Any,  # noqa: F811
    north: Any,
    ingest_files: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = objects.place_all
    is_first = [True]

    def after_the_other(*args: Any, **more: Any) -> None:
        place(*args, **more)
        if is_first:
            is_first.clear()
            assert send(ct(1), ct(2), ct(3)).status_code == 200

    monkeypatch.setattr(objects, "place_all", after_the_other)
    (outcome,) = ingest_files(north, ct(2))
    assert outcome.is_in
    assert is_pack(Instance.objects.get(instance_number=2).object_key)
    assert len(stored(STUDY)) == 3
    sweep()
    assert deletion.remove_objects(now=later()) == 1
    assert set(stored(STUDY)) == set(keys())
    assert_all_is_there()


@pytest.mark.django_db
def test_storing_goes_on_where_no_note_can_be_written(
    send: Any,  # noqa: F811
    settings: LazySettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.PLACING_ROOT = tmp_path / "no folder"
    settings.PLACING_ROOT.write_bytes(b"")
    with caplog.at_level(logging.ERROR, "atrium.ingest"):
        assert send(ct(1), ct(2), ct(3)).status_code == 200
    assert "a note of what is placed can't be written" in caplog.text
    assert_all_is_there()


@pytest.mark.django_db
def test_a_note_written_in_part_names_nothing(send: Any, tmp_path: Path) -> None:  # noqa: F811
    send(ct(1), ct(2))
    (tmp_path / "placing" / "torn").write_bytes(b'00000000 {"%s": ["1.2.3", 1]}\n' % keys()[0].encode())
    sweep()
    assert not ObjectRemoval.objects.exists()
    assert not (tmp_path / "placing" / "torn").exists()


def test_only_staged_files_that_nothing_was_added_to_for_a_day_go(settings: LazySettings) -> None:
    folder: Path = settings.STAGING_ROOT
    folder.mkdir()
    for name, age in {"old": OLD, "growing": OLD, "fresh": 3600}.items():
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    with (folder / "growing").open("ab") as growing:
        growing.write(b"x")
    sweep()
    assert sorted(path.name for path in folder.iterdir()) == ["fresh", "growing"]


@pytest.fixture
def elsewhere(settings: LazySettings, tmp_path: Path) -> Iterator[None]:
    """Let the staging folder lie on another file system than storage."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("there's one file system only")
        settings.STAGING_ROOT = Path(folder) / "staging"
        yield


@pytest.mark.django_db
@pytest.mark.usefixtures("elsewhere")
def test_a_copy_from_another_file_system_that_was_broken_off_goes(
    send: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    child = os.fork()
    if child == 0:
        try:
            staging: Path = settings.STAGING_ROOT
            staging.mkdir()
            (staging / "one").write_bytes(bytes(1 << 20))
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
            objects.place("north/1.2/1.3/1.4-0.dcm", staging / "one")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (partial,) = [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert partial.stat().st_size > 0
    sweep()
    assert partial.exists()
    os.utime(partial, (time.time() - OLD,) * 2)
    sweep()
    assert not partial.exists()
    assert send(ct(1), ct(2), ct(3)).status_code == 200
    assert_all_is_there()
    assert {p.name for p in (tmp_path / "objects").rglob("*") if p.is_file()} == {Path(key).name for key in keys()}
