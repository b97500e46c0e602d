"""Every kind of object is really drawn: in OHIF under our policy, else by our own pages. Pixels are looked at."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, Frame, Page
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from tests.e2e.browser import chromium, needs_chromium, needs_viewer, signed_in, until
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = [needs_chromium, needs_viewer]
ROOT = "1.2.826.0.4"
CT, MG, US, PDF, ECG = (f"{ROOT}.{n}" for n in range(1, 6))
COLOURED = """() => {
  const canvas = document.querySelector("canvas.cornerstone-canvas");
  if (!canvas || canvas.width < 100) return 0;
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 0; i < data.length; i += 4) if (Math.abs(data[i] - data[i + 1]) > 40) count += 1;
  return count;
}"""
SEEN = """() => {
  const canvas = document.querySelector("canvas.cornerstone-canvas");
  if (!canvas || canvas.width < 100) return 0;
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) sum += data[i];
  return sum;
}"""


def written(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def ct_with_marks() -> Iterator[bytes]:
    """Give a CT, a segmentation of its middle, and a presentation state that draws a circle on one image."""
    rows, columns = np.mgrid[:64, :64]
    body = ((rows - 32) ** 2 + (columns - 32) ** 2 < 700) * 900 + rows * 3
    slices = []
    for number in range(8):
        file = make_instance(
            pixels=body.astype(np.uint16),
            StudyInstanceUID=CT,
            SeriesInstanceUID=f"{CT}.1",
            FrameOfReferenceUID=f"{CT}.9",
            PatientID="KINDS",
            SOPInstanceUID=f"{CT}.1.{number + 1}",
            InstanceNumber=number + 1,
            ImagePositionPatient=[0, 0, number * 4],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[4, 4],
            SliceThickness=4,
            PositionReferenceIndicator="",
            WindowCenter=500,
            WindowWidth=1200,
            RescaleIntercept=0,
            RescaleSlope=1,
        )
        slices.append(pydicom.dcmread(io.BytesIO(file)))
        yield file
    mask = np.repeat(((rows - 32) ** 2 + (columns - 32) ** 2 < 150)[None], 8, axis=0).astype(np.uint8)
    made: dict[str, Any] = {"manufacturer": "M", "software_versions": "1", "device_serial_number": "1"}
    algorithm = hd.seg.SegmentAlgorithmTypeValues.MANUAL
    segment = hd.seg.SegmentDescription(1, "Lesion", codes.SCT.Tissue, codes.SCT.Mass, algorithm)
    segmentation = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(),
        series_number=20,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer_model_name="M",
        **made,
    )
    segmentation.SeriesDescription = "Lesion"
    yield written(segmentation)
    layer = hd.pr.GraphicLayer("MARKS", order=1)
    circle = hd.pr.GraphicObject(
        graphic_type=hd.pr.GraphicTypeValues.CIRCLE,
        graphic_data=np.array([[32.0, 32.0], [44.0, 32.0]]),
        units=hd.pr.AnnotationUnitsValues.PIXEL,
    )
    annotation = hd.pr.GraphicAnnotation(referenced_images=[slices[3]], graphic_layer=layer, graphic_objects=[circle])
    yield written(
        hd.pr.GrayscaleSoftcopyPresentationState(
            referenced_images=[slices[3]],
            series_instance_uid=generate_uid(),
            series_number=40,
            sop_instance_uid=f"{CT}.4",
            instance_number=1,
            manufacturer_model_name="M",
            content_label="MARKS",
            content_creator_name="A^B",
            graphic_layers=[layer],
            graphic_annotations=[annotation],
            **made,
        )
    )


def mammograms() -> Iterator[bytes]:
    """Give four views whose descriptions say nothing of them; codes as older machines write them."""
    for number, (side, view, code) in enumerate(
        [("L", "CC", "R-10242"), ("R", "CC", "R-10242"), ("L", "MLO", "R-10226"), ("R", "MLO", "R-10226")], 1
    ):
        item = pydicom.Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SRT", view
        yield make_instance(
            SOPClassUID=DigitalMammographyXRayImageStorageForPresentation,
            Modality="MG",
            StudyInstanceUID=MG,
            PatientID="KINDS2",
            StudyDescription="Screening mammography",
            SeriesNumber=number,
            SeriesDescription=f"View of {side}{view}",
            ImageLaterality=side,
            ViewCodeSequence=[item],
            ImagerPixelSpacing=[0.1, 0.1],
        )


def cine() -> bytes:
    frames = np.stack([np.full((32, 32), 20 * n, np.uint16) + np.arange(32, dtype=np.uint16) for n in range(10)])
    return make_instance(
        pixels=frames,
        SOPClassUID=UltrasoundMultiFrameImageStorage,
        Modality="US",
        StudyInstanceUID=US,
        PatientID="KINDS3",
        FrameTime=40,
        FrameIncrementPointer=0x00181063,
        WindowCenter=120,
        WindowWidth=240,
    )


def letter() -> bytes:
    pdf = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj trailer<</Root 1 0 R>>\n%%EOF\n"
    )
    dataset = pydicom.dcmread(io.BytesIO(make_instance(StudyInstanceUID=PDF, PatientID="KINDS4", Modality="DOC")))
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return written(dataset)


def waveform() -> bytes:
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm")))
    dataset.StudyInstanceUID, dataset.PatientID, dataset.SeriesInstanceUID = ECG, "KINDS5", f"{ECG}.1"
    return written(dataset)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    folder: Path = tmp_path_factory.mktemp("kinds")
    (folder / "in").mkdir()
    for number, content in enumerate([*ct_with_marks(), *mammograms(), cine(), letter(), waveform()]):
        (folder / "in" / f"{number:03}.dcm").write_bytes(content)
    with running_atrium(folder / "atrium", "web") as atrium:
        atrium.manage("import", str(folder / "in"), "--site", "north")
        yield atrium


@pytest.fixture(scope="module")
def page(installation: Atrium) -> Iterator[Page]:
    with chromium() as browser, _in(browser, installation) as opened:
        yield opened


def _in(browser: Browser, atrium: Atrium) -> Any:
    return signed_in(browser, atrium, "radiologist", color_scheme="dark", viewport={"width": 1600, "height": 900})


def open_study(atrium: Atrium, page: Page, study: str) -> Frame:
    page.goto(f"{atrium.url}/studies/{study}/")
    page.wait_for_selector("#viewer-wait", state="hidden", timeout=90_000)
    return next(frame for frame in page.frames if "/viewer/" in frame.url)


def test_a_segmentation_is_drawn_over_its_images(installation: Atrium, page: Page) -> None:
    page.goto(f"{installation.url}/viewer/viewer?StudyInstanceUIDs={CT}&hangingProtocolId=default")
    until(page, f"({SEEN})() > 100000", seconds=90)
    assert page.evaluate(COLOURED) == 0
    page.dblclick('[data-cy="study-browser-thumbnail-no-image"]:has-text("SEG")')
    until(page, f"({COLOURED})() > 500", seconds=60)


def test_a_presentation_state_is_drawn_by_our_own_page(installation: Atrium, page: Page) -> None:
    page.goto(f"{installation.url}/studies/{CT}/")
    page.click(".objects-beside a:has-text('PR')")
    page.wait_for_selector(".object-pictures img")
    until(page, "document.querySelector('.object-pictures img').complete")
    yellow = page.evaluate(
        """() => {
          const image = document.querySelector(".object-pictures img");
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
          let count = 0;
          for (let i = 0; i < data.length; i += 4) if (data[i] - data[i + 2] > 80) count += 1;
          return count;
        }"""
    )
    assert yellow > 200, "the circle isn't drawn"


def test_the_right_breast_hangs_left_whatever_the_description_says(installation: Atrium, page: Page) -> None:
    viewer = open_study(installation, page, MG)
    words = "[...document.querySelectorAll('[data-cy=viewport-pane]')].map(pane => pane.innerText)"
    until(viewer, f"{words}.length === 4 && {words}.every(text => text.includes('View of'))", seconds=60)
    shown = [next(line for line in text.split("\n") if "View of" in line) for text in viewer.evaluate(words)]
    assert shown == ["View of RCC", "View of LCC", "View of RMLO", "View of LMLO"]


def test_a_film_plays(installation: Atrium, page: Page) -> None:
    viewer = open_study(installation, page, US)
    viewer.click('[data-cy="cine-player-play-pause"]')
    seen = set()
    for _ in range(60):
        seen.add(viewer.evaluate(SEEN))
        if len(seen) > 3:
            break
        page.wait_for_timeout(100)
    assert len(seen) > 3


def test_an_ecg_is_drawn(installation: Atrium, page: Page) -> None:
    viewer = open_study(installation, page, ECG)
    until(viewer, f"({COLOURED})() > 1000", seconds=60)


def test_a_letter_is_read_in_the_viewer_and_on_our_page(installation: Atrium, page: Page) -> None:
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "Content Security" in message.text else None)
    viewer = open_study(installation, page, PDF)
    viewer.wait_for_selector("object[type='application/pdf']", state="attached")
    until(page, "document.querySelector('#viewer').contentDocument.querySelector('object').data.startsWith('blob:')")
    page.wait_for_timeout(500)
    assert refused == []
    page.click(".objects-beside a:has-text('DOC')")
    source = page.get_attribute("iframe.object-page", "src")
    assert page.request.get(f"{installation.url}{source}").headers["content-type"] == "application/pdf"
