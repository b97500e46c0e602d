"""``python -m benchmarks case``: from case to case, as radiologists go, and the same with Orthanc's OHIF beside it.

Generated CTs, each of a patient of its own, in one chromium whose cache is empty at first. Counted from the key press
or click: seconds until the first look is painted, the server's picture of the first image in its place; until a word
can be typed into the report; until OHIF has drawn the first image itself; and what CPU time the page's main thread used
by then, which isn't noisy. There are two ways to a case:

- the whole page is loaded: at Atrium from the worklist by Enter, report and images; at Orthanc OHIF's address;
- the application that runs already goes on: at Atrium «Next case» by its key, with the images that it fetched ahead; at
  Orthanc from OHIF's own list of studies by a double click, with what the browser has kept.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from playwright.sync_api import CDPSession, Error, Frame, Page, Playwright, TimeoutError, sync_playwright

from benchmarks.peers import Peer, nginx, orthanc
from benchmarks.plane import ct_series, store
from benchmarks.viewer import BUILD, CONFIGURATION, PUBLISHED, WATCH_LOOKS, look_painted, proxy
from studies.viewer.build import build_viewer
from tests.e2e.browser import CHROMIUM, DISTINCT_GREYS, FLAGS, WITH_IMAGES
from tests.factories import PASSWORD
from tests.services.atrium import Atrium, running_atrium

LONGEST = 180.0
WORDS = "#draft textarea.section"
STUDIES = [f"1.2.826.0.1.3680043.10.2.{n}" for n in range(1, 5)]
# What a person looks at a case at least: meanwhile the next one's images are fetched.
LOOK = 8.0
COUNT_DRAWN = """document.addEventListener("CORNERSTONE_IMAGE_RENDERED", () => {
  window.drawn = (window.drawn || 0) + 1;
}, true)"""
# Asked every 10 ms, by one script in the page at either place: asking is work for the page's thread, too.
IS_DRAWN_AT_ATRIUM = """study => {
  const images = document.getElementById("study-images");
  const wait = document.getElementById("viewer-wait");
  const address = images?.querySelector("iframe")?.contentWindow.location.href || "";
  return images?.dataset.study === study && address.includes(study) && !wait?.checkVisibility();
}"""
IS_DRAWN_AT_ORTHANC = "() => Boolean(window.drawn)"
EMPTY, SAME_DAY, GOES_ON = "empty cache", "same day, whole page", "same day, goes on"
AFRESH = """
from studies.models import Study
Study.objects.update(status="arrived", claimed_by=None, claimed_until=None)
"""


@dataclass
class Opening:
    """One case that was opened: seconds until words, first image and first look, and the main thread's CPU."""

    typed: float
    drawn: float
    cpu: float
    looked: float | None


Openings = dict[str, list[Opening]]


class Browser:
    """A page in a profile of its own, and the CPU time of its main thread."""

    def __init__(self, page: Page, session: CDPSession) -> None:
        self.page, self.session = page, session

    def cpu(self) -> float:
        """Give the CPU seconds that the main thread has used since the page began to load."""
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    def opened(
        self,
        study: str,
        act: Callable[[], object],
        is_drawn: str,
        word: str = "",
        *,
        goes_on: bool = False,
    ) -> Opening:
        """Act, type the word as soon as it can be, and wait for the image."""
        cpu, begun, start = self.cpu() if goes_on else 0.0, time.time(), time.perf_counter()
        act()
        if word:
            self.page.fill(WORDS, word, timeout=LONGEST * 1000)
        typed = time.perf_counter() - start
        while not self._says(is_drawn, study):
            assert time.perf_counter() - start < LONGEST, "the image didn't come"
            self.page.wait_for_timeout(10)
        # OHIF's own frame, or its page.
        frame: Frame = next((f for f in self.page.frames if "/viewer/viewer?" in f.url), self.page.main_frame)
        while frame.evaluate(DISTINCT_GREYS) < 50:
            assert time.perf_counter() - start < LONGEST, "what was drawn is no image"
        drawn, used = time.perf_counter() - start, self.cpu() - cpu
        looked = look_painted(self.page, study)
        return Opening(typed, drawn, used, looked and looked - begun)

    def _says(self, script: str, study: str) -> bool:
        try:
            return bool(self.page.evaluate(script, study))
        except Error:
            # The page goes while it's asked.
            return False


@contextmanager
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Start chromium with an empty profile on disk."""
    with tempfile.TemporaryDirectory(prefix="atrium-profile-") as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=[*FLAGS, *WITH_IMAGES]
        )
        context.add_init_script(COUNT_DRAWN)
        context.add_init_script(WATCH_LOOKS)
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        yield Browser(page, session)
        context.close()


def at_atrium(playwright: Playwright, atrium: Atrium, number: int) -> Openings:
    """Read as a radiologist: a case from the worklist, then case after case."""
    found: Openings = {EMPTY: [], SAME_DAY: [], GOES_ON: []}
    atrium.manage("shell", "-c", AFRESH)
    with browser(playwright) as one:
        page = one.page
        page.goto(f"{atrium.url}/")
        page.fill("input[name=login]", "radiologist")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "/accounts/login/" not in url)

        # The third opening of a profile is the first that runs code that chromium has kept.
        for moment in (EMPTY, "", SAME_DAY):
            page.goto(f"{atrium.url}/worklist/?sort=name")
            page.locator(f".row-link[href*='{STUDIES[0]}']").focus()
            word = f"Round {number}, {moment}."
            opening = one.opened(STUDIES[0], lambda: page.keyboard.press("Enter"), IS_DRAWN_AT_ATRIUM, word)
            assert page.locator(WORDS).first.input_value() == word, "the word is gone"
            if moment:
                found[moment].append(opening)
            time.sleep(LOOK)
        for study in STUDIES[1:]:
            page.locator("#save-state").click()
            word = f"Round {number}, {study}."

            # A word isn't typed into the case that is left.
            def go_on(study: str = study) -> None:
                page.keyboard.press("n")
                try:
                    page.wait_for_selector(f"#study-images[data-study='{study}']", state="attached")
                except TimeoutError as error:
                    raise RuntimeError(f"{study} didn't come: {_told(page)}") from error

            found[GOES_ON].append(one.opened(study, go_on, IS_DRAWN_AT_ATRIUM, word, goes_on=True))
            assert page.locator(WORDS).first.input_value() == word, "the word is gone"
            time.sleep(LOOK)
    return found


def _told(page: Page) -> list[str]:
    """Give what a page says that didn't go on: its address, messages, and whether its words are saved."""
    places = ("#messages", "#save-state", "#case-announced", "#claim")
    return [page.url, *(text for place in places for text in page.locator(place).all_inner_texts())]


def at_orthanc(playwright: Playwright, root: str) -> Openings:
    """Open OHIF's address, and a study from its list."""
    found: Openings = {EMPTY: [], SAME_DAY: [], GOES_ON: []}
    with browser(playwright) as one:
        page = one.page
        for moment in (EMPTY, "", SAME_DAY):
            address = f"{root}/viewer/viewer?StudyInstanceUIDs={STUDIES[0]}"
            go = partial(page.goto, address, wait_until="commit")
            opening = one.opened(STUDIES[0], go, IS_DRAWN_AT_ORTHANC)
            if moment:
                found[moment].append(opening)
            time.sleep(LOOK)
        for number in range(len(STUDIES)):
            page.goto(f"{root}/viewer/")
            row = page.get_by_text(f"Bench{number}", exact=False).first
            row.wait_for(timeout=LONGEST * 1000)
            time.sleep(LOOK)
            opening = one.opened(STUDIES[number], row.dblclick, IS_DRAWN_AT_ORTHANC, goes_on=True)
            # The first one brings what the list hasn't loaded yet.
            if number:
                found[GOES_ON].append(opening)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure all three places in turns and print a table of medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks case", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    build_viewer(PUBLISHED, as_published=True)
    with tempfile.TemporaryDirectory(prefix="atrium-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        ours = stack.enter_context(
            running_atrium(folder / "atrium", "web", "worker", "scheduler", ATRIUM_WEB_WORKERS="2")
        )
        peer = Peer("Atrium", f"{ours.url}/dicom-web", [])
        peer.session.headers["Authorization"] = f"Bearer {ours.token('radiologist')}"
        theirs = stack.enter_context(orthanc(folder / "orthanc"))
        for number, study in enumerate(STUDIES):
            values = {
                "PatientID": f"BENCH{number}",
                "PatientName": f"Bench{number}^Case",
                "AccessionNumber": study[-6:],
            }
            files = ct_series(options.slices, study, **values)
            for one in (peer, theirs):
                store(one, files, 1)()
        # As when a person comes to read what arrived: the worker has built the metadata.
        time.sleep(12)
        playwright = stack.enter_context(sync_playwright())
        places: dict[str, Callable[[int], Openings]] = {}
        listed = CONFIGURATION.replace("showStudyList: false", "showStudyList: true")
        for title, build in (("Orthanc", PUBLISHED), ("Orthanc, our OHIF", BUILD)):
            port = stack.enter_context(nginx(folder / build.name, proxy(theirs, build, folder / build.name, listed)))
            places[title] = lambda _, port=port: at_orthanc(playwright, f"http://127.0.0.1:{port}")
        places["Atrium"] = lambda number: at_atrium(playwright, ours, number)
        figures: dict[str, Openings] = {place: {EMPTY: [], SAME_DAY: [], GOES_ON: []} for place in places}
        for number in range(options.rounds):
            for place, read in places.items():
                for moment, openings in read(number).items():
                    figures[place][moment] += openings
    print(f"| a case of {options.slices} slices, seconds | {' | '.join(places)} | ratio | of it to our OHIF |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for moment in (EMPTY, SAME_DAY, GOES_ON):
        for what, of in (
            ("first image", lambda one: one.drawn),
            ("CPU of the main thread until then", lambda one: one.cpu),
        ):
            a, b, c = (statistics.median(map(of, figures[place][moment])) for place in places)
            print(f"| {what}, {moment} | {a:.2f} | {b:.2f} | {c:.2f} | {c / a:.2f} | {c / b:.2f} |")
        typed = statistics.median(one.typed for one in figures["Atrium"][moment])
        print(f"| report can be typed in, {moment} | | | {typed:.2f} | | |")
        looked = statistics.median(one.looked or one.drawn for one in figures["Atrium"][moment])
        a, b = (statistics.median(one.drawn for one in figures[place][moment]) for place in [*places][:2])
        ratios = f"{looked / a:.2f} | {looked / b:.2f}"
        print(f"| first look, against their first image, {moment} | | | {looked:.2f} | {ratios} |")
