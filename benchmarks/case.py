"""``python -m benchmarks case``: from Enter in the worklist to a report that can be typed in, and to the first image.

A generated CT in Atrium as it's delivered, opened from the worklist in chromium, first with an empty cache, then again
on the same day. Both moments are counted from the key press; a word is typed at the first, and must still be there at
the second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.peers import Peer
from benchmarks.plane import CT_STUDY, ct_series, store
from tests.e2e.browser import CHROMIUM, DISTINCT_GREYS, FLAGS, WITH_IMAGES
from tests.factories import PASSWORD
from tests.services.atrium import Atrium, running_atrium

LONGEST = 180.0
WORDS = "#draft textarea.section"


def opened(page: Page, atrium: Atrium, word: str) -> tuple[float, float]:
    """Open the case by its key; give the seconds until a word is in the report, and until the first image is drawn."""
    page.goto(f"{atrium.url}/worklist/")
    page.locator(f".row-link[href*='{CT_STUDY}']").focus()
    start = time.perf_counter()
    page.keyboard.press("Enter")
    page.fill(WORDS, word, timeout=LONGEST * 1000)
    typed = time.perf_counter() - start
    while not any("/viewer/viewer" in f.url and (f.evaluate(DISTINCT_GREYS) or 0) > 50 for f in page.frames):
        assert time.perf_counter() - start < LONGEST, "the image didn't come"
        page.wait_for_timeout(20)
    drawn = time.perf_counter() - start
    assert page.locator(WORDS).first.input_value() == word, "the word is gone"
    return typed, drawn


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table of medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks case", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    figures: dict[str, list[tuple[float, float]]] = {"empty cache": [], "same day": []}
    with (
        tempfile.TemporaryDirectory(prefix="atrium-bench-") as name,
        running_atrium(Path(name) / "atrium", "web", "worker", "scheduler", ATRIUM_WEB_WORKERS="2") as atrium,
        sync_playwright() as playwright,
    ):
        peer = Peer("Atrium", f"{atrium.url}/dicom-web", [])
        peer.session.headers["Authorization"] = f"Bearer {atrium.token('radiologist')}"
        store(peer, ct_series(options.slices, CT_STUDY), 1)()
        # As when a person comes to read what arrived: the worker has built the metadata.
        time.sleep(12)
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="atrium-profile-") as profile:
                context = playwright.chromium.launch_persistent_context(
                    profile, executable_path=CHROMIUM, args=[*FLAGS, *WITH_IMAGES]
                )
                with closing(context), closing(context.new_page()) as page:
                    page.goto(f"{atrium.url}/")
                    page.fill("input[name=login]", "radiologist")
                    page.fill("input[name=password]", PASSWORD)
                    page.press("input[name=password]", "Enter")
                    page.wait_for_url(lambda url: "/accounts/login/" not in url)
                    for moment, seconds in figures.items():
                        seconds.append(opened(page, atrium, f"Round {number}, {moment}."))
    print(f"| from Enter in the worklist, {options.slices} slices, seconds | report can be typed in | first image |")
    print("| --- | ---: | ---: |")
    for moment, seconds in figures.items():
        typed, drawn = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"| {moment} | {typed:.2f} | {drawn:.2f} |")
