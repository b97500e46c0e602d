"""Whatever a sender has put into the archive: the viewer of the rest stays, and what can't be shown says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Frame, Page

from tests.e2e.browser import DISTINCT_GREYS, chromium, needs_chromium, needs_viewer, signed_in, until
from tests.e2e.malformed import malformed
from tests.services.atrium import Atrium, running_atrium

pytestmark = [needs_chromium, needs_viewer]
STUDY = "1.2.826.0.77"
SHOW = """series => {
  const { displaySetService, viewportGridService } = window.services;
  const set = displaySetService.getActiveDisplaySets().find((one) => one.SeriesInstanceUID === series);
  if (!set || set.unsupported) return false;
  const viewportId = viewportGridService.getActiveViewportId();
  viewportGridService.setDisplaySetsForViewport({ viewportId, displaySetInstanceUIDs: [set.displaySetInstanceUID] });
  return true;
}"""
# Drawn, written, or said that it can’t be; no empty field, not for ever on its way, not what stood there before.
SETTLED = """series => {
  const pane = document.querySelector("[data-cy=viewport-pane]");
  if (!pane) return "gone";
  const instead = pane.querySelector("[data-cy=atrium-instead] iframe");
  if (instead) return instead.src.includes(`/objects/${series}.`) ? "instead" : "";
  const text = pane.innerText.trim();
  return text && !/load/i.test(text) ? "shown" : "";
}"""
# A busy browser answers before React has drawn what was asked.
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


@pytest.fixture(scope="module")
def names() -> dict[int, str]:
    """Give the broken objects' names by the number of their series."""
    return dict(enumerate((name for name, _ in malformed(STUDY) if name), 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Atrium, Page]]:
    folder: Path = tmp_path_factory.mktemp("malformed")
    (folder / "in").mkdir()
    for number, (_, content) in enumerate(malformed(STUDY)):
        (folder / "in" / f"{number:03}.dcm").write_bytes(content)
    with running_atrium(folder / "atrium", "web") as atrium, chromium() as browser:
        atrium.manage("import", str(folder / "in"), "--site", "north")
        with signed_in(browser, atrium, "radiologist", viewport={"width": 1600, "height": 900}) as opened:
            yield atrium, opened


def shown(viewer: Frame, series: str) -> str:
    """Show a series in the first viewport; give what came of it, "unsupported" where OHIF doesn't offer it."""
    if not viewer.evaluate(SHOW, series):
        return "unsupported"
    viewer.evaluate(DRAWN)
    for _ in range(150):
        if found := viewer.evaluate(SETTLED, series):
            return str(found)
        viewer.wait_for_timeout(100)
    return "an empty field"


def test_a_broken_object_takes_nothing_else_along(page: tuple[Atrium, Page], names: dict[int, str]) -> None:
    atrium, tab = page
    tab.goto(f"{atrium.url}/studies/{STUDY}/")
    tab.wait_for_selector("#viewer-wait", state="hidden", timeout=90_000)
    viewer = next(frame for frame in tab.frames if "/viewer/" in frame.url)
    until(viewer, f"({DISTINCT_GREYS})() >= 60")
    found = {}
    for number, name in names.items():
        found[name] = shown(viewer, f"{STUDY}.{number}")
        if found[name] == "gone":
            break
    assert {name: what for name, what in found.items() if what not in {"shown", "instead", "unsupported"}} == {}
    assert found["SR item without a name"] == found["SEG without functional groups"] == "instead"
    assert found["Measurements without content"] == found["RTSTRUCT of an unknown region"] == "instead"
    assert {name: what for name, what in found.items() if name.startswith("Image ") and what != "shown"} == {}
    assert shown(viewer, f"{STUDY}.0") == "shown"
    until(viewer, f"({DISTINCT_GREYS})() >= 60")


def test_instead_of_ohif_our_page_shows_the_words_of_a_broken_report(
    page: tuple[Atrium, Page], names: dict[int, str]
) -> None:
    atrium, tab = page
    number = next(number for number, name in names.items() if name == "SR item without a name")
    tab.goto(f"{atrium.url}/studies/{STUDY}/")
    tab.wait_for_selector("#viewer-wait", state="hidden", timeout=90_000)
    viewer = next(frame for frame in tab.frames if "/viewer/" in frame.url)
    assert shown(viewer, f"{STUDY}.{number}") == "instead"
    said = viewer.locator("[data-cy=atrium-instead] p")
    assert said.inner_text() == "The viewer can’t make sense of this object. This is Atrium’s own rendering."
    document = viewer.frame_locator("[data-cy=atrium-instead] iframe").frame_locator("iframe.object-page")
    document.get_by_text("Nameless.").wait_for()
    document.get_by_text("A sound sentence.").wait_for()


def test_every_broken_object_has_its_page(page: tuple[Atrium, Page], names: dict[int, str]) -> None:
    atrium, tab = page
    answers = {n: tab.request.get(f"{atrium.url}/studies/{STUDY}/objects/{STUDY}.{n}.1/").status for n in names}
    assert {names[n]: status for n, status in answers.items() if status != 200} == {}
