"""WADO-RS and WADO-URI: the form that comes where none is named, and what wildcards stand for (PS3.18 §8.7.3)."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HEVCMP51,
    MPEG2MPML,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from studies.archive import objects, transcoding
from studies.models import Instance
from tests.dicomweb.retrieving import UIDS, address, body_of, make_video, parts_of
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
PIXELS = np.random.default_rng(5).integers(0, 4096, (3, 64, 70)).astype(np.uint16)
OCTETS = "application/octet-stream"
RELATED_OCTETS, RELATED_DICOM = f'multipart/related; type="{OCTETS}"', 'multipart/related; type="application/dicom"'
WITHOUT_LOSS = (
    "CT1_J2KR.dcm",
    "CT2_RLE.dcm",
    "MR2_JPLL.dcm",
    "MR1_JLSL.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "rtplan.dcm",
)
WITH_LOSS = ("SC1_JPLY.dcm", "CT1_JLSN.dcm", "US1_J2KI.dcm")


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


@pytest.fixture
def put(shared: Path, north: Any, ingest_files: Any) -> Callable[[str], tuple[Path, Instance]]:
    def into(name: str) -> tuple[Path, Instance]:
        ours = shared / "dicom" / "codecs" / name
        path = ours if ours.exists() else Path(str(pydicom.data.get_testdata_file(name)))
        (outcome,) = ingest_files(north, path)
        assert outcome.is_in, outcome.reason
        return path, Instance.objects.select_related("series__study").get()

    return into


def every_level(instance: Instance) -> tuple[str, str, str]:
    own = address(instance)
    series = own.rpartition("/instances/")[0]
    return series.rpartition("/series/")[0], series, own


@pytest.mark.parametrize("name", WITHOUT_LOSS)
def test_files_come_in_explicit_vr_little_endian_by_default(name: str, put: Any, radiologist: Client) -> None:
    path, instance = put(name)
    expected = pydicom.dcmread(path)
    contents = [body_of(radiologist.get(address(instance), HTTP_ACCEPT="application/dicom"))]
    for url in every_level(instance):
        for accept in ("*/*", RELATED_DICOM, "multipart/*"):
            ((kind, content),) = parts_of(radiologist.get(url, HTTP_ACCEPT=accept))
            assert kind == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
            contents.append(content)
    uri = {"requestType": "WADO", "contentType": "application/dicom", "objectUID": instance.sop_instance_uid}
    series = instance.series
    uri |= {"studyUID": series.study.study_instance_uid, "seriesUID": series.series_instance_uid}
    contents.append(body_of(radiologist.get("/wado", uri)))
    assert set(contents) == {contents[0]}
    given = pydicom.dcmread(BytesIO(contents[0]))
    assert given.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert given.SOPInstanceUID == expected.SOPInstanceUID
    expected.pop("DataSetTrailingPadding", None)
    assert {e.tag for e in given} == {e.tag for e in expected}
    if instance.number_of_frames:
        assert np.array_equal(given.pixel_array, expected.pixel_array)


@pytest.mark.parametrize("name", [*WITHOUT_LOSS, *WITH_LOSS])
def test_a_star_asks_for_the_bytes_that_were_stored(name: str, put: Any, radiologist: Client) -> None:
    path, instance = put(name)
    alone = radiologist.get(address(instance), HTTP_ACCEPT="application/dicom; transfer-syntax=*")
    assert body_of(alone) == path.read_bytes()
    assert alone["Content-Type"] == f"application/dicom; transfer-syntax={instance.transfer_syntax_uid}"
    by_default = radiologist.get(address(instance), HTTP_ACCEPT="application/dicom")
    assert (by_default["ETag"] == alone["ETag"]) == (name in WITH_LOSS)
    for url in every_level(instance):
        ((_, content),) = parts_of(radiologist.get(url, HTTP_ACCEPT=f"{RELATED_DICOM}; transfer-syntax=*"))
        assert content == path.read_bytes()


@pytest.mark.parametrize("name", WITH_LOSS)
def test_what_lost_something_comes_as_it_is(name: str, put: Any, radiologist: Client) -> None:
    path, instance = put(name)
    alone = radiologist.get(address(instance), HTTP_ACCEPT="application/dicom")
    assert body_of(alone) == path.read_bytes()
    assert alone["Content-Type"] == f"application/dicom; transfer-syntax={instance.transfer_syntax_uid}"
    for url in every_level(instance):
        assert [content for _, content in parts_of(radiologist.get(url))] == [path.read_bytes()]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("name", ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "CT1_J2KR.dcm"])
def test_what_shall_not_be_used_on_the_web_is_not_given(syntax: str, name: str, put: Any, radiologist: Client) -> None:
    _, instance = put(name)
    for url in every_level(instance):
        for kind in (RELATED_DICOM, "application/zip", RELATED_OCTETS, "application/dicom"):
            answer = radiologist.get(url, HTTP_ACCEPT=f"{kind}; transfer-syntax={syntax}")
            assert answer.status_code == 406
    for below in ("/frames/1", "/pixeldata", "/bulkdata"):
        answer = radiologist.get(address(instance, below), HTTP_ACCEPT=f"{RELATED_OCTETS}; transfer-syntax={syntax}")
        assert answer.status_code == 406


def test_native_pixels_follow_a_new_header_from_storage(
    put: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, instance = put("MR_small_implicit.dcm")

    def is_not_read(instance: Instance) -> bytes:
        raise AssertionError

    monkeypatch.setattr(objects, "read_instance", is_not_read)
    given = pydicom.dcmread(BytesIO(body_of(radiologist.get(address(instance), HTTP_ACCEPT="application/dicom"))))
    assert given.PixelData == pydicom.dcmread(path).PixelData


def test_what_is_stored_as_it_is_given_is_not_read_through(
    put: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, instance = put("SC1_JPLY.dcm")
    monkeypatch.setattr(objects, "read_dataset", None)
    assert radiologist.get(address(instance), HTTP_ACCEPT="application/dicom").status_code == 200
    assert body_of(radiologist.get(address(instance)))


def test_what_is_too_long_uncompressed_comes_as_stored(
    put: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, instance = put("CT2_RLE.dcm")
    monkeypatch.setattr(transcoding, "LONGEST_ELEMENT", 1000)
    alone = radiologist.get(address(instance), HTTP_ACCEPT="application/dicom")
    assert body_of(alone) == path.read_bytes()
    assert alone["Content-Type"] == f"application/dicom; transfer-syntax={instance.transfer_syntax_uid}"
    ((kind, content),) = parts_of(radiologist.get(address(instance)))
    assert (kind, content) == (alone["Content-Type"], path.read_bytes())
    asked = f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    assert radiologist.get(address(instance), HTTP_ACCEPT=asked).status_code == 406


@pytest.mark.parametrize("accept", ["image/*", 'multipart/related; type="image/*"', "text/html, image/*;q=0.1"])
def test_any_image_media_type_is_one_that_can_be_given(
    accept: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_instance(**UIDS, pixels=PIXELS))
    instance = Instance.objects.get()
    kind = f"image/jpeg; transfer-syntax={JPEGLosslessSV1}"
    for url in (*every_level(instance), *(address(instance, below) for below in ("/bulkdata", "/pixeldata"))):
        assert [kind for kind, _ in parts_of(radiologist.get(url, HTTP_ACCEPT=accept))] == [kind] * 3
    one = radiologist.get(address(instance, "/frames/1"), HTTP_ACCEPT=accept)
    assert one["Content-Type"] == kind or [k for k, _ in parts_of(one)] == [kind]
    other = radiologist.get(address(instance, "/frames/1"), HTTP_ACCEPT=f"image/jpeg;q=0, {accept}")
    assert "image/jls" in other["Content-Type"]


def test_wildcards_take_what_is_stored_first(put: Any, radiologist: Client) -> None:
    _, instance = put("CT1_J2KR.dcm")
    for accept in ("image/*", "*/*", "multipart/*", 'multipart/related; type="image/*"'):
        answer = radiologist.get(address(instance, "/frames/1"), HTTP_ACCEPT=accept)
        kind = answer["Content-Type"] if accept == "image/*" else parts_of(answer)[0][0]
        assert kind == "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90"
    for below in ("/metadata", "/rendered", "/thumbnail", "/bulkdata", "/pixeldata", "/bulkdata/7FE00010", ""):
        answer = radiologist.get(address(instance, below), HTTP_ACCEPT="multipart/*")
        assert answer["Content-Type"].startswith("multipart/related"), below
        assert parts_of(answer)
    wanted = radiologist.get(address(instance, "/pixeldata"), HTTP_ACCEPT=f"*/*;q=0.5, {RELATED_OCTETS};q=0.6")
    assert parts_of(wanted)[0][0].startswith(OCTETS)


@pytest.mark.parametrize(
    ("codec", "container", "syntax", "media_type"),
    [("mpeg2video", "mpegts", MPEG2MPML, "video/mpeg2"), ("libx264", "mp4", HEVCMP51, "video/H265")],
)
def test_videos_are_named_by_their_media_type_everywhere(
    codec: str, container: str, syntax: str, media_type: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    # What is in the stream isn't looked at.
    stream, content = make_video(codec=codec, container_format=container, syntax=syntax)
    ingest_files(north, content)
    instance = Instance.objects.get()
    asked = (media_type, media_type.lower(), f'multipart/related; type="{media_type}"', "video/*", "*/*")
    for below in ("/frames/1", "/bulkdata/7FE00010", "/pixeldata", "/bulkdata"):
        for accept in asked:
            for form in ({"HTTP_ACCEPT": accept}, {"query_params": {"accept": accept}, "HTTP_ACCEPT": "text/html"}):
                answer = radiologist.get(address(instance, below), **form)
                assert answer.status_code == 200, (below, accept)
                is_multipart = answer["Content-Type"].startswith("multipart")
                kind, body = parts_of(answer)[0] if is_multipart else (answer["Content-Type"], body_of(answer))
                assert kind.split(";")[0] == media_type
                assert body.rstrip(b"\0") == stream.rstrip(b"\0")
        assert radiologist.get(address(instance, below), HTTP_ACCEPT="video/mp4").status_code == 406


@pytest.mark.parametrize("syntax", [MPEG2MPML, f"{MPEG2MPML}.1"])
def test_a_video_in_fragments_is_one_stream(syntax: str, north: Any, ingest_files: Any, radiologist: Client) -> None:
    stream, content = make_video(codec="mpeg2video", container_format="mpegts", syntax=syntax)
    dataset = pydicom.dcmread(BytesIO(content))
    dataset.PixelData = encapsulate([stream], fragments_per_frame=5)
    dataset["PixelData"].is_undefined_length = True
    buffer = BytesIO()
    dataset.save_as(buffer)
    ingest_files(north, buffer.getvalue())
    instance = Instance.objects.get()
    url = address(instance, "/bulkdata/7FE00010")
    whole = body_of(radiologist.get(url))
    assert whole.rstrip(b"\0") == stream.rstrip(b"\0")
    for first, last in ((0, 9), (len(stream) // 5 - 40, len(stream) // 5 + 50), (7, len(whole) - 2)):
        part = radiologist.get(url, HTTP_RANGE=f"bytes={first}-{last}")
        assert (part.status_code, part["Content-Type"]) == (206, "video/mpeg2")
        assert body_of(part) == whole[first : last + 1]
    assert radiologist.get(address(instance, "/frames/1"), HTTP_ACCEPT="video/*").content == whole


def test_octets_of_an_instance_are_its_bulk_data(put: Any, radiologist: Client) -> None:
    _, instance = put("waveform_ecg.dcm")
    for url in every_level(instance):
        octets = parts_of(radiologist.get(url, HTTP_ACCEPT=RELATED_OCTETS))
        assert octets == parts_of(radiologist.get(f"{url}/bulkdata", HTTP_ACCEPT=RELATED_OCTETS))
        assert sum(len(content) for _, content in octets) > 10_000


def test_each_form_has_its_own_validator(put: Any, radiologist: Client) -> None:
    _, instance = put("CT1_J2KR.dcm")
    forms = (
        *("application/dicom", "application/dicom; transfer-syntax=*", RELATED_DICOM, OCTETS, "application/zip"),
        *(f"{RELATED_DICOM}; transfer-syntax={syntax}" for syntax in ("*", JPEGLosslessSV1)),
        *('multipart/related; type="image/jls"', "image/jp2", "image/*, image/jp2;q=0", "*/*, application/dicom;q=0"),
    )
    for below in ("", "/frames/1"):
        given: dict[str, set[bytes]] = {}
        for accept in forms:
            answer = radiologist.get(address(instance, below), HTTP_ACCEPT=accept)
            if answer.status_code == 200:
                given.setdefault(answer["ETag"], set()).add(body_of(answer))
        assert len(given) > 3
        assert all(len(bodies) == 1 for bodies in given.values())
