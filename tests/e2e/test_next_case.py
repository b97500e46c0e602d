"""From case to case in one page: the viewer goes on, the words are kept, and nothing of one case reaches another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Frame, Page, Route, expect
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage

from tests.dicomweb.retrieving import as_file
from tests.e2e.browser import DISTINCT_GREYS, chromium, needs_chromium, needs_viewer, outside, signed_in, until
from tests.e2e.test_dictation import EAR
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = [needs_chromium, needs_viewer]
ADA, ADA_BEFORE, BO = "1.2.826.0.1.11", "1.2.826.0.1.10", "1.2.826.0.1.22"
CAI, CAI_BEFORE, LETTER = "1.2.826.0.1.33", "1.2.826.0.1.34", "1.2.826.0.1.44"
SLICES = 4
LIST = "?status=arrived&status=in_reading&sort=name"
# What is earlier is read, as Cai's is, the others wait, and nobody has written anything.
AFRESH = f"""
from studies.findings.models import ImageFinding
from studies.models import Study
from studies.reports.models import ReportPart
from studies.viewer.models import HangingPreference
HangingPreference.objects.all().delete()
ReportPart.objects.all().delete()
ImageFinding.objects.all().delete()
Study.objects.update(status="arrived", claimed_by=None, claimed_until=None)
Study.objects.filter(study_instance_uid__in=["{ADA_BEFORE}", "{CAI}", "{CAI_BEFORE}"]).update(status="final")
"""
MARK = "window.isTheSame = true"
IS_SAME = "window.isTheSame === true"
FINDINGS = "#draft #section-findings, #draft textarea"
HELD = """() => {
  const sets = window.services.displaySetService.getActiveDisplaySets();
  return [...new Set(sets.map((set) => set.StudyInstanceUID))];
}"""
TELL = """told => new BroadcastChannel(`atrium.desk.${sessionStorage.getItem("atrium.desk")}`).postMessage(told)"""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("cases") / "atrium", "web") as atrium:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {atrium.token('technologist')}"

        def upload(content: bytes) -> None:
            answer = session.post(f"{atrium.url}/upload/files/?name=a.dcm", data=content, timeout=60)
            assert answer.json()["files"][0]["status"] == "stored", answer.text

        for study, name, day in (
            (ADA, "Aa^Ada", "20260901"),
            (ADA_BEFORE, "Aa^Ada", "20250901"),
            (BO, "Bb^Bo", "20260901"),
            (CAI, "Cc^Cai", "20260901"),
            (CAI_BEFORE, "Cc^Cai", "20250901"),
        ):
            for number in range(1, SLICES + 1):
                content = make_instance(
                    pixels=np.roll(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), number * 9, axis=1),
                    StudyInstanceUID=study,
                    SeriesInstanceUID=f"{study}.1",
                    SOPInstanceUID=f"{study}.1.{number}",
                    InstanceNumber=number,
                    PatientName=name,
                    PatientID=name[:2],
                    AccessionNumber=study[-2:],
                    StudyDate=day,
                    # The earlier one isn't of the region, so that it doesn't hang beside.
                    StudyDescription="MR knee" if study == ADA_BEFORE else "CT thorax",
                    Modality="MR" if study == ADA_BEFORE else "CT",
                    WindowCenter=2048,
                    WindowWidth=4096,
                )
                upload(content)
            # Built by the worker, where there is one.
            session.get(f"{atrium.url}/dicom-web/studies/{study}/series/{study}.1/metadata", timeout=60)
        upload(as_file(letter(), BasicTextSRStorage))
        yield atrium


def letter() -> Dataset:
    dataset = Dataset()
    dataset.update(
        {
            "StudyInstanceUID": LETTER,
            "SeriesInstanceUID": f"{LETTER}.1",
            "SOPInstanceUID": f"{LETTER}.1.1",
            "PatientID": "Dd",
            "PatientName": "Dd^Dee",
            "StudyDate": "20260901",
            "StudyDescription": "Letter",
            "Modality": "SR",
            "ValueType": "CONTAINER",
            "ContinuityOfContent": "SEPARATE",
        }
    )
    return dataset


@pytest.fixture(autouse=True)
def afresh(room: Atrium) -> None:
    room.manage("shell", "-c", AFRESH)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def viewer(page: Page, study: str) -> Frame:
    """Wait until the study's images are seen beside its words; give the viewer's frame."""
    page.wait_for_selector(f"#study-images[data-study='{study}']", state="attached")
    expect(page.locator("#viewer-wait")).to_be_hidden(timeout=60_000)
    frame = next(frame for frame in page.frames if "/viewer/" in frame.url)
    assert f"StudyInstanceUIDs={study}" in frame.url
    until(frame, f"({DISTINCT_GREYS})() >= 60")
    return frame


def opened(page: Page, room: Atrium, study: str, query: str = "") -> Frame:
    page.goto(f"{room.url}/studies/{study}/{query}")
    frame = viewer(page, study)
    frame.evaluate(MARK)
    page.wait_for_selector("#draft, #addendum-reason")
    return frame


def each_frame(look: str) -> str:
    """Give a script that keeps in ``window.seen`` what the function gives in each frame that is drawn."""
    again = "{ const found = look(); if (found) seen.push(found); requestAnimationFrame(again); }"
    return f"() => {{ window.seen = []; const look = {look}; const again = () => {again}; again(); }}"


def go_on(page: Page) -> None:
    """Press the key of the next case, outside of the words, where it's a letter."""
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("n")


def test_the_next_case_comes_into_the_same_viewer_and_words_are_kept(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist", color_scheme="dark") as page:
        page.goto(f"{room.url}/worklist/{LIST}")
        page.locator(f".row-link[href*='{ADA}']").focus()
        page.keyboard.press("Enter")
        frame = viewer(page, ADA)
        frame.evaluate(MARK)
        page.evaluate(MARK)
        page.fill(FINDINGS, "Of Ada, typed a moment ago.")
        page.click("#next-case button")
        expect(page.locator(".patient-strip .person-name")).to_contain_text("BB", timeout=30_000)
        assert viewer(page, BO).evaluate(IS_SAME) is True, "OHIF wasn't loaded anew"
        assert page.evaluate(IS_SAME) is True, "nor was the page"
        assert frame.evaluate(HELD) == [BO]
        assert f"/studies/{BO}/" in page.url
        expect(page).to_have_title("CT thorax · Atrium")
        expect(page.locator("#claim")).to_contain_text("You have this case open", timeout=30_000)
        expect(page.locator("#case-announced")).to_contain_text("Bo")
        assert page.evaluate("document.activeElement.id") == "main"
        assert page.input_value(FINDINGS) == ""
        page.fill(FINDINGS, "Of Bo.")

        page.go_back()
        expect(page.locator(".patient-strip .person-name")).to_contain_text("AA", timeout=30_000)
        assert viewer(page, ADA).evaluate(IS_SAME) is True
        assert page.input_value(FINDINGS) == "Of Ada, typed a moment ago."
        page.go_forward()
        expect(page.locator(".patient-strip .person-name")).to_contain_text("BB", timeout=30_000)
        viewer(page, BO)
        page.wait_for_selector(FINDINGS)
        assert page.input_value(FINDINGS) == "Of Bo."
        page.reload()
        viewer(page, BO)
        page.wait_for_selector(FINDINGS)
        assert page.input_value(FINDINGS) == "Of Bo."
        page.go_back()
        viewer(page, ADA)
    assert outside == []


def test_the_next_case_comes_by_its_key_from_within_the_images(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        frame = opened(page, room, ADA, "?list=sort%3Dname")
        frame.evaluate("window.focus()")
        page.keyboard.press("Alt+n")
        assert viewer(page, BO).evaluate(IS_SAME) is True


def test_what_is_seen_first_of_the_next_case_is_fetched_ahead(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        opened(page, room, ADA, "?list=sort%3Dname")
        ahead = lambda: [url for url in asked if "/rendered" in url and f"/studies/{BO}/" in url]  # noqa: E731
        deadline = time.monotonic() + 30
        while not ahead():
            assert time.monotonic() < deadline, asked
            page.wait_for_timeout(50)
        page.evaluate(each_frame("() => document.querySelector('#first-look img')?.currentSrc"))
        panels = len([url for url in asked if url.endswith("/panel/")])
        go_on(page)
        viewer(page, BO)
        page.wait_for_selector(FINDINGS)
        assert set(page.evaluate("window.seen")) == set(ahead()), "it's the same picture"
        assert len([url for url in asked if url.endswith("/panel/")]) == panels + 1, "the report is asked for once"


def test_after_many_cases_the_viewer_is_loaded_anew(room: Atrium, browser: Browser) -> None:
    """What OHIF never lets go of goes so; here after two cases."""
    with signed_in(browser, room, "radiologist") as page:

        def two(route: Route) -> None:
            answer = route.fetch()
            assert "const MOST_CASES = 30;" in answer.text()
            route.fulfill(
                response=answer, body=answer.text().replace("const MOST_CASES = 30;", "const MOST_CASES = 2;")
            )

        page.route("**/viewer/app-config.js", two)
        opened(page, room, ADA)
        page.click(f".prior-list a[href*='{ADA_BEFORE}']")
        assert viewer(page, ADA_BEFORE).evaluate(IS_SAME) is True
        page.click(f".prior-list a[href*='{ADA}']")
        frame = viewer(page, ADA)
        assert not frame.evaluate(IS_SAME)
        assert frame.evaluate(HELD) == [ADA]


def test_a_viewer_that_cannot_be_loaded_breaks_nothing_of_the_page(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.route("**/viewer/open/**", lambda route: route.abort())
        page.goto(f"{room.url}/studies/{ADA}/")
        expect(page.locator("#viewer-wait")).to_be_hidden(timeout=30_000)
        expect(page.locator("#first-look")).to_have_count(0)
        page.fill(FINDINGS, "Words all the same.")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        assert errors == []


def test_an_earlier_study_opened_from_the_page_is_read_in_the_same_viewer(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        frame = opened(page, room, ADA)
        page.click(f".prior-list a[href*='{ADA_BEFORE}']")
        assert viewer(page, ADA_BEFORE).evaluate(IS_SAME) is True
        assert frame.evaluate(HELD) == [ADA_BEFORE]


def test_what_is_measured_belongs_to_its_own_case(room: Atrium, browser: Browser) -> None:
    """Told to the desk as the bridge in OHIF tells it."""
    told: dict[str, Any] = {
        "from": "viewer",
        "about": ADA,
        "type": "measurement",
        "action": "updated",
        "uid": "m1",
        "label": "Mass",
        "values": [{"name": "length", "value": 12, "unit": "mm"}],
        "study": ADA,
        "sop": f"{ADA}.1.1",
        "frame": 1,
    }
    with signed_in(browser, room, "radiologist") as page:
        opened(page, room, ADA, "?list=sort%3Dname")
        page.fill(FINDINGS, "Words of Ada.")
        page.evaluate(TELL, told)
        go_on(page)
        viewer(page, BO)
        page.wait_for_selector(FINDINGS)
        before = page.input_value(FINDINGS)
        page.evaluate(TELL, {**told, "uid": "m2"})
        page.evaluate(TELL, {**told, "uid": "m3", "about": None})
        page.wait_for_timeout(1500)
        assert page.input_value(FINDINGS) == before
        assert page.locator("#findings .finding").count() == 0, "what comes late isn't the next case's"
        page.go_back()
        viewer(page, ADA)
        page.wait_for_selector("#findings .finding:has-text('Mass')")
        assert page.locator("#findings .finding").count() == 1
        # What was measured a moment before is in the words of its case.
        until(
            page, "[...document.querySelectorAll('#draft textarea')].some((one) => one.value.includes('Mass: 12.0 mm'))"
        )


def test_the_images_are_hidden_from_the_change_until_the_next_ones_are_drawn(room: Atrium, browser: Browser) -> None:
    seen = each_frame("""() => {
      const name = document.querySelector(".patient-strip .person-name").textContent;
      const frame = document.getElementById("viewer");
      const box = frame.getBoundingClientRect();
      const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 3);
      const study = new URLSearchParams(frame.contentWindow.location.search).get("StudyInstanceUIDs");
      const canvas = frame.contentDocument.querySelector("canvas.cornerstone-canvas");
      return [name.trim(), top === frame, study, Boolean(canvas)];
    }""")
    with signed_in(browser, room, "radiologist") as page:
        opened(page, room, ADA, "?list=sort%3Dname")
        page.evaluate(seen)
        go_on(page)
        expect(page.locator(".patient-strip .person-name")).to_contain_text("BB", timeout=30_000)
        viewer(page, BO)
        looks = page.evaluate("window.seen")
        names = {ADA: "AA", BO: "BB"}
        assert {look[0][:2] for look in looks} == {"AA", "BB"}
        for name, is_seen, study, _ in looks:
            assert not is_seen or name.startswith(names[study]), looks
        assert [look for look in looks if look[0].startswith("BB") and not look[1]], "there was a time of waiting"


def test_a_window_of_images_follows_without_being_loaded_anew(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        opened(page, room, ADA, "?list=sort%3Dname")
        with page.context.expect_page() as popup:
            page.click("#images-window")
        window = popup.value
        window.wait_for_selector("canvas.cornerstone-canvas", timeout=60_000)
        until(window, f"({DISTINCT_GREYS})() >= 60")
        window.evaluate(MARK)
        go_on(page)
        expect(page.locator(".patient-strip .person-name")).to_contain_text("BB", timeout=30_000)
        window.wait_for_url(f"**StudyInstanceUIDs={BO}**")
        window.wait_for_selector("#atrium-wait", state="detached", timeout=30_000)
        until(window, f"({DISTINCT_GREYS})() >= 60")
        assert window.evaluate(IS_SAME) is True
        assert window.evaluate(HELD) == [BO]
        assert page.is_visible("#images-elsewhere")


def test_a_viewer_that_may_not_go_on_is_loaded_anew_with_the_case(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        frame = opened(page, room, ADA, "?list=sort%3Dname")

        def other_edition(route: Any) -> None:
            if route.request.headers["accept"] != "application/json":
                route.continue_()
                return
            answer = route.fetch()
            route.fulfill(response=answer, json={**answer.json(), "edition": "another"})

        page.route(f"**/viewer/open/{BO}/**", other_edition)
        go_on(page)
        expect(page.locator(".patient-strip .person-name")).to_contain_text("BB", timeout=30_000)
        assert not viewer(page, BO).evaluate(IS_SAME)
        # One that doesn't answer, too.
        frame = viewer(page, BO)
        frame.evaluate(f"{MARK}; BroadcastChannel.prototype.postMessage = () => {{}}")
        page.go_back()
        expect(page.locator(".patient-strip .person-name")).to_contain_text("AA", timeout=30_000)
        assert not viewer(page, ADA).evaluate(IS_SAME)


def test_words_that_cannot_be_saved_keep_the_case(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        opened(page, room, ADA, "?list=sort%3Dname")
        page.route("**/reports/**/save/", lambda route: route.abort())
        asked = []

        def stay(dialog: Any) -> None:
            asked.append(dialog.type)
            dialog.dismiss()

        page.on("dialog", stay)
        page.fill(FINDINGS, "Not saved yet.")
        page.click("#next-case button", no_wait_after=True)
        page.wait_for_selector("#save-state[data-state=failed]")
        expect(page.locator(".patient-strip .person-name")).to_contain_text("AA", timeout=30_000)
        deadline = time.monotonic() + 30
        while not asked:
            assert time.monotonic() < deadline, "nobody asks whether to leave"
            page.wait_for_timeout(50)
        page.wait_for_timeout(500)
        assert asked == ["beforeunload"]
        assert page.input_value(FINDINGS) == "Not saved yet."
        page.unroute("**/reports/**/save/")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')", timeout=40_000)
        go_on(page)
        expect(page.locator(".patient-strip .person-name")).to_contain_text("BB", timeout=30_000)


def test_a_viewer_holds_nothing_of_the_cases_that_were_left(room: Atrium, browser: Browser) -> None:
    remember = """() => {
      const [set] = window.services.displaySetService.getActiveDisplaySets();
      const held = [set, set.instances[0], document.querySelector("canvas.cornerstone-canvas")];
      (window.held ||= []).push(...held.map((one) => new WeakRef(one)));
    }"""
    with signed_in(browser, room, "radiologist") as page:
        frame = opened(page, room, ADA)
        session = page.context.new_cdp_session(page)
        for study in (ADA_BEFORE, ADA) * 2:
            frame.evaluate(remember)
            page.click(f".prior-list a[href*='{study}']")
            assert viewer(page, study).evaluate(IS_SAME) is True
        until(frame, f"window.cornerstone.cache.getCacheSize() <= {SLICES * 64 * 64 * 2}")
        deadline = time.monotonic() + 30
        while frame.evaluate("window.held.filter((one) => one.deref()).length"):
            assert time.monotonic() < deadline, "what belongs to a case that was left is still held"
            session.send("HeapProfiler.collectGarbage")


def seen_in(page: Page, box: dict[str, float]) -> np.ndarray:
    """Give the greys of what is seen in the middle of a box, where OHIF writes nothing."""
    middle = {
        "x": box["x"] + box["width"] * 0.15,
        "y": box["y"] + box["height"] * 0.3,
        "width": box["width"] * 0.7,
        "height": box["height"] * 0.4,
    }
    shot = page.screenshot(clip=middle)  # type: ignore[arg-type]
    return np.asarray(Image.open(BytesIO(shot)).convert("L")).astype(int)


@pytest.mark.parametrize(("study", "pictures", "width"), [(ADA, [ADA], 1440), (CAI, [CAI, CAI_BEFORE], 1700)])
def test_the_first_look_stands_where_ohif_draws_and_goes_when_it_has(
    room: Atrium, browser: Browser, study: str, pictures: list[str], width: int
) -> None:
    with signed_in(browser, room, "radiologist", viewport={"width": width, "height": 900}) as page:
        held: list[Route] = []
        is_held = True
        page.route("**/frames/1", lambda route: held.append(route) if is_held else route.continue_())
        page.goto(f"{room.url}/studies/{study}/")
        until(
            page, "[...document.querySelectorAll('#first-look img')].every((one) => one.complete && one.naturalWidth)"
        )
        sources = page.eval_on_selector_all("#first-look img", "all => all.map((one) => one.currentSrc)")
        assert [source.split("/studies/")[1].split("/")[0] for source in sources] == pictures
        until(
            page,
            "document.querySelector('#viewer').contentDocument?.querySelectorAll('canvas.cornerstone-canvas').length",
        )
        deadline = time.monotonic() + 60
        while len(held) < len(pictures):
            assert time.monotonic() < deadline, "OHIF asks for no frame"
            page.wait_for_timeout(50)
        assert page.locator(".first-look-view p").first.inner_text() == "Loading. Not for diagnosis yet."
        boxes = [view.bounding_box() for view in page.locator(".first-look-view").all()]
        looks = [seen_in(page, box) for box in boxes]
        is_held = False
        for route in held:
            route.continue_()
        frame = viewer(page, study)
        expect(page.locator("#first-look")).to_have_count(0)
        until(
            frame,
            "window.services.cornerstoneViewportService.getRenderingEngine().getViewports()"
            ".every((one) => one.getCornerstoneImage())",
        )
        # Not OHIF's thumbnails, which it draws on canvases beside the page that go again.
        panes = frame.locator("[data-cy=viewport-pane] canvas.cornerstone-canvas")
        canvases = [canvas.bounding_box() for canvas in panes.all()]
        for box, canvas, look in zip(boxes, canvases, looks, strict=True):
            assert all(abs(box[side] - canvas[side]) <= 1.5 for side in ("x", "y", "width", "height")), (box, canvas)
            assert look.std() > 20, "there is something to be seen"
            deadline = time.monotonic() + 30
            while abs(look - seen_in(page, box)).mean() >= 6:
                assert time.monotonic() < deadline, "OHIF draws something else"
                page.wait_for_timeout(100)


def test_one_image_is_the_study_s_not_its_prior_s(room: Atrium, browser: Browser) -> None:
    """OHIF's own layout would begin with the study of the greatest UID, which is the prior here."""
    chosen = "HangingPreference.objects.create(user_id=user, modality='CT', hanging_protocol='default')"
    user = "from accounts.models import User; user = User.objects.get(username='radiologist').pk"
    room.manage("shell", "-c", f"{AFRESH}{user}\n{chosen}")
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/studies/{CAI}/")
        look = page.locator("#first-look source")
        assert f"/studies/{CAI}/" in (look.get_attribute("srcset") or "")
        frame = viewer(page, CAI)
        assert f"StudyInstanceUIDs={CAI},{CAI_BEFORE}&" in frame.url
        shown = """() => {
          const { displaySetService, viewportGridService } = window.services;
          const [view] = [...viewportGridService.getState().viewports.values()];
          return displaySetService.getDisplaySetByUID(view.displaySetInstanceUIDs[0]).StudyInstanceUID;
        }"""
        assert frame.evaluate(shown) == CAI


def test_a_phone_fetches_no_first_look(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist", viewport={"width": 390, "height": 844}) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{room.url}/studies/{ADA}/")
        page.wait_for_selector("#draft")
        assert not [url for url in asked if "/rendered" in url]


def test_no_case_begins_with_another_s_first_look(room: Atrium, browser: Browser) -> None:
    looks = each_frame("""() => {
      const { study } = document.getElementById("study-images").dataset;
      const shown = document.getElementById("first-look");
      const pictures = [...document.querySelectorAll("#first-look img")].map((one) => one.currentSrc);
      return shown && [study, shown.dataset.study, ...pictures];
    }""")
    with signed_in(browser, room, "radiologist") as page:
        opened(page, room, ADA, "?list=sort%3Dname")
        page.evaluate(looks)
        go_on(page)
        viewer(page, BO)
        expect(page.locator("#first-look")).to_have_count(0)
        page.go_back()
        viewer(page, ADA)
        seen = page.evaluate("window.seen")
        assert {study for study, *_ in seen} == {ADA, BO}
        for study, of, *pictures in seen:
            assert of == study
            assert all(not one or f"/studies/{study}/" in one for one in pictures)


def test_a_case_of_documents_is_gone_on_to_and_from(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        opened(page, room, BO, "?list=sort%3Dname")
        # Ada's is read already.
        room.manage("shell", "-c", AFRESH + f"Study.objects.filter(study_instance_uid='{ADA}').update(status='final')")
        go_on(page)
        expect(page.locator(".patient-strip .person-name")).to_contain_text("DD", timeout=30_000)
        document = page.frame_locator("#viewer").locator("h1")
        expect(document).to_be_visible(timeout=30_000)
        expect(page.locator("#viewer-wait")).to_be_hidden()
        assert f"/studies/{LETTER}/" in next(one.url for one in page.frames if one.parent_frame)
        # The keys of the case work from within the page that stands where the images would.
        next(one for one in page.frames if one.parent_frame).locator("h1").click()
        page.keyboard.press("?")
        page.wait_for_selector("#key-help[open]")
        page.keyboard.press("Escape")
        page.fill(FINDINGS, "Of the letter.")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        page.go_back()
        viewer(page, BO)
        page.wait_for_selector(FINDINGS)
        assert page.input_value(FINDINGS) == ""


def test_a_session_that_has_ended_leads_to_signing_in(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        opened(page, room, ADA, "?list=sort%3Dname")
        page.context.clear_cookies(name="atrium_session")
        go_on(page)
        page.wait_for_url("**/accounts/login/**")
        assert page.locator("#study-images").count() == 0


def test_without_a_connection_the_case_stays_and_says_so(room: Atrium, browser: Browser) -> None:
    with signed_in(browser, room, "radiologist") as page:
        frame = opened(page, room, ADA, "?list=sort%3Dname")
        page.context.set_offline(True)
        go_on(page)
        expect(page.locator(".message-error")).to_contain_text("The server cannot be reached")
        assert frame.evaluate(IS_SAME) is True
        expect(page.locator(".patient-strip .person-name")).to_contain_text("AA")
        page.context.set_offline(False)
        go_on(page)
        viewer(page, BO)
        assert frame.evaluate(IS_SAME) is True


def test_what_is_being_dictated_belongs_to_the_case_that_is_left(room: Atrium, browser: Browser) -> None:
    """The ear tells the end of what was said only after it has been stopped, as browsers do."""
    slowly = """() => {
      const { ear } = window;
      ear.stop = () => setTimeout(() => { ear.hears("said at the end"); ear.onend(); window.ears -= 1; }, 300);
    }"""
    with signed_in(browser, room, "radiologist") as page:
        page.add_init_script(EAR)
        opened(page, room, ADA, "?list=sort%3Dname")
        page.focus(FINDINGS)
        page.keyboard.press("F9")
        page.evaluate("window.ear.hears('said first full stop')")
        page.evaluate(slowly)
        page.evaluate("document.getElementById('next-case').requestSubmit()")
        viewer(page, BO)
        page.wait_for_selector(FINDINGS)
        assert page.evaluate("window.ears") == 0, "nobody listens any more"
        assert page.input_value(FINDINGS) == ""
        page.go_back()
        viewer(page, ADA)
        page.wait_for_selector(FINDINGS)
        assert page.input_value(FINDINGS) == "Said first. Said at the end"
