"""The viewer's files: the same by the shortcut as by Django, kept by browsers for good."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from portal.threads import Scope
from studies.viewer.files import answer

pytestmark = pytest.mark.django_db
BY_REQUEST = {"X-Request-ID", "Vary", "Content-Disposition"}


@pytest.fixture
def script() -> str:
    root: Path = settings.ATRIUM.viewer_root
    found = next(root.rglob("app.bundle.*.js"), None)
    if found is None:
        pytest.skip("OHIF isn't built: run «make viewer»")
    return f"/viewer/{found.relative_to(root)}"


def scope(path: str, **headers: str) -> Scope:
    names = {"host": "testserver", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in names.items()],
    }


def test_a_file_comes_with_the_headers_and_bytes_that_django_gives(script: str, client: Any) -> None:
    for encoding in ("gzip", "identity"):
        short = answer(scope(script, accept_encoding=encoding))
        full = client.get(script, HTTP_ACCEPT_ENCODING=encoding)
        assert short is not None
        sent = {name.decode(): value.decode() for name, value in short.headers}
        # It's the same for everybody, whatever cookie they have.
        assert sent["Vary"] == "Accept-Encoding"
        assert {n: v for n, v in sent.items() if n not in BY_REQUEST} == {
            n: v for n, v in full.items() if n not in BY_REQUEST
        }
        assert Path(short.path).read_bytes() == b"".join(full.streaming_content)
        assert "immutable" in sent["Cache-Control"]
        assert "'unsafe-inline'" not in sent["Content-Security-Policy"].split("script-src")[1].split(";")[0]


def test_what_a_browser_has_is_not_sent_again(script: str) -> None:
    first = answer(scope(script, accept_encoding="gzip"))
    assert first is not None
    etag = next(value for name, value in first.headers if name == b"ETag")
    again = answer(scope(script, accept_encoding="gzip", if_none_match=etag.decode()))
    assert again is not None
    assert (again.status, again.path, again.body) == (304, "", b"")


def test_the_page_and_what_is_no_file_are_left_to_django(script: str) -> None:
    for path in ("/viewer/", "/viewer/index.html", "/viewer/viewer", "/viewer/../manage.py", "/viewer/app-config.js"):
        assert answer(scope(path)) is None
    assert answer(scope(script, range="bytes=0-9")) is None
    assert answer(scope(script) | {"method": "HEAD"}) is None


@pytest.mark.parametrize(
    "name", ["0f2a7c3b/gone.js", "a.css", "a.JS", "a/b.png", "a.wasm", "a.json", "a.js.map", "a.woff2"]
)
def test_a_file_that_is_missing_is_not_found(name: str, people: Any, client_of: Any, client: Any) -> None:
    assert answer(scope(f"/viewer/{name}")) is None
    for browser in (client_of("radiologist"), client):
        assert browser.get(f"/viewer/{name}").status_code == 404


@pytest.mark.parametrize("name", ["", "index.html", "viewer", "tmtv", "viewer/atrium", "viewer/1.2.840"])
def test_a_page_of_ohif_is_its_page_for_one_who_may_see_images(
    name: str, script: str, people: Any, client_of: Any, client: Any
) -> None:
    page = client_of("radiologist").get(f"/viewer/{name}")
    assert (page.status_code, '<div id="root">' in page.content.decode()) == (200, True)
    assert client.get(f"/viewer/{name}").status_code == 302


def test_the_worklist_of_one_who_reads_names_what_opening_a_study_asks_for(
    script: str, people: Any, client_of: Any
) -> None:
    page = client_of("radiologist").get("/worklist/").content.decode()
    named = re.findall(r'data-viewer-files="([^"]+)"', page)[0].split()
    assert script in named
    assert len(named) == len(set(named)) == 4
    for address in named:
        given = answer(scope(address, accept_encoding="gzip"))
        assert given is not None
        assert "immutable" in dict(given.headers)[b"Cache-Control"].decode()
    assert "data-viewer-files" not in client_of("technologist").get("/worklist/").content.decode()
