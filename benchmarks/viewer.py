"""``python -m benchmarks viewer``: how long OHIF takes to draw the first and to have the last image of a CT.

The same 300 slices in the same chromium, from three places: Orthanc behind nginx with OHIF as it's published, the same
with OHIF as we build it, and Atrium. Each with a profile of its own on disk: first the empty cache of a first visit,
then the study opened again as on any other hour of the day, when the browser has kept scripts and their code.

When the first image is there the page itself notes, as soon as Cornerstone says so: to ask it every few milliseconds
from outside, for all pixels, took a tenth of the time that was to be measured. Between two openings the machine gets
time to take back the memory of the page that was closed, and before the first the browser to be there itself: its own
windows and menus take a core for a second and more when it starts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, Playwright, sync_playwright

from benchmarks.peers import Peer, atrium, nginx, orthanc
from benchmarks.plane import CT_STUDY, ct_series, store
from studies.viewer.build import build_viewer
from tests.e2e.browser import CHROMIUM, DISTINCT_GREYS, FLAGS
from tests.factories import PASSWORD
from tests.services.atrium import ROOT

BUILD, PUBLISHED = ROOT / ".build" / "viewer", ROOT / ".build" / "viewer-published"
# The third opening of a profile is the first that runs code that chromium has kept.
UNTIL_KEPT = 2
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
LONGEST, BETWEEN = 180.0, 4.0
# When an image was first drawn, in seconds since the epoch: told by more than a few greys in its middle.
WATCH_DRAWN = """document.addEventListener("CORNERSTONE_IMAGE_RENDERED", () => {
  const canvas = document.querySelector("canvas.cornerstone-canvas");
  if (window.drawnAt || !canvas?.width) return;
  const [x, y] = [(canvas.width >> 1) - 32, (canvas.height >> 1) - 32];
  const { data } = canvas.getContext("2d").getImageData(x, y, 64, 64);
  const greys = new Set(data.filter((_, place) => place % 4 === 0));
  if (greys.size > 20) window.drawnAt = (performance.timeOrigin + performance.now()) / 1000;
}, true)"""
# When a study's first look was painted, in milliseconds since the epoch.
WATCH_LOOKS = """window.looks = {};
new PerformanceObserver((list) => {
  for (const { url, renderTime, loadTime } of list.getEntries()) {
    window.looks[url.split("/studies/")[1].split("/")[0]] ||= performance.timeOrigin + (renderTime || loadTime);
  }
}).observe({ type: "element", buffered: true });"""


def look_painted(page: Page, study: str) -> float | None:
    """Give when the study's first look was painted, in seconds since the epoch."""
    painted: float | None = page.evaluate("study => window.looks[study]", study)
    return painted and painted / 1000


def first_looks(playwright: Playwright, root: str, again: int) -> list[float]:
    """Give the seconds until the study page's first look is painted, for one who has just signed in and then again."""
    with closing(playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)) as browser:
        page = browser.new_page()
        page.add_init_script(WATCH_LOOKS)
        time.sleep(BETWEEN)
        page.goto(root)
        page.fill("input[name=login]", "radiologist")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "/accounts/login/" not in url)
        found = []
        for _ in range(1 + again):
            start = time.time()
            page.goto(f"{root}/studies/{CT_STUDY}/", wait_until="commit")
            _until(page, lambda: look_painted(page, CT_STUDY) is not None)
            found.append((look_painted(page, CT_STUDY) or 0) - start)
            _until(page, lambda: page.is_hidden("#viewer-wait"))
        return found


def opened(page: Page, address: str, slices: int) -> tuple[float, float, float]:
    """Open the study; give the seconds until the first image is drawn and until every frame has arrived.

    Between them stands what CPU time the page's main thread had used by the first image: that isn't noisy.
    """
    arrived: set[str] = set()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.add_init_script(WATCH_DRAWN)
    page.on("requestfinished", lambda request: arrived.add(request.url) if "/frames/" in request.url else None)
    start = time.time()
    page.goto(address, wait_until="commit")
    _until(page, lambda: page.evaluate("window.drawnAt"))
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    first = page.evaluate("window.drawnAt") - start
    assert page.evaluate(DISTINCT_GREYS) > 50, "what was drawn is no image"
    last = _until(page, lambda: len(arrived) >= slices) - start
    return first, metrics["TaskDuration"], last


def _until(page: Page, is_so: Callable[[], object]) -> float:
    deadline = time.time() + LONGEST
    while not is_so():
        assert time.time() < deadline, "the images didn't come"
        page.wait_for_timeout(50)
    return time.time()


Figures = dict[str, list[float]]


def measured(playwright: Playwright, root: str, slices: int, again: int, token: str) -> Figures:
    """Give the seconds of one visit's first opening and of the ones of the same day, in a new profile."""
    figures: Figures = {title: [] for title in TITLES}
    with tempfile.TemporaryDirectory(prefix="atrium-profile-") as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=FLAGS,
            extra_http_headers={"Authorization": token} if token else {},
        )
        with closing(context):
            time.sleep(BETWEEN)
            for number in range(UNTIL_KEPT + again):
                with closing(context.new_page()) as page:
                    times = opened(page, f"{root}/viewer/viewer?StudyInstanceUIDs={CT_STUDY}", slices)
                time.sleep(BETWEEN)
                if 0 < number < UNTIL_KEPT:
                    continue
                for title, seconds in zip(TITLES[3:] if number else TITLES[:3], times, strict=True):
                    figures[title].append(seconds)
    return figures


TITLES = tuple(
    f"{what}, {when}"
    for when in ("empty cache", "same day")
    for what in ("first image", "CPU of the main thread until then", "last image")
)


def proxy(peer: Peer, build: Path, folder: Path, configured: str = CONFIGURATION) -> str:
    """Give nginx's configuration as one would write it: OHIF precompressed and kept for good, DICOMweb passed on."""
    configuration = folder / "app-config.js"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(configured)
    return f"""
        gzip_static on;
        location = /viewer/app-config.js {{ alias {configuration}; }}
        location ~ ^/viewer/(.*\\.bundle\\..*)$ {{ alias {build}/$1; expires max; add_header Cache-Control immutable; }}
        location /viewer/ {{ alias {build}/; try_files $uri /viewer/index.html; }}
        location = /viewer/index.html {{ alias {build}/index.html; }}
        location /dicom-web/ {{ proxy_pass {peer.root}/; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host; proxy_buffering off; client_max_body_size 0; }}
    """


def main(arguments: list[str] | None = None) -> None:
    """Measure all three, in turns, and print a table of medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks viewer", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", type=int, default=2)
    options = parser.parse_args(arguments)
    build_viewer(PUBLISHED, as_published=True)
    ct = ct_series(options.slices, CT_STUDY)
    with tempfile.TemporaryDirectory(prefix="atrium-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        peer = stack.enter_context(orthanc(folder / "orthanc"))
        ours = stack.enter_context(atrium(folder / "atrium"))
        for one in (peer, ours):
            store(one, ct, 1)()
        # As when a person comes to read what arrived: the worker has built the metadata.
        time.sleep(12)
        places: dict[str, tuple[str, str]] = {}
        for title, build in (("Orthanc", PUBLISHED), ("Orthanc, our OHIF", BUILD)):
            port = stack.enter_context(
                nginx(folder / title.replace(", ", "-").replace(" ", "-"), proxy(peer, build, folder / build.name))
            )
            places[title] = (f"http://127.0.0.1:{port}", "")
        token = str(ours.session.headers["Authorization"])
        places["Atrium"] = (f"http://{urlsplit(ours.root).netloc}", token)
        playwright = stack.enter_context(sync_playwright())
        figures: dict[str, Figures] = {place: {title: [] for title in TITLES} for place in places}
        looks: list[list[float]] = []
        for _ in range(options.rounds):
            looks.append(first_looks(playwright, places["Atrium"][0], options.again))
            for place, (root, credential) in places.items():
                for title, seconds in measured(playwright, root, options.slices, options.again, credential).items():
                    figures[place][title] += seconds
    print(f"| OHIF, {options.slices} slices, seconds | {' | '.join(places)} | ratio | of it to our OHIF |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title in TITLES:
        theirs, with_ours, us = (statistics.median(figures[place][title]) for place in places)
        print(f"| {title} | {theirs:.2f} | {with_ours:.2f} | {us:.2f} | {us / theirs:.2f} | {us / with_ours:.2f} |")
    # The server's picture on the study page, against what they have to show: OHIF's own first image.
    for when, seconds in (
        ("empty cache", [one[0] for one in looks]),
        ("same day", [s for one in looks for s in one[1:]]),
    ):
        theirs, with_ours = (statistics.median(figures[p][f"first image, {when}"]) for p in [*places][:2])
        us = statistics.median(seconds)
        ratios = f"{us / theirs:.2f} | {us / with_ours:.2f}"
        print(f"| first look, against their first image, {when} | | | {us:.2f} | {ratios} |")
