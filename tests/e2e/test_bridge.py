"""Between images and words: measurements, key images and the way back, in a real browser."""

from __future__ import annotations

import re
import time
import uuid
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import pydicom
import pytest
import requests
from playwright.sync_api import Browser, Frame, Page, Route

from portal.demo.studies import demo_studies
from tests.e2e.browser import (
    DISTINCT_GREYS,
    chromium,
    needs_chromium,
    needs_viewer,
    outside,
    signed_in,
    until,
    viewer_of,
)
from tests.factories import PASSWORD
from tests.services.atrium import Atrium, running_atrium

pytestmark = [needs_chromium, needs_viewer]
SLICES = 30
# The image number that the first viewport says it shows.
PLACE = "(document.querySelector('[data-cy=viewport-pane]').innerText.match(/I:\\s*(\\d+)/) || [])[1]"
# The image that a viewport holds.
IMAGE = """n => {
  const id = [...services.viewportGridService.getState().viewports.keys()][n];
  return services.cornerstoneViewportService.getCornerstoneViewport(id).getCornerstoneImage()?.imageId;
}"""
NOTE_CONTEXTS = """window.drawnOn = new Set();
const given = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...options) {
  if (kind === "webgl2") window.drawnOn.add(this);
  return given.call(this, kind, ...options);
};"""
# A radiologist's, made once.
TOKEN: list[str] = []
SR = "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("bridge") / "atrium", "web") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def slices() -> list[bytes]:
    """Give the first images of the demo's chest CT and of its prior."""
    both = [s for s in demo_studies(ct_slices=SLICES, ct_size=128) if "CT chest" in s.description]
    return [content for one in both for content in islice(one.instances(), 12)]


@pytest.fixture
def study(installation: Atrium, slices: list[bytes], tmp_path: Path) -> str:
    """Import a CT and its prior of a patient of the test's own; give the CT's Study Instance UID."""
    days = {}
    suffix = uuid.uuid4().int % 10**9
    for number, content in enumerate(slices):
        image = pydicom.dcmread(BytesIO(content))
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(image, keyword, f"1.2.826.0.9.{suffix}.{zlib.crc32(image[keyword].value.encode())}")
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.PatientID, image.AccessionNumber = f"BRIDGE{suffix}", image.StudyDate
        image.save_as(tmp_path / f"{number:03}.dcm")
        days[str(image.StudyInstanceUID)] = image.StudyDate
    installation.manage("import", str(tmp_path), "--site", "north")
    return max(days, key=lambda uid: days[uid])


@pytest.fixture(scope="module", autouse=True)
def _token(installation: Atrium) -> None:
    TOKEN.append(installation.token("radiologist"))


def search(atrium: Atrium, path: str) -> list[dict[str, dict[str, list[str]]]]:
    headers = {"Authorization": f"Bearer {TOKEN[-1]}", "Accept": "application/dicom+json"}
    answer = requests.get(f"{atrium.url}/dicom-web{path}", headers=headers, timeout=30)
    return answer.json() if answer.status_code == 200 else []


def prior_of(atrium: Atrium, study: str) -> str:
    """Give the Study Instance UID of the patient's other CT."""
    patient = search(atrium, f"/studies?StudyInstanceUID={study}")[0]["00100020"]["Value"][0]
    found = search(atrium, f"/studies?PatientID={patient}")
    return next(uid for one in found if (uid := one["0020000D"]["Value"][0]) != study)


def begin(page: Page) -> None:
    """Begin the report."""
    page.click("text=Write the report")
    page.wait_for_selector("#draft #section-findings")


def drawn(viewer: Frame, viewport: int) -> None:
    """Wait until this viewport, too, has its image."""
    until(viewer, f"({DISTINCT_GREYS})({viewport}) >= 60")


def measure(page: Page, viewport: int = 0) -> None:
    """Draw a length in the left viewport, or another one, as a hand with a mouse does."""
    viewer = viewer_of(page)
    drawn(viewer, viewport)
    if viewport:
        # The first click into another viewport only makes it the active one.
        viewer.locator("canvas.cornerstone-canvas").nth(viewport).click()
    viewer.click('[data-cy="MeasurementTools-split-button-primary"]')
    box = viewer.locator("canvas.cornerstone-canvas").nth(viewport).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    page.mouse.move(x, y + 5, steps=4)
    page.mouse.move(x + 40, y + 10, steps=4)
    page.mouse.up()


def test_one_key_in_the_worklist_opens_images_and_a_report_to_type_in(
    installation: Atrium, browser: Browser, study: str
) -> None:
    prior = prior_of(installation, study)
    with signed_in(browser, installation, "radiologist", color_scheme="dark") as page:
        page.goto(f"{installation.url}/worklist/?q=lindqvist")
        held: list[Route] = []
        is_held = True
        page.route("**/viewer/open/**", lambda route: held.append(route) if is_held else route.continue_())
        page.locator(f".row-link[href*='{prior}']").focus()
        page.keyboard.press("Enter")
        page.fill("#draft #section-findings", "Typed while the images load.")
        assert page.is_visible("#viewer-wait"), "the words wait for no image"
        is_held = False
        for route in held:
            route.continue_()
        viewer_of(page)
        assert page.input_value("#section-findings") == "Typed while the images load."
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        page.wait_for_selector("#study-status:has-text('In reading')")
        page.reload()
        page.wait_for_selector("#draft #section-findings")
        assert page.input_value("#section-findings") == "Typed while the images load."


def test_what_the_first_image_needs_is_asked_for_once_and_ahead(
    installation: Atrium, browser: Browser, study: str
) -> None:
    """What is asked ahead is of use only while its addresses are OHIF's own: else OHIF asks again, by itself."""
    asked: list[tuple[str, str]] = []
    with signed_in(browser, installation, "radiologist") as page:
        page.on("request", lambda request: asked.append((request.resource_type, request.url)))
        page.goto(f"{installation.url}/studies/{study}/")
        viewer = viewer_of(page)
        drawn(viewer, 0)
        # The toolbar stands behind the image, and comes.
        viewer.wait_for_selector('[data-cy="MeasurementTools-split-button-primary"]')
        first = viewer.evaluate(IMAGE, 0).removeprefix("wadors:")
    needed = {
        "the study": [(kind, url) for kind, url in asked if f"StudyInstanceUID={study}" in url][:1],
        "its series": [(kind, url) for kind, url in asked if f"/studies/{study}/series?" in url],
        "metadata": [(kind, url) for kind, url in asked if f"/studies/{study}/" in url and url.endswith("/metadata")],
        "the frame": [(kind, url) for kind, url in asked if url.endswith(first)],
    }
    kinds = {what: [kind for kind, _ in requests] for what, requests in needed.items()}
    assert kinds.pop("metadata") == ["fetch"] * len({url for _, url in needed["metadata"]})
    assert kinds == {"the study": ["fetch"], "its series": ["fetch"], "the frame": ["fetch"]}
    entry = next(number for number, (_, url) in enumerate(asked) if "/app.bundle." in url and url.endswith(".js"))
    assert asked.index(needed["metadata"][0]) < asked.index(needed["the frame"][0])
    assert entry < asked.index(needed["the study"][0]) < entry + 12


def test_the_graphics_are_asked_with_one_context_and_workers_begin_when_they_are_needed(
    installation: Atrium, browser: Browser, study: str
) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        page.add_init_script(NOTE_CONTEXTS)
        for graphics_known in (False, True):
            page.goto(f"{installation.url}/studies/{study}/")
            viewer = viewer_of(page)
            drawn(viewer, 0)
            viewports = viewer.locator("canvas.cornerstone-canvas").count()
            for number in range(1, viewports):
                drawn(viewer, number)
            # What Cornerstone finds out of textures it keeps.
            assert viewer.evaluate("window.drawnOn.size") == viewports + (1 if graphics_known else 2)
            # One that decodes images; none yet that would count a volume's histogram.
            assert len(page.workers) == 1


def test_a_measurement_becomes_words_then_an_sr_and_comes_back(
    installation: Atrium, browser: Browser, study: str
) -> None:
    with signed_in(browser, installation, "radiologist", color_scheme="dark") as page:
        page.goto(f"{installation.url}/studies/{study}/")
        viewer = viewer_of(page)
        # The prior hangs beside the study.
        until(viewer, "document.querySelectorAll('canvas.cornerstone-canvas').length === 2")
        page.click("text=Write the report")
        page.wait_for_selector("#section-findings")
        # It was compared with before a word was written.
        page.click("#take-comparison")
        assert re.fullmatch(r"CT chest with contrast of \d{4}-\d\d-\d\d\.", page.input_value("#section-comparison"))
        measure(page)
        until(
            page, "/[\\d.]+ mm \\(series \\d+, image \\d+\\)/.test(document.querySelector('#section-findings').value)"
        )
        page.click("#key-image")
        page.wait_for_selector("#findings img")
        page.click("#save-measurements")
        page.wait_for_selector("#findings-note:has-text('saved in the study')")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        words = page.input_value("#section-findings")
        assert {cookie["name"] for cookie in page.context.cookies()} == {"atrium_session", "csrftoken"}
    assert len(search(installation, f"/studies/{study}/series?Modality=SR")) == 1
    assert len(search(installation, f"/studies/{study}/series?Modality=KO")) == 1
    assert len(search(installation, f"/studies/{study}/series?Modality=PR")) == 1

    with signed_in(browser, installation, "radiologist", color_scheme="dark") as page:
        page.goto(f"{installation.url}/studies/{study}/")
        viewer = viewer_of(page)
        viewer.wait_for_selector("svg.svg-layer text, svg.svg-layer line", state="attached", timeout=60_000)
        page.click("#findings .finding[data-kind=measurement] .finding-jump")
        time.sleep(1)
        assert page.input_value("#section-findings") == words, "what was restored is not written again"
        # Edited words still lead to the image: here another one is named, and signed.
        until(viewer, f"{PLACE} !== '5'")
        page.fill("#section-findings", f"{words}\nA cyst, seen best in (series 2, image 5).")
        page.fill("#section-impression", "Nodule.")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#checks-seen")
        page.fill("#sign-password", PASSWORD)
        page.press("#sign-password", "Enter")
        page.click("article.report a[data-jump]:has-text('series 2, image 5')")
        until(viewer, f"{PLACE} === '5'")
    with signed_in(browser, installation, "referrer", color_scheme="light") as page:
        # From the report's own page, too, and not to the prior's image of the same numbers.
        page.goto(f"{installation.url}/reports/{study}/")
        page.click("article.report a[data-jump]:has-text('series 2, image 5')")
        page.wait_for_url(f"**/studies/{study}/?sop=*")
        viewer = viewer_of(page)
        until(viewer, f"{PLACE} === '5'")
    assert outside == []


def test_a_measurement_on_the_prior_arrives_as_of_its_day_and_is_kept_in_the_prior(
    installation: Atrium, browser: Browser, study: str
) -> None:
    prior = prior_of(installation, study)
    before = len(search(installation, f"/studies/{study}/series?Modality=SR"))
    with signed_in(browser, installation, "radiologist", color_scheme="dark") as page:
        page.goto(f"{installation.url}/studies/{study}/")
        viewer = viewer_of(page)
        until(viewer, "document.querySelectorAll('canvas.cornerstone-canvas').length === 2")
        begin(page)
        measure(page, 1)
        words = "document.querySelector('#section-findings').value"
        until(page, f"/^Prior [\\d-]{{10}}: [\\d.]+ mm \\([\\d-]{{10}}, series \\d+, image \\d+\\)/.test({words})")
        page.wait_for_selector(".finding.is-prior")
        # What's marked is the view that's active, the prior's.
        page.click("#key-image")
        until(page, f"/\\nKey image \\([\\d-]{{10}}, series \\d+, image \\d+\\)/.test({words})")
        page.wait_for_selector(f"#findings .finding-jump[data-study='{prior}'] img")
        page.click("#save-measurements")
        page.wait_for_selector("#findings-note:has-text('saved in the study')")
        page.fill("#section-impression", "As said.")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#checks-seen")
        page.fill("#sign-password", PASSWORD)
        page.press("#sign-password", "Enter")
        link = page.locator("article.report p a[data-jump]", has_text="20").first
        second = "document.querySelectorAll('[data-cy=viewport-pane]')[1].innerText.match(/I:\\s*(\\d+)/)[1]"
        place = link.inner_text()
        image = place.rsplit(" ", 1)[1]
        # Elsewhere first, so that the way back is a way.
        viewer.locator("canvas.cornerstone-canvas").nth(1).hover()
        page.mouse.wheel(0, 300)
        until(viewer, f"{second} !== '{image}'")
        link.click()
        until(viewer, f"{second} === '{image}'")
    assert len(search(installation, f"/studies/{prior}/series?Modality=SR")) == 1
    assert len(search(installation, f"/studies/{study}/series?Modality=SR")) == before, "nothing is saved twice"
    assert len(search(installation, f"/studies/{prior}/series?Modality=KO")) == 1
    saved = search(installation, f"/studies/{prior}/series?Modality=SR")[0]["0020000E"]["Value"][0]
    kept = search(installation, f"/studies/{prior}/series/{saved}/metadata")[0]
    named = kept["0040A375"]["Value"][0]["0020000D"]["Value"]  # type: ignore[index]
    assert named == [prior], "its evidence is the study of the images"


def named(page: Page, viewport: int, label: str) -> None:
    """Give the newest measurement, in this viewport, a label as a hand with a mouse does."""
    viewer = viewer_of(page)
    place = """n => {
      const measurement = services.measurementService.getMeasurements().at(-1);
      const id = [...services.viewportGridService.getState().viewports.keys()][n];
      const shown = services.cornerstoneViewportService.getCornerstoneViewport(id);
      const box = shown.element.getBoundingClientRect();
      const [from, to] = measurement.points.map((point) => shown.worldToCanvas(point));
      return [box.x + from[0] * 0.7 + to[0] * 0.3, box.y + from[1] * 0.7 + to[1] * 0.3];
    }"""
    frame = page.locator("#viewer").bounding_box()
    assert frame is not None
    x, y = viewer.evaluate(place, viewport)
    page.mouse.move(frame["x"] + x - 3, frame["y"] + y - 3)
    page.mouse.move(frame["x"] + x, frame["y"] + y, steps=3)
    page.mouse.click(frame["x"] + x, frame["y"] + y, button="right")
    viewer.click("text=Add Label")
    viewer.wait_for_selector("[role=dialog] input:focus")
    page.keyboard.type(label)
    page.keyboard.press("Enter")


def test_a_label_given_in_ohif_to_both_becomes_the_growth(installation: Atrium, browser: Browser, study: str) -> None:
    with signed_in(browser, installation, "radiologist", color_scheme="dark") as page:
        page.goto(f"{installation.url}/studies/{study}/")
        viewer = viewer_of(page)
        until(viewer, "document.querySelectorAll('canvas.cornerstone-canvas').length === 2")
        begin(page)
        words = "document.querySelector('#draft #section-findings').value"
        for viewport in (0, 1):
            # Away from what an earlier visit measured, whose ends the mouse would take.
            canvas = viewer.locator("canvas.cornerstone-canvas").nth(viewport)
            drawn(viewer, viewport)
            canvas.click()
            canvas.hover()
            before = viewer.evaluate(IMAGE, viewport)
            page.mouse.wheel(0, 300)
            until(viewer, f"({IMAGE})({viewport}) !== {before!r}")
            page.wait_for_timeout(1000)  # until it's drawn
            measure(page, viewport)
            day = r"Prior [\d-]{10}: [\d.]+ mm \([\d-]{10}, " if viewport else r"[\d.]+ mm \("
            until(page, f"/{day}series \\d+, image \\d+\\)\\.$/.test({words})")
            named(page, viewport, "Target 1")
        grown = r"Target 1: [\d.]+ mm \(series[^)]*\); prior [\d.]+ mm \([\d-]{10}, series[^)]*\), [^\n]*%\)\."
        until(page, f"/{grown}/.test({words})")


def test_the_desks_keys_work_while_the_images_have_the_focus(
    installation: Atrium, browser: Browser, study: str
) -> None:
    with signed_in(browser, installation, "radiologist", color_scheme="dark") as page:
        page.goto(f"{installation.url}/studies/{study}/")
        viewer = viewer_of(page)
        begin(page)
        viewer.evaluate("window.focus()")
        page.keyboard.press("?")
        page.wait_for_selector("#key-help[open] :text('from within the images')")
        page.keyboard.press("Escape")
        page.wait_for_selector("#key-help:not([open])", state="attached")
        viewer.evaluate("window.focus()")
        page.keyboard.press("Alt+m")
        page.wait_for_selector("#findings-note:not(:empty)")


def test_the_images_move_to_a_window_of_their_own_and_stay_connected(
    installation: Atrium, browser: Browser, study: str
) -> None:
    with signed_in(browser, installation, "radiologist", color_scheme="dark") as page:
        page.goto(f"{installation.url}/studies/{study}/")
        viewer_of(page)
        begin(page)
        before = page.locator("#findings img").count()
        with page.context.expect_page() as opened:
            page.click("#images-window")
        window = opened.value
        window.wait_for_selector("canvas.cornerstone-canvas", timeout=60_000)
        page.wait_for_selector("#images-elsewhere", state="visible")
        # A desk's wish is dropped until the window has drawn.
        until(window, f"({DISTINCT_GREYS})() >= 60", seconds=90)
        page.click("#key-image")
        until(page, f"document.querySelectorAll('#findings img').length === {before + 1}")
        page.click("#images-back")
        viewer_of(page)


def test_the_same_label_on_study_and_prior_becomes_one_sentence_that_tells_the_growth(
    installation: Atrium, browser: Browser, study: str
) -> None:
    """Told to the desk as the bridge in OHIF tells it; that OHIF tells it so is seen above."""
    prior = prior_of(installation, study)

    def measured(page: Page, uid: str, of: str, value: float) -> None:
        sop = search(installation, f"/studies/{of}/instances?Modality=CT&limit=1")[0]["00080018"]["Value"][0]
        told = {"from": "viewer", "about": study, "type": "measurement", "action": "updated", "uid": uid}
        values = [{"name": "length", "value": value, "unit": "mm"}]
        page.evaluate(
            "told => new BroadcastChannel(`atrium.desk.${sessionStorage.getItem('atrium.desk')}`).postMessage(told)",
            {**told, "label": "Nodule", "study": of, "sop": sop, "frame": 1, "values": values},
        )

    with signed_in(browser, installation, "radiologist") as page:
        page.goto(f"{installation.url}/studies/{study}/")
        viewer_of(page)
        begin(page)
        words = "document.querySelector('#draft #section-findings').value"
        page.fill("#draft #section-findings", "Before.")
        measured(page, "p", prior, 12)
        until(page, f"/^Before.\\nPrior [-\\d]{{10}}: Nodule: 12.0 mm [^\\n]*$/.test({words})")
        measured(page, "n", study, 14)
        one = "Before.\\nNodule: 14.0 mm [^\\n]*; prior 12.0 mm [^\\n]*, \\+2.0 mm \\(\\+17 %\\)."
        until(page, f"/^{one}$/.test({words})")
        measured(page, "p", prior, 10)
        until(page, f"/prior 10.0 mm [^\\n]*, \\+4.0 mm \\(\\+40 %\\).$/.test({words})")
        # What a person has rewritten stays as it is.
        page.fill("#draft #section-findings", "It grew.")
        measured(page, "p", prior, 9)
        page.wait_for_selector("#findings .is-prior:has-text('9.0 mm')")
        assert page.input_value("#draft #section-findings") == "It grew."
