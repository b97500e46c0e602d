"""Every kind of object is really drawn: in OHIF under our policy, else by our own pages. Pixels are looked at."""

from __future__ import annotations

import base64
import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Browser, Frame, Locator, Page
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import (
    MPEG2MPML,
    DigitalMammographyXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    UltrasoundMultiFrameImageStorage,
    VideoEndoscopicImageStorage,
    XRayAngiographicImageStorage,
    generate_uid,
)

from tests.e2e.browser import chromium, needs_chromium, needs_viewer, signed_in, until
from tests.e2e.measurements import measurement_report, written
from tests.e2e.pixel_kinds import pixel_kinds
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = [needs_chromium, needs_viewer]
ROOT = "1.2.826.0.4"
CT, MG, US, PDF, ECG, XA, FUSED, PIXELS, PLAN, FILM = (f"{ROOT}.{n}" for n in range(1, 11))
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

    yield structure_set(slices)
    yield written(measurement_report(slices, f"{CT}.6"))


def structure_set(slices: list[pydicom.Dataset]) -> bytes:
    """Give a structure whose contours are green squares of 80 mm (PS3.3 A.19)."""
    set_ = pydicom.dcmread(io.BytesIO(make_instance(StudyInstanceUID=CT, PatientID="KINDS", Modality="RTSTRUCT")))
    without_pixels(set_)
    set_.SOPClassUID = set_.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    set_.SeriesInstanceUID, set_.SeriesNumber, set_.SeriesDescription = f"{CT}.5", 50, "Contours"
    set_.StructureSetLabel, set_.StructureSetDate, set_.StructureSetTime = "TARGET", "20260901", "101500"
    frame, study, series = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(one) for one in slices]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", CT
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = f"{CT}.9", [study]
    set_.ReferencedFrameOfReferenceSequence = [frame]
    roi, observation, drawn = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    roi.ROINumber, roi.ReferencedFrameOfReferenceUID, roi.ROIName, roi.ROIGenerationAlgorithm = 1, f"{CT}.9", "PTV", ""
    observation.ObservationNumber, observation.ReferencedROINumber, observation.RTROIInterpretedType = 1, 1, "PTV"
    observation.ROIInterpreter = ""
    drawn.ROIDisplayColor, drawn.ReferencedROINumber, drawn.ContourSequence = [0, 255, 0], 1, []
    for one in slices:
        contour = pydicom.Dataset()
        contour.ContourImageSequence = [_reference(one)]
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
        z = float(one.ImagePositionPatient[2])
        contour.ContourData = [v for x, y in ((88, 88), (168, 88), (168, 168), (88, 168)) for v in (x, y, z)]
        drawn.ContourSequence.append(contour)
    set_.StructureSetROISequence, set_.RTROIObservationsSequence, set_.ROIContourSequence = (
        [roi],
        [observation],
        [drawn],
    )
    return written(set_)


def _reference(image: pydicom.Dataset) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def without_pixels(dataset: pydicom.Dataset) -> None:
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"):
        delattr(dataset, keyword)


def fused() -> Iterator[bytes]:
    """Give a CT and a PET of one examination; only the PET has a hot spot."""
    rows, columns = np.mgrid[:32, :32]
    body = ((rows - 16) ** 2 + (columns - 16) ** 2 < 150).astype(np.uint16)
    hot = ((rows - 12) ** 2 + (columns - 18) ** 2 < 9).astype(np.uint16)
    nuclide = pydicom.Dataset()
    nuclide.RadiopharmaceuticalStartTime, nuclide.RadionuclideTotalDose = "091500", "370000000"
    nuclide.RadionuclideHalfLife = "6586.2"
    pet = {
        "SOPClassUID": PositronEmissionTomographyImageStorage,
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"],
        "SeriesType": ["STATIC", "IMAGE"],
        "PatientWeight": "70",
        "RadiopharmaceuticalInformationSequence": [nuclide],
    }
    for modality, number, pixels, more in (("CT", 1, body * 1000, {}), ("PT", 2, body * 2000 + hot * 40000, pet)):
        for index in range(16):
            yield make_instance(
                pixels=pixels,
                StudyInstanceUID=FUSED,
                SeriesInstanceUID=f"{FUSED}.{number}",
                SeriesNumber=number,
                SeriesDescription=f"{modality} Corrected" if more else modality,
                SeriesDate="20260901",
                SeriesTime="101500",
                AcquisitionDate="20260901",
                AcquisitionTime="101500",
                FrameOfReferenceUID=f"{FUSED}.9",
                PatientID="KINDS7",
                Modality=modality,
                SOPInstanceUID=f"{FUSED}.{number}.{index + 1}",
                InstanceNumber=index + 1,
                ImagePositionPatient=[0, 0, index * 8],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[8, 8],
                SliceThickness=8,
                PositionReferenceIndicator="",
                RescaleIntercept=0,
                RescaleSlope=1,
                **more,
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


def cine(sop_class_uid: str, modality: str, study: str) -> bytes:
    frames = np.stack([np.full((32, 32), 20 * n, np.uint16) + np.arange(32, dtype=np.uint16) for n in range(10)])
    return make_instance(
        pixels=frames,
        SOPClassUID=sop_class_uid,
        Modality=modality,
        StudyInstanceUID=study,
        PatientID=f"KINDS {modality}",
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
    without_pixels(dataset)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return written(dataset)


def waveform() -> bytes:
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm")))
    dataset.StudyInstanceUID, dataset.PatientID, dataset.SeriesInstanceUID = ECG, "KINDS5", f"{ECG}.1"
    return written(dataset)


def plan() -> bytes:
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("rtplan.dcm")))
    dataset.StudyInstanceUID, dataset.PatientID, dataset.SeriesInstanceUID = PLAN, "KINDS9", f"{PLAN}.1"
    return written(dataset)


def video() -> bytes:
    """Give an endoscopy in MPEG-2, which browsers don't play."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="mpegts") as container:
        track = container.add_stream("mpeg2video", rate=25)
        track.width = track.height = 64
        track.pix_fmt = "yuv420p"
        for number in range(25):
            picture = np.full((64, 64, 3), 50 + number * 8, np.uint8)
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(track.encode())
    dataset = pydicom.dcmread(io.BytesIO(make_instance(StudyInstanceUID=FILM, PatientID="KINDS10", Modality="ES")))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = VideoEndoscopicImageStorage
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "YBR_PARTIAL_420", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.NumberOfFrames = 8, 8, 7, 25
    dataset.FrameTime, dataset.FrameIncrementPointer = 40, 0x00181063
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return written(dataset)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    folder: Path = tmp_path_factory.mktemp("kinds")
    (folder / "in").mkdir()
    films = [cine(UltrasoundMultiFrameImageStorage, "US", US), cine(XRayAngiographicImageStorage, "XA", XA)]
    everything = [*ct_with_marks(), *mammograms(), *films, letter(), waveform(), *fused(), plan(), video()]
    everything += [content for _, content in pixel_kinds(PIXELS)]
    for number, content in enumerate(everything):
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


def pixels_of(part: Locator) -> np.ndarray[Any, Any]:
    """Give what's seen of a part of the page, marks included, as rows of red, green and blue."""
    with Image.open(io.BytesIO(part.screenshot())) as seen:
        return np.asarray(seen.convert("RGB")).astype(int)


def wait_for_pixels(page: Page, part: Locator, is_it: Callable[[Any, Any, Any], Any], least: int) -> int:
    """Wait until so many pixels are so; give how many there are. Raises AssertionError after a minute."""
    count = 0
    for _ in range(60):
        count = int(np.count_nonzero(is_it(*np.moveaxis(pixels_of(part), -1, 0))))
        if count >= least:
            return count
        page.wait_for_timeout(1000)
    raise AssertionError(f"{count} pixels")


def is_green(red: Any, green: Any, blue: Any) -> Any:
    return (green > 150) & (red < 110) & (blue < 110)


def open_images(atrium: Atrium, page: Page, protocol: str = "default") -> Locator:
    """Open the CT in OHIF alone; give its first viewport once the image is drawn."""
    page.goto(f"{atrium.url}/viewer/viewer?StudyInstanceUIDs={CT}&hangingProtocolId={protocol}")
    until(page, f"({SEEN})() > 100000", seconds=90)
    return page.locator("[data-cy=viewport-pane]").first


def test_contours_of_a_structure_set_are_drawn_over_its_images(installation: Atrium, page: Page) -> None:
    pane = open_images(installation, page)
    assert np.count_nonzero(is_green(*np.moveaxis(pixels_of(pane), -1, 0))) < 50
    page.dblclick('[data-cy="study-browser-thumbnail-no-image"]:has-text("RTSTRUCT")')
    wait_for_pixels(page, pane, is_green, 300)


def test_the_measurements_of_another_maker_are_drawn(installation: Atrium, page: Page) -> None:
    # Again: what the browser has kept is there sooner than OHIF knows which measurements are to be drawn.
    for _ in range(3):
        pane = open_images(installation, page)
        assert pane.locator("svg.svg-layer line, svg.svg-layer path").count() == 0
        page.dblclick('[data-cy="study-browser-thumbnail-no-image"]:has-text("SR")')
        pane.locator("svg.svg-layer line, svg.svg-layer path, svg.svg-layer polyline").first.wait_for(state="attached")
        pane.locator("svg.svg-layer text", has_text="160").wait_for(state="attached")


def test_three_planes_are_cut_from_a_volume(installation: Atrium, page: Page) -> None:
    open_images(installation, page, "mpr")
    # Of the cylinder: how much wider than high it is in each plane.
    shapes = """[...document.querySelectorAll("[data-cy=viewport-pane] canvas.cornerstone-canvas")].map((canvas) => {
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let [left, right, top, bottom] = [canvas.width, -1, canvas.height, -1];
      for (let y = 0; y < canvas.height; y += 1) {
        for (let x = 0; x < canvas.width; x += 1) {
          if (data[4 * (y * canvas.width + x)] < 120) continue;
          [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
        }
      }
      return (right - left) / (bottom - top);
    }).sort((one, other) => one - other)"""
    three = "([above, side, front, ...more]) => above > 0.8 && above < 1.25 && side > 3 && front > 3 && !more.length"
    until(page, f"({three})({shapes})", seconds=90)


def test_pet_is_fused_with_ct(installation: Atrium, page: Page) -> None:
    page.goto(f"{installation.url}/viewer/open/{FUSED}/")
    page.wait_for_url("**/viewer/tmtv**")
    coloured = """[...document.querySelectorAll("canvas.cornerstone-canvas")].map((canvas) => {
      if (canvas.width < 20) return [0, 0];
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const greys = new Set();
      let colours = 0;
      for (let i = 0; i < data.length; i += 4) {
        greys.add(data[i]);
        const parts = data.slice(i, i + 3);
        if (Math.max(...parts) - Math.min(...parts) > 60) colours += 1;
      }
      return [greys.size, colours];
    })"""
    # The CT's and the PET's three planes and the projection are grey; those that fuse both have the PET's colours.
    until(page, f"{coloured}.filter(([, colours]) => colours > 100).length >= 3", seconds=120)
    until(page, f"{coloured}.filter(([greys]) => greys > 1).length === 10", seconds=60)
    assert page.evaluate(f"{coloured}.filter(([, colours]) => colours > 100).length") == 3, page.evaluate(coloured)


def test_a_segmentation_is_drawn_over_its_images(installation: Atrium, page: Page) -> None:
    open_images(installation, page)
    assert page.evaluate(COLOURED) == 0
    page.dblclick('[data-cy="study-browser-thumbnail-no-image"]:has-text("SEG")')
    until(page, f"({COLOURED})() > 500", seconds=60)


def test_a_presentation_state_is_drawn_by_our_own_page(installation: Atrium, page: Page) -> None:
    page.goto(f"{installation.url}/studies/{CT}/")
    page.click(".objects-beside a:has-text('PR')")
    page.wait_for_selector(".object-pictures img")
    until(page, "document.querySelector('.object-pictures img')?.complete")
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


@pytest.mark.parametrize("study", [US, XA])
def test_a_film_plays(installation: Atrium, page: Page, study: str) -> None:
    viewer = open_study(installation, page, study)
    # A film that plays before its first frame is drawn is stopped by it.
    until(viewer, f"({SEEN})() > 0")
    viewer.click('[data-cy="cine-player-play-pause"]')
    seen = set()
    for _ in range(300):
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
    until(page, "document.querySelector('#viewer')?.contentDocument?.querySelector('object')?.data.startsWith('blob:')")
    page.wait_for_timeout(500)
    assert refused == []
    page.click(".objects-beside a:has-text('DOC')")
    source = page.get_attribute("iframe.object-page", "src")
    assert page.request.get(f"{installation.url}{source}").headers["content-type"] == "application/pdf"


def test_every_kind_of_pixels_is_drawn_in_ohif_as_the_server_draws_it(installation: Atrium, page: Page) -> None:
    desk = str(uuid.uuid4())
    # Without the list of series, whose pictures would be drawn, too.
    page.set_viewport_size({"width": 900, "height": 700})
    page.goto(f"{installation.url}/viewer/viewer?StudyInstanceUIDs={PIXELS}&hangingProtocolId=default&desk={desk}")
    until(page, f"({SEEN})() > 100000", seconds=90)
    page.evaluate(
        """desk => {
      window.said = [];
      window.asking = new BroadcastChannel(`atrium.desk.${desk}`);
      asking.onmessage = ({ data }) => said.push(data);
    }""",
        desk,
    )
    wrong = []
    for number, (name, _) in enumerate(pixel_kinds(PIXELS), 1):
        sop = f"{PIXELS}.{number}.1"
        page.evaluate(
            "asked => { said.length = 0; asking.postMessage({ from: 'desk', type: 'jump', ...asked }); }",
            {"about": PIXELS, "sop": sop},
        )
        path = f"/dicom-web/studies/{PIXELS}/series/{PIXELS}.{number}/instances/{sop}/rendered"
        answer = page.request.get(f"{installation.url}{path}", headers={"Accept": "image/png"})
        expected = thumbnail(Image.open(io.BytesIO(answer.body())))
        difference = 255.0
        for _ in range(300):
            if page.evaluate("said.some(one => one.type === 'jumped' && one.isFound)"):
                drawn = page.evaluate("document.querySelector('canvas.cornerstone-canvas').toDataURL('image/png')")
                with Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2]))) as canvas:
                    side = min(canvas.size)
                    left, top = ((length - side) // 2 for length in canvas.size)
                    shown = thumbnail(canvas.crop((left, top, left + side, top + side)))
                difference = float(np.abs(shown - expected).mean())
                # Without a window each spreads the values in its own way.
                if difference < 12:
                    break
            page.wait_for_timeout(100)
        else:
            wrong.append((name, difference))
    page.set_viewport_size({"width": 1600, "height": 900})
    assert wrong == []


def thumbnail(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX)).astype(float)


def test_a_film_that_browsers_dont_play_is_played_all_the_same(installation: Atrium, page: Page) -> None:
    viewer = open_study(installation, page, FILM)
    # Whole, not frame by frame as pictures.
    asked = r"performance.getEntriesByType('resource').some(one => /instances\/[\d.]+\/rendered$/.test(one.name))"
    until(viewer, f"{asked} && ({SEEN})() > 100000")
    page.click(".objects-beside a:has-text('ES')")
    until(page, "document.querySelector('.object-picture video')?.readyState > 1")


def test_a_plan_comes_as_a_page_of_ours_where_the_images_would_be(installation: Atrium, page: Page) -> None:
    page.goto(f"{installation.url}/studies/{PLAN}/")
    page.wait_for_selector("#viewer-wait", state="hidden")
    shown = page.frame_locator("#viewer")
    shown.locator("h1", has_text="RT Plan").wait_for()
    assert not shown.locator(".topbar").is_visible()
