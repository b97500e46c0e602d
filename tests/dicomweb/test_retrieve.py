"""WADO-RS: what is stored comes back, to those who may have it."""

from __future__ import annotations

import json
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from PIL import Image

from studies.models import Instance, Study
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
OHIF_FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def parts_of(response: Any) -> list[tuple[str, bytes]]:
    """Split a multipart answer by an independent parser."""
    body = b"".join(response.streaming_content) if response.streaming else response.content
    message = message_from_bytes(b"Content-Type: " + response["Content-Type"].encode() + b"\r\n\r\n" + body)
    return [(part["Content-Type"], part.get_payload(decode=True)) for part in message.get_payload()]  # type: ignore


def instance_url(instance: Instance) -> str:
    series = instance.series
    return (
        f"/dicom-web/studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )


@pytest.fixture
def radiologist(client_of: Any) -> Client:
    browser: Client = client_of("radiologist")
    return browser


def test_an_instance_comes_back_as_it_came(north: Any, ingest_files: Any, radiologist: Client) -> None:
    content = make_instance()
    ingest_files(north, content)
    alone = radiologist.get(instance_url(Instance.objects.get()), HTTP_ACCEPT="application/dicom")
    assert alone.getvalue() == content  # type: ignore[attr-defined]
    study = Study.objects.get().study_instance_uid
    ((kind, body),) = parts_of(
        radiologist.get(f"/dicom-web/studies/{study}", HTTP_ACCEPT='multipart/related; type="application/dicom"')
    )
    assert kind.startswith("application/dicom")
    assert body == content


def test_frames_come_in_the_order_asked_and_as_often(north: Any, ingest_files: Any, radiologist: Client) -> None:
    pixels = np.random.default_rng(1).integers(0, 60000, (3, 32, 48), dtype=np.uint16)
    ingest_files(north, make_instance(pixels=pixels))
    url = instance_url(Instance.objects.get())
    parts = parts_of(radiologist.get(f"{url}/frames/3,1,3", HTTP_ACCEPT=OHIF_FRAMES))
    assert [body for _, body in parts] == [pixels[n].tobytes() for n in (2, 0, 2)]
    assert radiologist.get(f"{url}/frames/4", HTTP_ACCEPT=OHIF_FRAMES).status_code == 404
    assert radiologist.get(f"{url}/frames/0", HTTP_ACCEPT=OHIF_FRAMES).status_code == 400


def test_compressed_frames_come_as_stored_or_decoded(
    shared: Path, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    path = shared / "dicom" / "codecs" / "CT1_J2KR.dcm"
    ingest_files(north, path)
    url = instance_url(Instance.objects.get())
    ((kind, body),) = parts_of(radiologist.get(f"{url}/frames/1", HTTP_ACCEPT=OHIF_FRAMES))
    assert kind == "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90"
    dataset = pydicom.dcmread(path)
    assert body == next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    plain = 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'
    ((_, samples),) = parts_of(radiologist.get(f"{url}/frames/1", HTTP_ACCEPT=plain))
    assert samples == dataset.pixel_array.tobytes()


def test_big_endian_samples_are_turned(north: Any, ingest_files: Any, radiologist: Client) -> None:
    path = pydicom.data.get_testdata_file("MR_small_bigendian.dcm")
    ingest_files(north, Path(path))
    ((_, samples),) = parts_of(
        radiologist.get(f"{instance_url(Instance.objects.get())}/frames/1", HTTP_ACCEPT=OHIF_FRAMES)
    )
    assert samples == pydicom.dcmread(path).pixel_array.astype("<i2").tobytes()


def test_metadata_holds_every_instance_and_says_when_unchanged(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    ingest_files(north, *[make_instance(**uids, InstanceNumber=n) for n in (2, 1)])
    url = "/dicom-web/studies/1.2.3/series/1.2.3.4/metadata"
    answer = radiologist.get(url, HTTP_ACCEPT="application/dicom+json")
    assert [i["00200013"]["Value"][0] for i in answer.json()] == [1, 2]
    assert answer.json()[0]["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
    assert radiologist.get(url, HTTP_IF_NONE_MATCH=answer["ETag"]).status_code == 304
    ingest_files(north, make_instance(**uids, InstanceNumber=3))
    assert len(radiologist.get(url, HTTP_IF_NONE_MATCH=answer["ETag"]).json()) == 3
    assert len(radiologist.get("/dicom-web/studies/1.2.3/metadata").json()) == 3


def test_metadata_of_every_real_file_is_valid_dicom_json(
    shared: Path, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    files = [p for p in sorted((shared / "dicom").rglob("*.dcm")) if "malformed" not in p.parts]
    ingest_files(north, *files)
    for study in Study.objects.all():
        answer = radiologist.get(f"/dicom-web/studies/{study.study_instance_uid}/metadata")
        for content in json.loads(answer.content):
            assert pydicom.Dataset.from_json(content, lambda *_: b"").SOPInstanceUID


def test_long_binary_values_come_as_bulk_data(north: Any, ingest_files: Any, radiologist: Client) -> None:
    secret = bytes(range(256)) * 20
    ingest_files(north, make_instance(EncapsulatedDocument=secret))
    url = instance_url(Instance.objects.get())
    element = radiologist.get(f"{url}/metadata").json()[0]["00420011"]
    assert "InlineBinary" not in element
    answer = radiologist.get(f"{url}/bulkdata/00420011", HTTP_ACCEPT="application/octet-stream")
    assert answer.content == secret
    assert radiologist.get(f"{url}/bulkdata/00100010").status_code == 404


def test_a_picture_has_the_window_and_size_asked_for(north: Any, ingest_files: Any, radiologist: Client) -> None:
    pixels = np.full((40, 80), 100, dtype=np.uint16)
    ingest_files(north, make_instance(pixels=pixels))
    url = instance_url(Instance.objects.get())
    dark = radiologist.get(f"{url}/rendered?window=1000,100,linear&viewport=20,20", HTTP_ACCEPT="image/png")
    picture = Image.open(BytesIO(dark.content))
    assert picture.size == (20, 10)
    assert np.asarray(picture).max() == 0
    bright = radiologist.get(f"{url}/rendered?window=0,100,linear", HTTP_ACCEPT="image/png")
    assert np.asarray(Image.open(BytesIO(bright.content))).min() == 255
    assert radiologist.get(f"{url}/thumbnail")["Content-Type"] == "image/jpeg"
    assert radiologist.get(f"{url}/rendered", HTTP_ACCEPT="text/html").status_code == 406


@pytest.mark.parametrize("stranger", ["southradiologist", "compliance", None])
def test_another_sites_study_is_not_there(stranger: str | None, north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, make_instance())
    instance = Instance.objects.get()
    url = instance_url(instance)
    study = f"/dicom-web/studies/{instance.series.study.study_instance_uid}"
    browser = client_of(stranger) if stranger else Client()
    for path in (study, f"{study}/metadata", f"{study}/thumbnail", url, f"{url}/frames/1", f"{url}/rendered"):
        assert browser.get(path).status_code in {401, 403, 404}
    found = browser.get("/dicom-web/studies")
    assert found.status_code in {204, 401, 403}
