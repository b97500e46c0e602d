"""Screenshots of every page: ``python -m tests.e2e.screenshots FOLDER --of demo|empty|long``.

Each person begins at their home and follows every link; of each route the first address is taken, in dark and light, at
a desk's and a phone's width, and what opens on it: menus, dialogs, forms. Of the demo a day's work is taken, too
(:mod:`tests.e2e.stages`). Beside the pictures stand contact sheets, for a look at all of them at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

# ruff: noqa: E402
from django.template.loader import render_to_string
from playwright.sync_api import Browser, Page, Route, ViewportSize

from tests.e2e.browser import chromium, signed_in, until
from tests.e2e.test_every_page import ALSO, DRAWN, LONG, OPENS, QUIET, SEED, name_of, open_up
from tests.factories import PASSWORD
from tests.services.atrium import ROOT, Atrium, running_atrium
from tests.services.ports import free_port

WIDTHS: dict[str, ViewportSize] = {"desk": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
THEMES = {"desk": ("dark", "light"), "phone": ("dark", "light")}
# What opens on a page has the page's colours, which were taken already.
ONE_THEME = {"desk": ("dark",), "phone": ("light",)}
TALLEST = 1800
ACROSS = {"desk": 2, "phone": 6}
A_SHEET = {"desk": 6, "phone": 12}
# Addresses that nothing links to.
ALWAYS = ("/no-such-page/", "/audit/", "/accounts/2fa/", "/accounts/password/change/", "/accounts/reauthenticate/")
STRANGERS = ("/accounts/login/", "/accounts/logout/", "/no-such-page/", "/reports/verify/0123/")
ERRORS = ("400.html", "403.html", "403_csrf.html", "404.html", "429.html", "500.html", "503.html")
READERS = ("radiologist", "resident")
STAGES = "import json; from tests.e2e.stages import install; print(json.dumps(install()))"
NO_PAGES = re.compile(r"^/(viewer|dicom-web|fhir|static|api/v1/schema)|\.(pdf|dcm|csv|zip)$|/logout/$")


@dataclass
class Album:
    """Where the pictures go, and which there are."""

    folder: Path
    taken: list[Path] = field(default_factory=list)

    def take(self, page: Page, name: str, *, themes: dict[str, tuple[str, ...]] = THEMES) -> None:
        """Take a page in both widths, in the themes of each."""
        for width, size in WIDTHS.items():
            page.set_viewport_size(size)
            # A window as tall as the page: Playwright's own full page draws all of it, however much is wanted.
            height = min(page.evaluate("document.documentElement.scrollHeight"), TALLEST)
            if height > size["height"]:
                page.set_viewport_size({"width": size["width"], "height": height})
            for theme in themes[width]:
                page.evaluate(f"document.documentElement.setAttribute('data-bs-theme', '{theme}')")
                page.evaluate(DRAWN)
                path = self.folder / f"{width}-{theme}" / f"{name}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=path, type="jpeg", quality=85)
                self.taken.append(path)
        page.set_viewport_size(WIDTHS["desk"])

    def sheets(self, browser: Browser) -> None:
        """Lay the pictures of a kind beside each other, a few to a sheet."""
        for kind in sorted({path.parent for path in self.taken}):
            width = kind.name.partition("-")[0]
            paths = sorted(path for path in self.taken if path.parent == kind)
            for number in range(0, len(paths), A_SHEET[width]):
                self._sheet(browser, width, paths[number : number + A_SHEET[width]], f"{kind.name}-{number:03}")

    def _sheet(self, browser: Browser, width: str, paths: list[Path], name: str) -> None:
        figures = "".join(
            f"<figure><figcaption>{path.stem}</figcaption><img src='{path.as_uri()}'></figure>" for path in paths
        )
        style = (
            f"body{{margin:4px;display:grid;grid-template-columns:repeat({ACROSS[width]},1fr);gap:6px;background:#888}}"
            "figure{margin:0}img{width:100%;max-height:640px;object-fit:cover;object-position:top}"
            "figcaption{font:12px sans-serif;background:#fff}"
        )
        page_of = self.folder / f"{name}.html"
        page_of.write_text(f"<style>{style}</style>{figures}")
        page = browser.new_page(viewport={"width": 1560, "height": 400})
        page.goto(page_of.as_uri())
        page.wait_for_function("[...document.images].every((one) => one.complete)")
        page.screenshot(path=self.folder / f"sheet-{name}.jpg", type="jpeg", quality=85, full_page=True)
        page.close()


def main() -> None:
    """Start an installation, walk and take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--of", choices=("demo", "empty", "long"), required=True)
    parser.add_argument("--people", nargs="*")
    options = parser.parse_args()
    with installation(options.of) as (atrium, people), chromium(draws_images=False) as browser:
        album = Album(options.folder)
        stages = json.loads(atrium.manage("shell", "--no-imports", "-c", STAGES)) if options.of == "demo" else {}
        seen: set[str] = set()
        for person in options.people or people:
            with signed_in(browser, atrium, person, reduced_motion="reduce") as page:
                page.context.route("**/viewer/**", lambda route: route.abort())
                walk(page, atrium, person, album, seen)
                for stage, study in stages.items() if person in READERS else ():
                    take_all(page, f"{atrium.url}/studies/{study}/", album, f"study_{stage}-{person}", OPENS["study"])
        if not options.people:
            strangers(browser, atrium, album)
        album.sheets(browser)


@contextmanager
def installation(kind: str) -> Iterator[tuple[Atrium, list[str]]]:
    """Give a running installation with the demo, nothing or everything at its longest, and who can sign in."""
    people = ["radiologist", "resident", "technologist", "referrer", "compliance", "admin"]
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atrium-shots-"))) / "atrium"
        if kind == "long":
            atrium = stack.enter_context(running_atrium(data, "web"))
            atrium.manage("shell", "--no-imports", "-c", SEED)
            atrium.manage("shell", "--no-imports", "-c", LONG)
        else:
            atrium = stack.enter_context(bare_atrium(data, kind))
            people = people if kind == "demo" else ["admin"]
        yield atrium, people


@contextmanager
def bare_atrium(data: Path, kind: str) -> Iterator[Atrium]:
    """Give an installation as ``make run`` makes it: with the demo, or empty with one site and its administrator."""
    (data / "cold").mkdir(parents=True)
    atrium = Atrium(data, free_port(), free_port())
    atrium.environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ATRIUM_")},
        "ATRIUM_DATA": str(data),
        "ATRIUM_HTTP_PORT": str(atrium.http_port),
        "ATRIUM_DICOM_PORT": str(atrium.dicom_port),
        "ATRIUM_WEB_WORKERS": "1",
        "ATRIUM_DEMO_PASSWORD": PASSWORD,
        "ATRIUM_ADMIN_PASSWORD": PASSWORD,
        "ATRIUM_COLD_STORAGE_URL": (data / "cold").as_uri(),
        "PYTHONPATH": str(ROOT),
    }
    atrium.manage("migrate", "--verbosity", "0")
    atrium.manage(*(("demo",) if kind == "demo" else ("bootstrap", "--site", "North Hospital", "--admin", "admin")))
    atrium.start("web", "worker")
    try:
        yield atrium
    finally:
        atrium.stop()


def walk(page: Page, atrium: Atrium, person: str, album: Album, seen: set[str]) -> None:
    """Follow a person's links from their home, one address of each route, and take what nobody before them saw."""
    waiting = ["/", *ALWAYS]
    own: set[str] = set()
    while waiting:
        path = waiting.pop(0)
        name = name_of(path)
        if name in own or NO_PAGES.search(path):
            continue
        own.add(name)
        answer = page.request.get(atrium.url + path)
        if (
            not answer.headers.get("content-type", "").startswith("text/html")
            or "content-disposition" in answer.headers
        ):
            continue
        is_new = name not in seen or name in ALSO.get(person, ())
        if is_new:
            seen.add(name)
            take_all(page, atrium.url + path, album, f"{name}-{person}", OPENS.get(name, {}))
        else:
            page.goto(atrium.url + path)
        links = page.eval_on_selector_all("a[href]", "all => all.map((one) => one.href)")
        waiting += [urlsplit(urldefrag(one)[0]).path for one in links if one.startswith(atrium.url)]


def take_all(page: Page, url: str, album: Album, name: str, opens: dict[str, str]) -> None:
    """Take a page as it comes, then with each of the things open that can be opened there."""
    page.goto(url)
    until(page, QUIET)
    album.take(page, name)
    for what, where in opens.items():
        if open_up(page, where):
            album.take(page, f"{name}-{what}", themes=ONE_THEME)
            page.goto(url)
            until(page, QUIET)


def strangers(browser: Browser, atrium: Atrium, album: Album) -> None:
    """Take what is shown to those who aren't signed in, and the pages of errors."""
    page = browser.new_page(reduced_motion="reduce")
    for path in STRANGERS:
        page.goto(atrium.url + path)
        album.take(page, f"{name_of(path)}-stranger")
    for template in ERRORS:
        page.route("**/error-page/", answer_with(render_to_string(template)))
        page.goto(f"{atrium.url}/error-page/")
        album.take(page, f"error_{template.partition('.')[0]}")
        page.unroute("**/error-page/")
    page.close()


def answer_with(body: str) -> Callable[[Route], None]:
    """Give what answers a request with the page."""
    return lambda route: route.fulfill(body=body, content_type="text/html")


if __name__ == "__main__":
    main()
