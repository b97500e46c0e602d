"""WADO-RS: every form in which instances, frames, metadata and bulk data can be asked for."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from shutil import which
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from portal.audit.models import AuditEvent, ViewingWindow
from portal.audit.services import flush_counts
from studies.archive.corrections import correct_study
from studies.models import Instance, Study
from tests.dicomweb.retrieving import (
    SERIES,
    STUDY,
    UIDS,
    address,
    as_file,
    body_of,
    make_pdf_object,
    make_rle,
    make_video,
    parts_of,
)
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY_URL = f"/dicom-web/studies/{STUDY}"
SERIES_URL = f"{STUDY_URL}/series/{SERIES}"
PIXELS = np.random.default_rng(2).integers(0, 4096, (3, 64, 70)).astype(np.uint16)


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


@pytest.fixture
def instance(north: Any, ingest_files: Any) -> Instance:
    ingest_files(north, make_instance(**UIDS, pixels=PIXELS))
    return Instance.objects.select_related("series__study").get()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless, JPEGLSLossless, JPEGLosslessSV1, RLELossless])
def test_a_study_comes_in_the_transfer_syntax_asked_for(syntax: str, instance: Instance, radiologist: Client) -> None:
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'
    for url in (STUDY_URL, SERIES_URL, address(instance)):
        ((kind, content),) = parts_of(radiologist.get(url, HTTP_ACCEPT=accept))
        assert kind == f"application/dicom; transfer-syntax={syntax}"
        dataset = pydicom.dcmread(BytesIO(content))
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert np.array_equal(dataset.pixel_array, PIXELS)


def test_the_most_wanted_form_that_can_be_given_is_given(instance: Instance, radiologist: Client) -> None:
    accept = (
        f"application/dicom; transfer-syntax={JPEG2000Lossless}; q=0.4,"
        f" application/dicom; transfer-syntax={RLELossless}; q=0.8,"
        f" application/dicom; transfer-syntax={JPEGBaseline8Bit}"
    )
    alone = radiologist.get(address(instance), HTTP_ACCEPT=accept)
    assert pydicom.dcmread(BytesIO(body_of(alone))).file_meta.TransferSyntaxUID == RLELossless
    by_query = radiologist.get(f"{address(instance)}?accept=application/dicom", HTTP_ACCEPT="text/plain")
    assert by_query["Content-Type"] == "application/dicom"


@pytest.mark.parametrize("accept", ["text/html", "image/jxl", f"application/dicom; transfer-syntax={JPEGBaseline8Bit}"])
def test_what_cant_be_given_is_406_with_what_can(accept: str, instance: Instance, radiologist: Client) -> None:
    for url in (STUDY_URL, SERIES_URL, address(instance)):
        answer = radiologist.get(url, HTTP_ACCEPT=accept)
        assert answer.status_code == 406
        assert "application/zip" in answer.json()["available"]


def test_pixels_alone_come_as_octets_or_images(instance: Instance, radiologist: Client) -> None:
    octets = radiologist.get(STUDY_URL, HTTP_ACCEPT='multipart/related; type="application/octet-stream"')
    ((kind, content),) = parts_of(octets)
    assert kind == f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    assert content == PIXELS.tobytes()
    images = parts_of(radiologist.get(SERIES_URL, HTTP_ACCEPT='multipart/related; type="image/jls"'))
    assert [kind for kind, _ in images] == [f"image/jls; transfer-syntax={JPEGLSLossless}"] * 3


@pytest.mark.parametrize(
    ("media_type", "syntax"),
    [
        *(("image/jp2", JPEG2000Lossless), ("image/jphc", HTJ2KLossless), ("image/jls", JPEGLSLossless)),
        *(("image/dicom-rle", RLELossless), ("image/jpeg", JPEGLosslessSV1)),
    ],
)
def test_frames_are_compressed_as_asked(media_type: str, syntax: str, instance: Instance, radiologist: Client) -> None:
    accept = f'multipart/related; type="{media_type}"'
    parts = parts_of(radiologist.get(address(instance, "/frames/3,1"), HTTP_ACCEPT=accept))
    assert [kind for kind, _ in parts] == [f"{media_type}; transfer-syntax={syntax}"] * 2
    dataset = pydicom.dcmread(BytesIO(make_instance(pixels=PIXELS[:2])))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([content for _, content in parts])
    dataset["PixelData"].is_undefined_length = True
    assert np.array_equal(dataset.pixel_array, PIXELS[[2, 0]])


def test_a_compressed_frame_comes_in_another_compression(
    shared: Path, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    path = shared / "dicom" / "codecs" / "CT1_JLSN.dcm"
    ingest_files(north, path)
    answer = radiologist.get(address(Instance.objects.get(), "/frames/1"), HTTP_ACCEPT="image/jp2")
    dataset = pydicom.dcmread(path)
    wanted = dataset.pixel_array
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([answer.content])
    dataset["PixelData"].is_undefined_length = True
    assert np.array_equal(dataset.pixel_array, wanted)


@pytest.mark.parametrize(
    ("below", "accept"),
    [
        ("", f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"),
        ("", f"application/dicom; transfer-syntax={JPEG2000Lossless}"),
        ("", 'multipart/related; type="application/octet-stream"'),
        ("/pixeldata", 'multipart/related; type="application/octet-stream"'),
        ("/frames/1", "application/octet-stream"),
        ("/frames/1", 'multipart/related; type="application/octet-stream"'),
        ("/bulkdata/7FE00010", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("frame", [b"", b"no segments at all"])
def test_a_frame_that_cannot_be_decoded_is_406(
    frame: bytes, below: str, accept: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    dataset = pydicom.dcmread(BytesIO(make_instance(**UIDS)))
    dataset.file_meta.TransferSyntaxUID = RLELossless
    item = b"\xfe\xff\x00\xe0" + len(frame).to_bytes(4, "little") + frame
    dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    buffer = BytesIO()
    dataset.save_as(buffer)
    (outcome,) = ingest_files(north, buffer.getvalue())
    assert outcome.is_in, outcome.reason
    answer = radiologist.get(address(Instance.objects.get(), below), HTTP_ACCEPT=accept)
    assert answer.status_code == 406
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("below", "refused", "rest"),
    [
        ("/metadata", "application/dicom+json", "*/*"),
        ("/rendered", "image/jpeg", "image/*"),
        ("/thumbnail", "image/jpeg", "*/*"),
        ("", 'multipart/related; type="application/dicom"', "*/*"),
        ("/bulkdata/7FE00010", "application/octet-stream", "*/*"),
    ],
)
def test_what_is_refused_by_name_is_not_given_for_a_wildcard(
    below: str, refused: str, rest: str, instance: Instance, radiologist: Client
) -> None:
    kind = refused.partition('"')[2].strip('"') or refused
    for accept in (f"{refused};q=0, {rest}", f"{rest}, {refused}; q=0"):
        answer = radiologist.get(address(instance, below), HTTP_ACCEPT=accept)
        assert answer.status_code in {200, 406}
        assert kind not in answer["Content-Type"] or answer.status_code == 406
        assert "*" not in answer["Content-Type"]


def test_a_study_comes_as_a_zip_with_its_directory(
    north: Any, ingest_files: Any, radiologist: Client, tmp_path: Path
) -> None:
    files = [make_instance(**UIDS, InstanceNumber=n) for n in (1, 2)]
    other = make_instance(StudyInstanceUID=STUDY, SeriesInstanceUID="1.2.3.5", SeriesNumber=2)
    ingest_files(north, *files, other)
    answer = radiologist.get(STUDY_URL, HTTP_ACCEPT="application/zip")
    assert answer["Content-Type"] == "application/zip"
    with zipfile.ZipFile(BytesIO(body_of(answer))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[-1] == "DICOMDIR"
        assert [archive.read(n) for n in names[:-1]] == [*files, other]
        archive.extractall(tmp_path)
    found = FileSet(tmp_path / "DICOMDIR")
    assert len(found) == 3
    assert found.find_values("SeriesNumber") == [1, 2]
    assert {i.load().SOPInstanceUID for i in found} == set(Instance.objects.values_list("sop_instance_uid", flat=True))
    found._stage["t"].cleanup()


@pytest.mark.skipif(which("dcmdump") is None, reason="dcmtk isn't installed")
def test_dcmtk_reads_the_directory(
    shared: Path, north: Any, ingest_files: Any, radiologist: Client, tmp_path: Path
) -> None:
    folder = next((shared / "dicom" / "patients" / "1001").iterdir())
    ingest_files(north, *sorted(folder.rglob("*.dcm")))
    answer = radiologist.get(f"/dicom-web/studies/{Study.objects.get().study_instance_uid}?accept=application/zip")
    with zipfile.ZipFile(BytesIO(body_of(answer))) as archive:
        archive.extractall(tmp_path)
    shown = subprocess.run(["dcmdump", "+E", tmp_path / "DICOMDIR"], check=True, capture_output=True, text=True)
    assert "SR DOCUMENT" in shown.stdout
    assert not shown.stderr


def test_metadata_comes_as_xml_at_every_level(instance: Instance, radiologist: Client) -> None:
    for url in (STUDY_URL, SERIES_URL, address(instance)):
        answer = radiologist.get(f"{url}/metadata", HTTP_ACCEPT='multipart/related; type="application/dicom+xml"')
        ((kind, content),) = parts_of(answer)
        assert kind == "application/dicom+xml"
        root = ElementTree.fromstring(content)
        texts = [e.findtext(".//{*}FamilyName") for e in root if e.get("keyword") == "PatientName"]
        assert texts == ["Doe"]
        assert radiologist.get(f"{url}/metadata", HTTP_ACCEPT="text/html").status_code == 406


def test_ranges_of_bulk_data(instance: Instance, radiologist: Client) -> None:
    url, whole = address(instance, "/bulkdata/7FE00010"), PIXELS.tobytes()
    octets = {"HTTP_ACCEPT": "application/octet-stream"}
    answer = radiologist.get(url, **octets)
    assert body_of(answer) == whole
    assert answer["Accept-Ranges"] == "bytes"
    for asked, span in (
        ("100-199", (100, 200)),
        ("100-", (100, None)),
        ("-50", (-50, None)),
        ("0-99999999", (0, None)),
    ):
        part = radiologist.get(url, HTTP_RANGE=f"bytes={asked}", **octets)
        assert part.status_code == 206
        assert body_of(part) == whole[slice(*span)]
    assert radiologist.get(url, HTTP_RANGE="bytes=100-199", **octets)["Content-Range"] == f"bytes 100-199/{len(whole)}"
    assert radiologist.head(url, HTTP_RANGE="bytes=100-199", **octets).status_code == 200
    beyond = radiologist.get(url, HTTP_RANGE="bytes=99999999-", **octets)
    assert (beyond.status_code, beyond["Content-Range"]) == (416, f"bytes */{len(whole)}")
    changed = radiologist.get(url, HTTP_RANGE="bytes=0-9", HTTP_IF_RANGE='"other"', **octets)
    assert changed.status_code == 200


@pytest.mark.parametrize("below", ["", "/metadata", "/frames/1", "/bulkdata/7FE00010", "/rendered", "/thumbnail"])
def test_what_a_client_has_isnt_sent_again(below: str, instance: Instance, radiologist: Client) -> None:
    url = address(instance, below)
    first = radiologist.get(url)
    assert first.status_code == 200
    assert "private" in first["Cache-Control"]
    again = radiologist.get(url, HTTP_IF_NONE_MATCH=f'"x", {first["ETag"]}')
    assert (again.status_code, body_of(again)) == (304, b"")
    assert radiologist.head(url).status_code == 200
    # Nor is anything sent to one who wants what there was before.
    changed = radiologist.get(url, HTTP_IF_MATCH='"x"', HTTP_RANGE="bytes=99999999-")
    assert (changed.status_code, changed["ETag"]) == (412, first["ETag"])
    for wanted in (f'"x", {first["ETag"]}', "*"):
        assert body_of(radiologist.get(url, HTTP_IF_MATCH=wanted)) == body_of(radiologist.get(url))


def test_only_what_would_be_given_is_compared_with_what_is_wanted(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_rle(1, damaged=(1,)))
    url = address(Instance.objects.get(), "/frames/1")
    accept = 'multipart/related; type="application/octet-stream", multipart/related; type="image/dicom-rle"; q=0.5'
    given = radiologist.get(url, HTTP_ACCEPT=accept)
    assert given.status_code == 200
    assert radiologist.get(url, HTTP_ACCEPT=accept, HTTP_IF_MATCH=given["ETag"]).status_code == 200
    refused = radiologist.get(url, HTTP_ACCEPT=accept.split(",")[0], HTTP_IF_MATCH='"x"')
    assert refused.status_code == 406


def test_a_binary_value_has_no_other_transfer_syntax(instance: Instance, radiologist: Client) -> None:
    url = address(instance, "/bulkdata/7FE00010")
    for syntax in ("*", "1.2.840.10008.1.2.1"):
        accept = f"application/octet-stream; transfer-syntax={syntax}"
        assert radiologist.get(url, HTTP_ACCEPT=accept).status_code == 200
    refused = radiologist.get(url, HTTP_ACCEPT="application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.50")
    assert refused.status_code == 406
    for accept in refused.json()["available"]:
        assert radiologist.get(url, HTTP_ACCEPT=accept).status_code == 200


def test_every_form_that_a_refusal_names_is_given(instance: Instance, radiologist: Client) -> None:
    url = address(instance, "/frames/1")
    available = radiologist.get(url, HTTP_ACCEPT="text/html").json()["available"]
    assert len(available) > 3
    for accept in available:
        assert radiologist.get(url, HTTP_ACCEPT=accept).status_code == 200


def test_a_refusal_of_whole_objects_names_what_there_is_beside(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    octets = 'multipart/related; type="application/octet-stream"'
    report = Dataset()
    report.ValueType = "CONTAINER"
    for content, asked, has_octets in (
        (make_rle(1, damaged=(1,)), octets, False),
        (as_file(report, BasicTextSRStorage), octets, False),
        (make_pdf_object(b"%PDF-1.4" + b" " * 5000), "image/jpeg", True),
    ):
        ingest_files(north, content)
        url = address(Instance.objects.latest("pk"))
        refused = radiologist.get(url, HTTP_ACCEPT=asked)
        available = refused.json()["available"]
        assert (refused.status_code, octets in available) == (406, has_octets)
        assert len(available) == 5 + has_octets
        for accept in available:
            assert radiologist.get(url, HTTP_ACCEPT=accept).status_code == 200


def test_a_film_has_no_octets_and_a_document_beside_it_has(north: Any, ingest_files: Any, radiologist: Client) -> None:
    octets = 'multipart/related; type="application/octet-stream"'
    for content, has_octets in ((make_video()[1], False), (make_pdf_object(b"%PDF-1.4" + b" " * 5000), True)):
        ingest_files(north, content)
        study = f"/dicom-web/studies/{Study.objects.get().study_instance_uid}"
        assert (octets in radiologist.get(study, HTTP_ACCEPT="text/html").json()["available"]) == has_octets
        assert radiologist.get(study, HTTP_ACCEPT=octets).status_code == (206 if has_octets else 406)


def test_what_is_not_sent_is_not_counted(
    instance: Instance, radiologist: Client, django_capture_on_commit_callbacks: Any
) -> None:
    for method, sent in (("HEAD", 0), ("GET", 1)):
        for url in (STUDY_URL, address(instance)):
            with django_capture_on_commit_callbacks(execute=True):
                answer = radiologist.generic(method, url, HTTP_ACCEPT="application/dicom; transfer-syntax=*")
                assert answer.status_code == 200
                body_of(answer)
        flush_counts()
        assert ViewingWindow.objects.get(action=AuditEvent.Action.RETRIEVE).instances == 2 * sent


def test_what_is_made_anew_each_time_equals_nothing_byte_by_byte(instance: Instance, radiologist: Client) -> None:
    first = radiologist.get(STUDY_URL, HTTP_ACCEPT="application/zip")
    assert first["ETag"].startswith("W/")
    again = radiologist.get(STUDY_URL, HTTP_ACCEPT="application/zip", HTTP_IF_MATCH=first["ETag"])
    assert again.status_code == 412


@pytest.mark.parametrize("below", ["", "/metadata", "/rendered", "/thumbnail"])
def test_a_study_and_a_series_too(
    below: str, instance: Instance, radiologist: Client, north: Any, ingest_files: Any
) -> None:
    for url in (f"{STUDY_URL}{below}", f"{SERIES_URL}{below}"):
        first = radiologist.get(url)
        assert radiologist.get(url, HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 304
    if below != "/thumbnail":
        first = radiologist.get(f"{STUDY_URL}{below}")
        ingest_files(north, make_instance(**UIDS))
        assert radiologist.get(f"{STUDY_URL}{below}", HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 200


def test_a_corrected_instance_has_another_validator(instance: Instance, radiologist: Client, people: Any) -> None:
    accept = {"HTTP_ACCEPT": "application/dicom"}
    before = radiologist.get(address(instance), **accept)
    frame = radiologist.get(address(instance, "/frames/1"))
    correct_study(
        study=instance.series.study,
        attributes={"PatientID": "P2"},
        reason="mixed up",
        principal=principal_of(people["technologist"]),
    )
    after = radiologist.get(address(instance), HTTP_IF_NONE_MATCH=before["ETag"], **accept)
    assert pydicom.dcmread(BytesIO(body_of(after))).PatientID == "P2"
    assert "no-cache" in after["Cache-Control"]
    assert radiologist.get(address(instance, "/frames/1"), HTTP_IF_NONE_MATCH=frame["ETag"]).status_code == 304


def test_a_transfer_syntax_that_isnt_known_here_is_passed_through(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    dataset = pydicom.dcmread(BytesIO(make_instance()))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"some codec's words"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    buffer = BytesIO()
    dataset.save_as(buffer)
    content, jpeg_xl = buffer.getvalue(), "1.2.840.10008.1.2.4.110"
    (outcome,) = ingest_files(north, content)
    assert outcome.is_in, outcome.reason
    Instance.objects.update(transfer_syntax_uid=jpeg_xl)
    url = address(Instance.objects.get())
    assert body_of(radiologist.get(url, HTTP_ACCEPT="application/dicom; transfer-syntax=*")) == content
    frame = radiologist.get(f"{url}/frames/1", HTTP_ACCEPT="image/jxl")
    assert frame.content == b"some codec's words"
    plain = {"HTTP_ACCEPT": f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"}
    for below in ("/frames/1", "/rendered", "/thumbnail"):
        assert radiologist.get(f"{url}{below}", **plain).status_code == 406


def test_a_video_comes_as_one_stream(north: Any, ingest_files: Any, radiologist: Client) -> None:
    mp4, content = make_video()
    (outcome,) = ingest_files(north, content)
    assert outcome.is_in
    instance = Instance.objects.get()
    answer = radiologist.get(address(instance, "/frames/1"), HTTP_ACCEPT="video/mp4")
    assert answer.content.rstrip(b"\0") == mp4.rstrip(b"\0")
    whole = radiologist.get(
        address(instance), HTTP_ACCEPT=f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    )
    assert whole.status_code == 406


@pytest.mark.parametrize("below", ["/frames/1", "/rendered", "/bulkdata/7FE00010", ""])
def test_the_gate_and_the_index_are_one_query(below: str, instance: Instance, radiologist: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        body_of(radiologist.get(address(instance, below), HTTP_ACCEPT="application/dicom, */*"))
    assert len([q for q in queries if '"studies_instance"' in q["sql"]]) == 1


def test_many_instances_cost_no_more_queries_than_one(north: Any, ingest_files: Any, radiologist: Client) -> None:
    def cost(accept: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert body_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=accept))
        return len([q for q in queries if '"studies_' in q["sql"]])

    forms = ("*/*", "application/zip", 'multipart/related; type="application/octet-stream"')
    ingest_files(north, make_instance(**UIDS, InstanceNumber=0))
    of_one = [cost(accept) for accept in forms]
    ingest_files(north, *[make_instance(**UIDS, InstanceNumber=n) for n in range(1, 30)])
    assert [cost(accept) for accept in forms] == of_one
    assert max(of_one) <= 6


ACCEPT = (
    r"(multipart/related; type=\"?)?(application|image|video|text)/(\*|dicom|jp2|zip)\"?"
    r"(; transfer-syntax=[0-9.*]{0,30})?(; ?q=[0-9.]{0,4})?"
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    accept=st.one_of(
        st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60),
        st.from_regex(ACCEPT, fullmatch=True),
    ),
    below=st.sampled_from(["", "/frames/1", "/metadata", "/rendered", "/bulkdata/7FE00010", "/thumbnail"]),
)
def test_no_accept_header_breaks_it(accept: str, below: str, instance: Instance, radiologist: Client) -> None:
    answer = radiologist.get(address(instance, below), HTTP_ACCEPT=accept)
    assert answer.status_code in {200, 406}
    body_of(answer)
    if answer.status_code == 406:
        assert json.loads(answer.content)["available"] is not None
