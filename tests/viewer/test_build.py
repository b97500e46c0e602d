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

from studies.viewer import build, scripts

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
    with pytest.raises(scripts.BuildFailed):
        build.check_integrity(archive, right)


def test_the_lock_file_names_no_host() -> None:
    lock = json.loads(build.LOCK.read_text())
    assert all("resolved" not in package for package in lock["packages"].values())


def test_a_second_build_has_nothing_to_do(built: Path) -> None:
    assert build.build_viewer(built, report=pytest.fail) is False


def test_nothing_built_points_outside_the_viewers_folder(built: Path) -> None:
    assert not [p.name for p in built.rglob("*.js") if re.search(r'\.p ?= ?"/"', p.read_text())]
    assert not [p.name for p in built.rglob("*.css") if re.search(r"url\(/(?!viewer/[0-9a-f]{8}/)", p.read_text())]
    index = (built / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="(?!data:)([^"]+)"', index)) == {
        address for address in re.findall(r'(?:src|href)="([^"]+)"', index) if address.startswith("/viewer/")
    }


def test_opening_a_study_asks_for_two_scripts_and_one_style_sheet(built: Path) -> None:
    index = (built / "index.html").read_text()
    asked = re.findall(r'<script defer src="/viewer/([^"]+)"', index)
    assert re.fullmatch(r"[0-9a-f]{8}/app\.chunks\.js [0-9a-f]{8}/app\.bundle\.[0-9a-f]+\.js", " ".join(asked))
    assert asked == re.findall(r'rel="preload" as="script" href="/viewer/([^"]+)"', index)
    (sheet,) = re.findall(r'<link href="/viewer/([^"]+)" rel="stylesheet"', index)
    chunks, entry = ((built / script).read_text() for script in asked)
    # The chunks that stand in the first are there for OHIF's loader, scripts and styles.
    assert len(re.findall(r"\brspackChunk=globalThis\.rspackChunk\|\|\[\]\)\.push\(\[\[\d+\]", chunks)) > 10
    assert re.search(r"\{9509:0,(\d+:0,)+\d+:0\}", entry)
    assert ".viewport-wrapper" in (built / sheet).read_text()


def test_every_picture_that_the_scripts_name_is_there(built: Path) -> None:
    scripts = [*built.rglob("app.chunks.js"), *built.rglob("app.bundle.*.js")]
    named = {name for script in scripts for name in re.findall(r'"(assets/images/[^"]+)"', script.read_text())}
    assert len(named) > 20
    assert not [name for name in named if not (scripts[0].parent / name).exists()]


def test_scripts_are_as_short_as_they_can_be(built: Path) -> None:
    for path in built.rglob("*.bundle.*.js"):
        text = path.read_text()
        assert text.count("\n") < 3000 + len(text) // 200, path.name
    first = next(built.rglob("app.chunks.js")).read_text() + next(built.rglob("app.bundle.*.js")).read_text()
    assert len(first) < 9_200_000
    assert first.isascii()
    assert "onnxruntime" not in first
    # Of 1,460 icons and 250 functions of another calendar OHIF's components use a few.
    assert "M3.5 13h6" not in first
    assert "lastDayOfISOWeekYear" not in first
    assert list(built.rglob("*.LEGAL.txt"))


def test_every_module_is_compiled_while_its_script_comes(built: Path) -> None:
    for path in built.rglob("*.bundle.*.js"):
        assert not re.search(r"[{,]\d+\(\w+(,\w+)*\)\{", path.read_text()), path.name
    assert next(built.rglob("app.bundle.*.js")).read_text().count(":(function(") > 700


def test_a_script_that_is_not_as_expected_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "app.bundle.0.js").write_text("another OHIF")
    with pytest.raises(scripts.BuildFailed, match="expected"):
        scripts.hasten(tmp_path, ["app.bundle.0.js"], ["1"], str)


def test_modules_are_found_where_the_entry_script_loads_them() -> None:
    entry = """
  if (module === "@ohif/extension-default") {
    const imported = await Promise.all(/* import() */ [__webpack_require__.e(1673), __webpack_require__.e(89)]).then();
    return imported.default;
  }
  if (module === "@ohif/extension-test") {
    const imported = await __webpack_require__.e(/* import() */ 8423).then();
    return imported.default;
  }
  if (module === "@ohif/extension-dicom-pdf") {
    const imported = await __webpack_require__.e(/* import() */ 9116).then();
    return imported.default;
  }
"""
    assert scripts.chunks_of(entry) == ["1673", "89", "9116"]
    with pytest.raises(scripts.BuildFailed):
        scripts.chunks_of("nothing of the kind")


def test_the_page_is_for_those_who_may_see_images(built: Path, client_of: Any) -> None:
    page = client_of("radiologist").get("/viewer/viewer?StudyInstanceUIDs=1.2")
    assert b"app.bundle" in page.content
    assert "'unsafe-inline'" not in page["Content-Security-Policy"].split("script-src")[1].split(";")[0]
    assert client_of("compliance").get("/viewer/").status_code == 403
    wasm = next(built.rglob("*.wasm")).relative_to(built)
    answer = client_of("radiologist").get(f"/viewer/{wasm}", HTTP_ACCEPT_ENCODING="gzip")
    assert (answer["Content-Type"], answer["Content-Encoding"]) == ("application/wasm", "gzip")
    b"".join(answer.streaming_content)
