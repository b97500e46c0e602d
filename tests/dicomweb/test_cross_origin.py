"""Pages of other origins (Fetch standard, CORS): what those that are configured may do, and that no others may."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests

from tests.e2e.browser import chromium, needs_chromium
from tests.factories import PASSWORD, make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.ports import free_port

STUDY = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
INSTANCE = "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.5"
FRAME = f"{INSTANCE}/frames/1"
VIEWER, STRANGER = "https://viewer.example", "https://elsewhere.example"
SEARCH = "/dicom-web/studies?PatientID=*"
# Answered by the shortcuts, by the views, by nobody who may, and by an error.
PATHS = (SEARCH, FRAME, "/dicom-web/studies/1.2.3/series/1.2.3.4/metadata", f"{INSTANCE}/rendered", INSTANCE)


@pytest.fixture(scope="module")
def page_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, page_port: int) -> Iterator[Atrium]:
    origins = f"{VIEWER}, http://127.0.0.1:{page_port}/"
    with running_atrium(tmp_path_factory.mktemp("cors"), "web", ATRIUM_CORS_ORIGINS=origins) as atrium:
        requests.post(
            f"{atrium.url}/dicom-web/studies",
            make_instance(**STUDY),
            headers={"Authorization": f"Bearer {atrium.token('technologist')}", "Content-Type": "application/dicom"},
            timeout=30,
        ).raise_for_status()
        yield atrium


@pytest.fixture(scope="module")
def token(server: Atrium) -> str:
    return server.token("radiologist")


def get(server: Atrium, path: str, origin: str, token: str) -> requests.Response:
    headers = {"Origin": origin} | ({"Authorization": f"Bearer {token}"} if token else {})
    return requests.get(f"{server.url}{path}", headers=headers, timeout=30)


def preflight(server: Atrium, path: str, origin: str, method: str, headers: str) -> requests.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return requests.options(f"{server.url}{path}", headers=asked, timeout=30)


@pytest.mark.parametrize("path", PATHS)
def test_a_configured_origin_may_read_every_answer(path: str, server: Atrium, token: str) -> None:
    for given, status in ((token, 200), ("", 401)):
        # Asked twice: the second answer may come from memory.
        for _ in range(2):
            answer = get(server, path, VIEWER, given)
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert "origin" in answer.headers["Vary"].lower()
            exposed = answer.headers["Access-Control-Expose-Headers"]
            assert {"etag", "content-range", "location", "warning"} <= set(exposed.split(", "))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [STRANGER, "null", "https://viewer.example.evil.example", "http://viewer.example"])
def test_another_origin_may_read_none(path: str, origin: str, server: Atrium, token: str) -> None:
    answer = get(server, path, origin, token)
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_errors_can_be_read_too(server: Atrium, token: str) -> None:
    for path, status in (("/dicom-web/studies?limit=x", 400), ("/dicom-web/studies/1.9/metadata", 404)):
        answer = get(server, path, VIEWER, token)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, VIEWER)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (SEARCH, "GET"),
        ("/dicom-web/studies", "POST"),
        ("/dicom-web/studies/1.2.3", "DELETE"),
        ("/dicom-web/workitems/1.2/state", "PUT"),
        ("/wado", "GET"),
    ],
)
def test_a_preflight_allows_what_the_services_take(path: str, method: str, server: Atrium) -> None:
    wanted = "authorization,content-type,if-none-match,range,if-range,x-csrftoken"
    answer = preflight(server, path, VIEWER, method, wanted)
    assert answer.status_code in {200, 204}
    assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
    assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
    assert set(wanted.split(",")) <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
    assert int(answer.headers["Access-Control-Max-Age"]) >= 600
    assert "Access-Control-Allow-Origin" not in preflight(server, path, STRANGER, method, wanted).headers


def test_the_portals_own_pages_are_for_no_other_origin(server: Atrium) -> None:
    for path in ("/", "/accounts/login/", "/api/v1/schema/", "/viewer/app-config.js"):
        assert "Access-Control-Allow-Origin" not in get(server, path, VIEWER, "").headers
        assert "Access-Control-Allow-Origin" not in preflight(server, path, VIEWER, "GET", "authorization").headers


PAGE = """<!doctype html><title>another origin</title>"""
READ = """async ([root, token, frame]) => {
  const found = await fetch(root + "/dicom-web/studies?PatientID=*", {
    headers: { Authorization: "Bearer " + token, Accept: "application/dicom+json" } });
  const studies = await found.json();
  const image = await fetch(root + frame, { headers: { Authorization: "Bearer " + token,
    Accept: "multipart/related; type=application/octet-stream; transfer-syntax=*" } });
  const octets = (await image.arrayBuffer()).byteLength;
  const uid = studies[0]["0020000D"].Value[0];
  return { uid, status: image.status, octets, etag: image.headers.get("ETag") };
}"""
READ_BY_COOKIE = """async (root) => {
  const found = await fetch(root + "/dicom-web/studies?PatientID=*", { credentials: "include" });
  return found.status;
}"""


@needs_chromium
def test_a_browser_at_another_origin_reads_studies_and_frames(
    server: Atrium, token: str, page_port: int, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    refused_port = free_port()
    with (
        ThreadingHTTPServer(("127.0.0.1", page_port), handler) as pages,
        ThreadingHTTPServer(("127.0.0.1", refused_port), handler) as others,
        chromium() as browser,
    ):
        for pages_of in (pages, others):
            Thread(target=pages_of.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{page_port}/")
        read = page.evaluate(READ, [server.url, token, FRAME])
        assert (read["uid"], read["status"]) == ("1.2.3", 200)
        assert read["octets"] > 8192
        assert read["etag"]
        # Signed in at ours, the page of a configured origin may use the session; nobody else's may.
        assert page.evaluate(READ_BY_COOKIE, server.url) == 401
        ours = context.new_page()
        ours.goto(f"{server.url}/accounts/login/")
        ours.fill("input[name=login]", "radiologist")
        ours.fill("input[name=password]", PASSWORD)
        ours.press("input[name=password]", "Enter")
        ours.wait_for_url(lambda url: "/accounts/login/" not in url)
        assert page.evaluate(READ_BY_COOKIE, server.url) == 200
        page.goto(f"http://127.0.0.1:{refused_port}/")
        with pytest.raises(Exception, match="Failed to fetch"):
            page.evaluate(READ, [server.url, token, FRAME])
        with pytest.raises(Exception, match="Failed to fetch"):
            page.evaluate(READ_BY_COOKIE, server.url)
        context.close()
        pages.shutdown()
        others.shutdown()
