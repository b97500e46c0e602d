"""A real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page, expect, sync_playwright

from tests.factories import PASSWORD
from tests.services.atrium import ROOT, Atrium

# As long as Playwright waits for all else; its own five seconds are too few for a busy machine.
expect.set_options(timeout=30_000)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VIEWER = ROOT / ".build" / "viewer" / "index.html"
SCREENSHOTS = ROOT / "docs" / "screenshots"
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# OHIF draws by WebGL, which costs a core here; pages of words do without.
WITH_IMAGES = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
DISTINCT_GREYS = """viewport => {
  const canvas = document.querySelectorAll("canvas.cornerstone-canvas")[viewport ?? 0];
  if (!canvas || !canvas.width) return 0;
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) seen.add(data[i]);
  return seen.size;
}"""
# What a page asked of anyone but us; a test asserts that it stays empty.
outside: list[str] = []

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")
needs_viewer = pytest.mark.skipif(not VIEWER.exists(), reason="OHIF isn't built: run «make viewer»")


@contextmanager
def chromium(*, draws_images: bool = True) -> Iterator[Browser]:
    """Start chromium. Playwright runs an event loop in this thread, in which Django's ORM would refuse to work."""
    with sync_playwright() as playwright:
        flags = [*FLAGS, *(WITH_IMAGES if draws_images else ["--disable-gpu"])]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def _is_outside(url: str, atrium: Atrium) -> bool:
    return url.startswith(("http:", "https:")) and not url.startswith(atrium.url)


@contextmanager
def signed_in(browser: Browser, atrium: Atrium, username: str, **options: Any) -> Iterator[Page]:
    """Sign in through the page, as a person does."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    page = context.new_page()
    # Of what is asked for by a network; the browser's own parts, its PDF viewer for one, have other schemes.
    context.on("request", lambda r: outside.append(r.url) if _is_outside(r.url, atrium) else None)
    page.goto(f"{atrium.url}/")
    page.fill("input[name=login]", username)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(lambda url: "/accounts/login/" not in url)
    yield page
    context.close()


def viewer_of(page: Page, *, seconds: float = 90) -> Frame:
    """Give OHIF's frame beside the words once its image is drawn. Raises AssertionError when it isn't in time."""
    page.wait_for_selector("#viewer-wait", state="hidden", timeout=seconds * 1000)
    viewer = next(frame for frame in page.frames if "/viewer/" in frame.url)
    until(viewer, f"({DISTINCT_GREYS})() >= 60")
    return viewer


def until(page: Page | Frame, expression: str, *, seconds: float = 30) -> None:
    """Wait until the expression is true. Playwright's own way needs eval, which our policy forbids to pages."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never came true: {expression}"
        time.sleep(0.1)


def picture(page: Page, name: str) -> None:
    """Keep a screenshot for the docs when asked for: they change with every run."""
    if os.environ.get("ATRIUM_SCREENSHOTS"):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")
