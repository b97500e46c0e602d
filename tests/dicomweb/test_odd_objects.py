"""Objects that aren't plain images: found, given back, and shown where a picture makes sense, else 406."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RTPlanStorage,
    RTStructureSetStorage,
    SpatialRegistrationStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from studies.models import Instance
from tests.dicomweb.retrieving import STUDY, UIDS, address, as_file, body_of, make_pdf_object, make_video, parts_of
from tests.factories import make_instance

pytestmark = pytest.mark.django_db
STUDY_URL = f"/dicom-web/studies/{STUDY}"


def real_file(name: str) -> bytes:
    return Path(str(pydicom.data.get_testdata_file(name))).read_bytes()


def report() -> bytes:
    dataset = Dataset()
    dataset.ValueType, dataset.ContentSequence = "CONTAINER", []
    return as_file(dataset, BasicTextSRStorage)


def slide() -> bytes:
    """Give six tiles of a whole slide image, each of one colour."""
    dataset = Dataset()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 6, 32, 32, 3
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = 96, 64
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = np.stack([np.full((32, 32, 3), (40 * n, 0, 200), np.uint8) for n in range(6)]).tobytes()
    dataset["PixelData"].VR = "OB"
    return as_file(dataset, VLWholeSlideMicroscopyImageStorage)


# Default form of /rendered, whether there's a thumbnail, default form by WADO-URI.
KINDS: dict[str, tuple[Callable[[], bytes], str, bool, str]] = {
    "slide": (slide, "image/jpeg", True, "image/jpeg"),
    "segmentation": (lambda: real_file("liver_expb.dcm"), "image/jpeg", True, "image/jpeg"),
    "dose": (lambda: real_file("rtdose.dcm"), "image/jpeg", True, "image/jpeg"),
    "ECG": (lambda: real_file("waveform_ecg.dcm"), "image/png", True, "image/jpeg"),
    "video": (lambda: make_video()[1], "video/mp4", True, "image/jpeg"),
    "report": (report, "text/html", False, "text/html"),
    "PDF": (lambda: make_pdf_object(pdf()), "application/pdf", True, "image/jpeg"),
    "structure set": (lambda: as_file(Dataset(), RTStructureSetStorage), "", False, "application/dicom"),
    "plan": (lambda: real_file("rtplan.dcm"), "", False, "application/dicom"),
    "empty plan": (lambda: as_file(Dataset(), RTPlanStorage), "", False, "application/dicom"),
    "registration": (lambda: as_file(Dataset(), SpatialRegistrationStorage), "", False, "application/dicom"),
}


def pdf() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (80, 60), "red").save(buffer, "PDF")
    return buffer.getvalue()


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_given_back_and_shown_or_406(
    kind: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    make, rendered, has_thumbnail, by_uri = KINDS[kind]
    content = make()
    (outcome,) = ingest_files(north, content)
    assert outcome.is_in, outcome.reason
    instance = Instance.objects.get()
    url = address(instance)
    study = instance.series.study.study_instance_uid
    assert len(radiologist.get(f"/dicom-web/instances?SOPInstanceUID={instance.sop_instance_uid}").json()) == 1
    assert body_of(radiologist.get(url, HTTP_ACCEPT="application/dicom; transfer-syntax=*")) == content
    assert radiologist.get(f"{url}/metadata").json()[0]["00080018"]["Value"] == [instance.sop_instance_uid]
    shown = radiologist.get(f"{url}/rendered")
    assert shown.status_code == (200 if rendered else 406)
    assert shown["Content-Type"].split(";")[0] == (rendered or "application/problem+json")
    body_of(shown)
    for thumbnail in (f"{url}/thumbnail", f"/dicom-web/studies/{study}/thumbnail"):
        assert radiologist.get(thumbnail).status_code == (200 if has_thumbnail else 406)
    whole = radiologist.get(f"/dicom-web/studies/{study}/rendered")
    assert whole.status_code == (200 if rendered else 406)
    body_of(whole)
    uri = (
        f"/wado?requestType=WADO&studyUID={study}&seriesUID={instance.series.series_instance_uid}"
        f"&objectUID={instance.sop_instance_uid}"
    )
    answer = radiologist.get(uri)
    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (200, by_uri)
    body_of(answer)


def test_tiles_come_one_by_one_in_any_compression(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, slide())
    url = address(Instance.objects.get())
    ((_, tile),) = parts_of(radiologist.get(f"{url}/frames/5", HTTP_ACCEPT='multipart/related; type="*/*"'))
    assert tile == bytes((160, 0, 200)) * 32 * 32
    picture = radiologist.get(f"{url}/frames/5/rendered", HTTP_ACCEPT="image/png")
    assert Image.open(BytesIO(picture.content)).getpixel((9, 9)) == (160, 0, 200)
    for media_type in ("image/jp2", "image/jls", "image/jpeg", "image/jphc"):
        accept = f'multipart/related; type="{media_type}"'
        assert len(parts_of(radiologist.get(f"{url}/frames/1,6", HTTP_ACCEPT=accept))) == 2


def test_colours_of_one_bit_are_not_guessed_at(north: Any, ingest_files: Any, radiologist: Client) -> None:
    dataset = pydicom.dcmread(BytesIO(slide()))
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    buffer = BytesIO()
    dataset.save_as(buffer)
    ingest_files(north, buffer.getvalue())
    url = address(Instance.objects.get())
    for below, accept in (("/frames/1", "image/jp2"), ("/rendered", "image/png"), ("", "image/jls")):
        assert radiologist.get(f"{url}{below}", HTTP_ACCEPT=accept).status_code in {200, 406}


def test_beside_compressed_images_what_cant_be_compressed_says_so(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    """Pixels of one bit, and objects without any, in a study that is asked for in JPEG 2000."""
    segmentation = pydicom.dcmread(BytesIO(real_file("liver_1frame.dcm")))
    segmentation.StudyInstanceUID = STUDY
    buffer = BytesIO()
    segmentation.save_as(buffer)
    ingest_files(north, make_instance(**UIDS), report(), buffer.getvalue())
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={JPEG2000Lossless}'
    parts = parts_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=accept))
    said = sorted(kind.rpartition("=")[2] for kind, _ in parts)
    assert said == sorted([JPEG2000Lossless, ExplicitVRLittleEndian, ExplicitVRLittleEndian])
    for kind, content in parts:
        assert pydicom.dcmread(BytesIO(content)).file_meta.TransferSyntaxUID == kind.rpartition("=")[2]


def test_a_study_without_images_is_shown_by_the_first_that_can_be_drawn(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, as_file(Dataset(), RTStructureSetStorage), report(), make_pdf_object(pdf()))
    thumbnail = radiologist.get(f"{STUDY_URL}/thumbnail", HTTP_ACCEPT="image/png")
    assert Image.open(BytesIO(thumbnail.content)).getpixel((20, 20))[0] > 200
    shown = radiologist.get(f"{STUDY_URL}/rendered")
    assert sorted(kind.split(";")[0] for kind, _ in parts_of(shown)) == ["application/pdf", "text/html"]
