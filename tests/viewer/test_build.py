"""How OHIF is brought in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from studies.viewer import build

pytestmark = pytest.mark.django_db


@pytest.fixture
def built() -> Path:
    root: Path = settings.ATRIUM.viewer_root
    if not (root / build.STAMP).exists():
        pytest.skip("OHIF isn't built: run «make viewer»")
    return root


def test_an_archive_that_is_not_the_locked_one_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(b"something else")
    right = "sha512-" + base64.b64encode(hashlib.sha512(b"something else").digest()).decode()
    build.check_integrity(archive, right)
    archive.write_bytes(b"something worse")
    with pytest.raises(build.BuildFailed):
        build.check_integrity(archive, right)


def test_the_lock_file_names_no_host() -> None:
    lock = json.loads(build.LOCK.read_text())
    assert all("resolved" not in package for package in lock["packages"].values())


def test_a_second_build_has_nothing_to_do(built: Path) -> None:
    assert build.build_viewer(built, report=pytest.fail) is False


def test_nothing_built_points_outside_the_viewers_folder(built: Path) -> None:
    assert '__webpack_require__.p = "/"' not in "".join(p.read_text() for p in built.glob("*.js"))
    assert not [p.name for p in built.glob("*.css") if re.search(r"url\(/(?!viewer/)", p.read_text())]
    index = (built / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="(?!data:)([^"]+)"', index)) == {
        address for address in re.findall(r'(?:src|href)="([^"]+)"', index) if address.startswith("/viewer/")
    }


def test_the_page_is_for_those_who_may_see_images(built: Path, client_of: Any) -> None:
    page = client_of("radiologist").get("/viewer/viewer?StudyInstanceUIDs=1.2")
    assert b"app.bundle" in page.content
    assert "'unsafe-inline'" not in page["Content-Security-Policy"].split("script-src")[1].split(";")[0]
    assert client_of("compliance").get("/viewer/").status_code == 403
    wasm = next(built.glob("*.wasm"))
    answer = client_of("radiologist").get(f"/viewer/{wasm.name}", HTTP_ACCEPT_ENCODING="gzip")
    assert (answer["Content-Type"], answer["Content-Encoding"]) == ("application/wasm", "gzip")
    b"".join(answer.streaming_content)
