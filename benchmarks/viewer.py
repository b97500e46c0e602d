"""``python -m benchmarks viewer``: how long OHIF takes to draw the first and to have the last image of a CT.

The same build with the same configuration opens the same 300 slices in the same chromium, once from Atrium and once
from Orthanc behind nginx, which serves OHIF's files. The browser's cache is empty each time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Route

from benchmarks.peers import Peer, atrium, nginx, orthanc
from benchmarks.plane import CT_STUDY, ct_series, store
from tests.e2e.browser import DISTINCT_GREYS, chromium
from tests.services.atrium import ROOT

BUILD = ROOT / ".build" / "viewer"
CONFIGURATION = """
window.config = {
  name: "bench", routerBasename: "/viewer", extensions: [], modes: [], showStudyList: false,
  customizationService: [{ "ohif.tours": { $set: [] } }], investigationalUseDialog: { option: "never" },
  maxNumberOfWebWorkers: 3, maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
  studyPrefetcher: { enabled: false }, defaultDataSourceName: "bench",
  dataSources: [{
    namespace: "@ohif/extension-default.dataSourcesModule.dicomweb", sourceName: "bench",
    configuration: {
      friendlyName: "bench", name: "bench", qidoRoot: "/dicom-web", wadoRoot: "/dicom-web", wadoUriRoot: "/dicom-web",
      qidoSupportsIncludeField: true, imageRendering: "wadors", thumbnailRendering: "wadors",
      enableStudyLazyLoad: true, supportsFuzzyMatching: true, supportsWildcard: true,
      omitQuotationForMultipartRequest: true,
      bulkDataURI: { enabled: true, relativeResolution: "studies" },
    },
  }],
};
"""
LONGEST = 180.0


def opened(page: Page, address: str, slices: int) -> tuple[float, float]:
    """Open the study; give the seconds until the first image is drawn and until every frame has arrived."""
    arrived: set[str] = set()

    page.on("requestfinished", lambda request: arrived.add(request.url) if "/frames/" in request.url else None)
    start = time.perf_counter()
    page.goto(address)
    first = _until(page, lambda: page.evaluate(DISTINCT_GREYS) > 50) - start
    last = _until(page, lambda: len(arrived) >= slices) - start
    return first, last


def _until(page: Page, is_so: Callable[[], bool]) -> float:
    deadline = time.perf_counter() + LONGEST
    while not is_so():
        assert time.perf_counter() < deadline, "the images didn't come"
        page.wait_for_timeout(20)
    return time.perf_counter()


def _configured(context: BrowserContext) -> None:
    def answer(route: Route) -> None:
        route.fulfill(body=CONFIGURATION, content_type="text/javascript")

    context.route("**/viewer/app-config.js", answer)


def measured(browser: Browser, root: str, study: str, slices: int, rounds: int, token: str) -> tuple[float, float]:
    """Give the medians of several openings, each with an empty cache."""
    firsts, lasts = [], []
    for _ in range(rounds):
        context = browser.new_context(extra_http_headers={"Authorization": token} if token else {})
        _configured(context)
        first, last = opened(context.new_page(), f"{root}/viewer/viewer?StudyInstanceUIDs={study}", slices)
        context.close()
        firsts.append(first)
        lasts.append(last)
    return statistics.median(firsts), statistics.median(lasts)


def _proxy(peer: Peer) -> str:
    return f"""
        gzip_static on;
        location /viewer/ {{ alias {BUILD}/; try_files $uri /viewer/index.html; }}
        location = /viewer/index.html {{ alias {BUILD}/index.html; }}
        location /dicom-web/ {{ proxy_pass {peer.root}/; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; proxy_buffering off; client_max_body_size 0; }}
    """


def main(arguments: list[str] | None = None) -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks viewer", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    ct, study = ct_series(options.slices, CT_STUDY), CT_STUDY
    with tempfile.TemporaryDirectory(prefix="atrium-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        browser = stack.enter_context(chromium())
        theirs_peer = stack.enter_context(orthanc(folder / "orthanc"))
        store(theirs_peer, ct, 1)()
        port = stack.enter_context(nginx(folder / "nginx", _proxy(theirs_peer)))
        theirs = measured(browser, f"http://127.0.0.1:{port}", study, options.slices, options.rounds, "")
        ours_peer = stack.enter_context(atrium(folder / "atrium"))
        store(ours_peer, ct, 1)()
        # As when a person comes to read what arrived: the worker has built the metadata.
        time.sleep(12)
        parts = urlsplit(ours_peer.root)
        token = str(ours_peer.session.headers["Authorization"])
        ours = measured(browser, f"http://{parts.netloc}", study, options.slices, options.rounds, token)
    print(f"| OHIF, {options.slices} slices, seconds | Orthanc | Atrium | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for title, their, our in zip(("first image drawn", "last image there"), theirs, ours, strict=True):
        print(f"| {title} | {their:.2f} | {our:.2f} | {our / their:.2f} |")
