"""A move that is killed at whatever instant leaves everything readable, and is finished by the next worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.factories import make_instance
from tests.services.atrium import running_atrium
from tests.services.s3 import s3_bucket


def kill(tmp_path: Path, cold: str, *instants: int) -> list[str]:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(5):
        (files / f"{number}.dcm").write_bytes(make_instance(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4"))
    with running_atrium(tmp_path / "atrium", ATRIUM_COLD_STORAGE_URL=cold) as atrium:
        atrium.manage("import", str(files), "--site", "north")
        script = f"from tests.archive.killed_moves import main; main(*{instants})"
        seen = json.loads(atrium.manage("shell", "--no-imports", "-c", script).strip().splitlines()[-1])
    assert [one for one in seen if one["signal"] != 9] == []
    assert [one for one in seen if not (one["readable"] and one["again"] and one["whole"])] == []
    return [f"{one['instant']} {one['to']}" for one in seen]


@pytest.mark.database
def test_between_folders(tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    assert len(kill(tmp_path, str(tmp_path / "cold"))) == 10


def test_between_a_folder_and_a_bucket(tmp_path: Path) -> None:
    with s3_bucket() as url:
        assert kill(tmp_path, url, 0, 4) == [
            *("place_all 1 cold", "place_all 1 hot"),
            *("remove_from 2 cold", "remove_from 2 hot"),
        ]
