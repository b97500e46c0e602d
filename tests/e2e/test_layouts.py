"""The layouts of OHIF's menu: each is remembered, said in the desk's list, and leaves no viewer empty."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pydicom
import pytest
from playwright.sync_api import Browser, Frame, Page, expect
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    MRImageStorage,
)

from portal.demo.studies import demo_studies
from studies.viewer.hanging import PROTOCOLS
from tests.e2e.browser import DISTINCT_GREYS, chromium, needs_chromium, needs_viewer, outside, signed_in, until
from tests.e2e.measurements import written
from tests.services.atrium import Atrium, running_atrium

pytestmark = [needs_chromium, needs_viewer]
ROOT = "1.2.826.0.6"
# A CT with its prior, which has the greater UID; a CT of one slice; a CR of the CT's patient.
CT, PRIOR, SLICE, CR = (f"{ROOT}.{n}" for n in range(1, 5))
# MR of one to five series; mammograms, and the views of each.
MR = {count: f"{ROOT}.5{count}" for count in range(1, 6)}
MG = {
    f"{ROOT}.61": ["RCC"],
    f"{ROOT}.62": ["RCC", "RMLO"],
    f"{ROOT}.63": ["LCC", "RMLO"],
    f"{ROOT}.64": ["RCC", "LCC", "RMLO"],
}
# What OHIF calls them in its menu, and what they are in our list.
IN_MENU = {
    "MPR": "mpr",
    "3D four up": "fourUp",
    "3D main": "main3D",
    "3D primary": "primary3D",
    "3D only": "only3D",
    "Axial Primary": "primaryAxial",
}
# Of each viewport the study that it shows, and how; of a stack the image, too.
SHOWN = """() => [...services.viewportGridService.getState().viewports.values()].map((one) => {
  const viewport = services.cornerstoneViewportService.getCornerstoneViewport(one.viewportId);
  const [uid] = one.displaySetInstanceUIDs;
  const set = uid && services.displaySetService.getDisplaySetByUID(uid);
  const image = viewport?.type === "stack" ? viewport.getCornerstoneImage()?.imageId : null;
  return [set?.StudyInstanceUID, viewport?.type, image?.match(/instances\\/([\\d.]+)/)?.[1]];
})"""
# Of each viewport where it lies, in hundredths of the grid, and the series that it shows.
PLACED = """() => [...services.viewportGridService.getState().viewports.values()].map((one) => {
  const [uid] = one.displaySetInstanceUIDs;
  const place = [one.x, one.y, one.width, one.height].map((part) => Math.round(100 * part));
  return [...place, uid && services.displaySetService.getDisplaySetByUID(uid)?.SeriesNumber];
})"""
# The images at which the planes of a volume are.
PLACES = """() => [...services.viewportGridService.getState().viewports.keys()].map((id) => {
  const viewport = services.cornerstoneViewportService.getCornerstoneViewport(id);
  return viewport?.type === "orthographic" && viewport.getCurrentImageId()?.match(/instances\\/([\\d.]+)/)?.[1];
})"""
FORGET = "from studies.viewer.models import HangingPreference; HangingPreference.objects.all().delete()"
TELL = """from studies.viewer.models import HangingPreference
print("\\n".join(sorted(f"{one.user.username} {one}" for one in HangingPreference.objects.all())))"""


def images() -> Iterator[Any]:
    """Give the demo's chest CT and its prior, of which the smaller studies are parts."""
    both = [one for one in demo_studies(ct_slices=20, ct_size=128) if "CT chest" in one.description]
    now, before = [[pydicom.dcmread(BytesIO(content)) for content in islice(one.instances(), 20)] for one in both]
    cr = {"Modality": "CR", "SOPClassUID": ComputedRadiographyImageStorage, "StudyDescription": "Chest"}
    yield from (of(image, CT, number) for number, image in enumerate(now, 1))
    yield from (of(image, PRIOR, number, StudyDate="20250901") for number, image in enumerate(before, 1))
    yield of(now[9], SLICE, 1, PatientID="LAYOUT2")
    yield of(now[9], CR, 1, **cr)
    mr = {"Modality": "MR", "SOPClassUID": MRImageStorage, "StudyDescription": "Chest"}
    for count, study in MR.items():
        yield from (of(now[9], study, 1, n, PatientID=f"LAYOUT5{count}", **mr) for n in range(1, count + 1))
    for study, views in MG.items():
        yield from (mammogram(now[9], study, number, view) for number, view in enumerate(views, 1))


def mammogram(image: Any, study: str, number: int, view: str) -> Any:
    mg = {"Modality": "MG", "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation}
    seen = {"ImageLaterality": view[0], "ViewPosition": view[1:]}
    return of(image, study, 1, number, PatientID=f"LAYOUT{study[-2:]}", StudyDescription="Breast", **mg, **seen)


def of(image: Any, study: str, number: int, series: int = 1, **attributes: Any) -> Any:
    copy = pydicom.Dataset(image)
    copy.file_meta = pydicom.dataset.FileMetaDataset(image.file_meta)
    given = {"PatientID": "LAYOUT1", "StudyDate": "20260901", "StudyDescription": "CT chest", "SeriesNumber": series}
    given |= attributes
    for keyword, value in {**given, "BodyPartExamined": "CHEST", "AccessionNumber": study[-2:]}.items():
        setattr(copy, keyword, value)
    copy.StudyInstanceUID, copy.SeriesInstanceUID = study, f"{study}.{series}"
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = f"{study}.{series}.{number}"
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID
    return copy


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    folder: Path = tmp_path_factory.mktemp("layouts")
    (folder / "in").mkdir()
    for number, image in enumerate(images()):
        (folder / "in" / f"{number:03}.dcm").write_bytes(written(image))
    with running_atrium(folder / "atrium", "web") as atrium:
        atrium.manage("import", str(folder / "in"), "--site", "north")
        yield atrium


@pytest.fixture(autouse=True)
def _forgotten(installation: Atrium) -> None:
    installation.manage("shell", "-c", FORGET)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def remember(atrium: Atrium, modality: str, protocol: str) -> None:
    who = f"user=User.objects.get(username='radiologist'), modality='{modality}', body_part_examined='CHEST'"
    row = f"HangingPreference.objects.create({who}, hanging_protocol='{protocol}')"
    names = "from accounts.models import User; from studies.viewer.models import HangingPreference"
    atrium.manage("shell", "-c", f"{names}; {row}")


def remembered(atrium: Atrium) -> list[str]:
    return atrium.manage("shell", "--no-imports", "-c", TELL).strip().splitlines()


def opened(atrium: Atrium, page: Page, study: str, query: str = "") -> Frame:
    """Open a study beside its words; give OHIF's frame once the first image is drawn."""
    page.goto(f"{atrium.url}/studies/{study}/{query}")
    page.wait_for_selector("#viewer-wait", state="hidden", timeout=90_000)
    return next(frame for frame in page.frames if "/viewer/" in frame.url)


def until_opened(page: Page) -> None:
    """Wait until OHIF, on a page of its own, has drawn its first image."""
    until(page, f"({DISTINCT_GREYS})() >= 60", seconds=90)


def told(page: Page) -> list[int]:
    """Give a list that gets the status of each answer to what is told of a layout."""
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status) if "/preferences/" in answer.url else None)
    return answers


def choose(viewer: Frame, name: str) -> None:
    """Choose a layout in OHIF's menu, as a hand does."""
    viewer.click('[data-cy="Layout"] button')
    viewer.get_by_text(name, exact=True).click()


def until_shown(viewer: Frame, studies: str, kinds: str) -> None:
    """Wait until the viewports show these studies in these ways."""
    until(viewer, f"JSON.stringify(({SHOWN})().map(([study, kind]) => [study, kind])) === '{pairs(studies, kinds)}'")


def pairs(studies: str, kinds: str) -> str:
    return json.dumps(
        [[study, kind] for study, kind in zip(studies.split(), kinds.split(), strict=True)], separators=(",", ":")
    )


def test_each_layout_of_ohifs_menu_is_remembered_and_said(installation: Atrium, browser: Browser) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        answers = told(page)
        viewer = opened(installation, page, CT)
        layout = page.locator("#hanging")
        expect(layout).to_have_value("atrium.compare")
        for count, (name, protocol) in enumerate(IN_MENU.items(), 1):
            choose(viewer, name)
            expect(layout).to_have_value(protocol)
            assert layout.locator(":checked").inner_text() == PROTOCOLS[protocol]
            until(viewer, f"({SHOWN})().every(([study, kind]) => study === '{CT}' && kind !== 'stack')")
            page.wait_for_timeout(500)
            assert answers == [204] * count
        assert remembered(installation) == [f"radiologist CT CHEST {protocol}"]
        # OHIF that opens with it never comes to an end.
        choose(viewer, "Frame View")
        expect(layout.locator(":checked")).to_have_text("Another layout")
        viewer = opened(installation, page, CT)
        expect(layout).to_have_value(protocol)
        until_shown(viewer, f"{CT} {CT} {CT}", "orthographic orthographic orthographic")
        assert answers == [204] * count
    assert outside == []


@pytest.mark.parametrize("protocol", ["mpr", "only3D", "main3D"])
def test_what_cannot_be_a_volume_opens_as_one_image(installation: Atrium, browser: Browser, protocol: str) -> None:
    for modality in ("CT", "CR"):
        remember(installation, modality, protocol)
    with signed_in(browser, installation, "radiologist") as page:
        answers = told(page)
        for study in (CR, SLICE):
            viewer = opened(installation, page, study)
            until_shown(viewer, study, "stack")
            expect(page.locator("#hanging")).to_have_value("default")
        page.select_option("#hanging", protocol)
        viewer.get_by_text("The hanging protocol could not be applied.").wait_for()
        expect(page.locator("#hanging")).to_have_value("default")
        until_shown(viewer, SLICE, "stack")
        # Where it can be, it's as it was.
        viewer = opened(installation, page, CT)
        expect(page.locator("#hanging")).to_have_value(protocol)
        until(viewer, f"({SHOWN})().every(([study, kind]) => study === '{CT}' && kind !== 'stack')")
        assert answers == []
    assert remembered(installation) == [f"radiologist {modality} CHEST {protocol}" for modality in ("CR", "CT")]


def test_how_a_prior_is_looked_at_is_not_remembered_of_the_study(installation: Atrium, browser: Browser) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        answers = told(page)
        page.goto(f"{installation.url}/viewer/viewer?StudyInstanceUIDs={CR},{CT}&hangingProtocolId=atrium.compare")
        until_opened(page)
        until(
            page, f"document.querySelectorAll('canvas.cornerstone-canvas').length === 2 && ({DISTINCT_GREYS})(1) >= 60"
        )
        page.locator("canvas.cornerstone-canvas").nth(1).click()
        choose(page.main_frame, "MPR")
        until_shown(page.main_frame, f"{CT} {CT} {CT}", "orthographic orthographic orthographic")
        page.wait_for_timeout(500)
        assert answers == []


@pytest.mark.parametrize("protocol", ["only3D", "main3D"])
def test_an_image_that_is_asked_for_is_found_beside_or_instead_of_3d(
    installation: Atrium, browser: Browser, protocol: str
) -> None:
    remember(installation, "CT", protocol)
    with signed_in(browser, installation, "radiologist") as page:
        viewer = opened(installation, page, CT, f"?sop={CT}.1.7")
        if protocol == "only3D":
            until(viewer, f"({SHOWN})()[0][2] === '{CT}.1.7'")
        else:
            until(viewer, f"({PLACES})().includes('{CT}.1.7')")
            until_shown(viewer, f"{CT} {CT} {CT} {CT}", "volume3d orthographic orthographic orthographic")


def test_a_narrow_page_shows_one_image_and_what_is_remembered_stays(installation: Atrium, browser: Browser) -> None:
    remember(installation, "CT", "mpr")
    address = f"{installation.url}/viewer/open/{CT}/"
    with signed_in(browser, installation, "radiologist", viewport={"width": 390, "height": 844}) as page:
        answers = told(page)
        page.goto(address)
        until_opened(page)
        until_shown(page.main_frame, CT, "stack")
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(address)
        until_opened(page)
        until_shown(page.main_frame, f"{CT} {CT} {CT}", "orthographic orthographic orthographic")
        assert answers == []
    assert remembered(installation) == ["radiologist CT CHEST mpr"]


# Where the series stand: side by side, of three one on the left and two on the right, else in four quarters.
@pytest.mark.parametrize(
    ("count", "places"),
    [
        (1, [[0, 0, 100, 100]]),
        (2, [[0, 0, 50, 100], [50, 0, 50, 100]]),
        (3, [[0, 0, 50, 100], [50, 0, 50, 50], [50, 50, 50, 50]]),
        (4, [[0, 0, 50, 50], [50, 0, 50, 50], [0, 50, 50, 50], [50, 50, 50, 50]]),
        (5, [[0, 0, 50, 50], [50, 0, 50, 50], [0, 50, 50, 50], [50, 50, 50, 50]]),
    ],
)
def test_four_series_opens_no_more_viewports_than_there_are_series(
    installation: Atrium, browser: Browser, count: int, places: list[list[int]]
) -> None:
    remember(installation, "MR", "atrium.fourUp")
    placed = json.dumps([[*place, series] for series, place in enumerate(places, 1)], separators=(",", ":"))
    with signed_in(browser, installation, "radiologist") as page:
        answers = told(page)
        viewer = opened(installation, page, MR[count])
        until(viewer, f"JSON.stringify(({PLACED})()) === '{placed}'")
        until(viewer, f"({SHOWN})().every(([study, kind, image]) => study === '{MR[count]}' && image)")
        expect(page.locator("#hanging")).to_have_value("atrium.fourUp")
        assert answers == []
    assert remembered(installation) == ["radiologist MR CHEST atrium.fourUp"]


def test_a_layout_that_is_chosen_leaves_no_viewport_empty_and_is_remembered(
    installation: Atrium, browser: Browser
) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        layout = page.locator("#hanging")
        viewer = opened(installation, page, MR[2])
        for protocol, count in (("default", 1), ("atrium.fourUp", 2), ("atrium.compare", 1), ("atrium.fourUp", 2)):
            layout.select_option(protocol)
            until_shown(viewer, " ".join([MR[2]] * count), " ".join(["stack"] * count))
            until(viewer, f"({SHOWN})().every(([study, kind, image]) => image)")
            expect(layout).to_have_value(protocol)
    assert remembered(installation) == ["radiologist MR CHEST atrium.fourUp"]


@pytest.mark.parametrize(
    ("study", "views"), zip(MG, [["RCC"], ["RCC", "RMLO"], ["RMLO", "LCC"], ["RCC", "LCC", "RMLO", None]], strict=True)
)
def test_mammograms_of_one_or_two_views_fill_the_viewports(
    installation: Atrium, browser: Browser, study: str, views: list[str | None]
) -> None:
    series = json.dumps([view and MG[study].index(view) + 1 for view in views], separators=(",", ":"))
    with signed_in(browser, installation, "radiologist") as page:
        viewer = opened(installation, page, study)
        expect(page.locator("#hanging")).to_have_value("atrium.mammo")
        until(viewer, f"JSON.stringify(({PLACED})().map((placed) => placed[4] ?? null)) === '{series}'")


def test_beside_the_words_of_a_phone_the_list_says_that_it_is_one_image(installation: Atrium, browser: Browser) -> None:
    remember(installation, "CT", "mpr")
    with signed_in(browser, installation, "radiologist", viewport={"width": 390, "height": 844}) as page:
        answers = told(page)
        page.goto(f"{installation.url}/studies/{CT}/")
        layout = page.locator("#hanging")
        expect(layout.locator(":checked")).to_have_text("One image")
        expect(layout).to_be_disabled()
        page.set_viewport_size({"width": 1440, "height": 900})
        opened(installation, page, CT)
        expect(layout.locator(":checked")).to_have_text("Three planes")
        expect(layout).to_be_enabled()
        assert answers == []
    assert remembered(installation) == ["radiologist CT CHEST mpr"]
