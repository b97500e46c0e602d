"""STOW-RS: every kind of body, every reason, every limit."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.conf import LazySettings
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from portal.audit.models import AuditEvent
from studies.archive import objects
from studies.archive.native_model import NAMESPACE, InvalidNativeModel, from_native_xml, to_native_xml
from studies.dicomweb import store_body, stow
from studies.ingest import services as ingest_services
from studies.ingest.models import QuarantinedFile
from studies.models import Instance, Study
from tests.dicomweb.retrieving import body_of
from tests.factories import make_instance
from tests.ingest.test_hostile import deflated

pytestmark = [pytest.mark.django_db, pytest.mark.database]
JSON = 'multipart/related; type="application/dicom+json"; boundary=frontier'
XML = 'multipart/related; type="application/dicom+xml"; boundary=frontier'
DICOM = 'multipart/related; type="application/dicom"; boundary=frontier'
UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}


def message(*parts: tuple[dict[str, str], bytes]) -> bytes:
    body = b""
    for headers, content in parts:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body += f"--frontier\r\n{head}\r\n".encode() + content + b"\r\n"
    return body + b"--frontier--\r\n"


def metadata_of(content: bytes, location: str) -> dict[str, Any]:
    """Give a file's DICOM JSON, its pixels by reference."""
    dataset = pydicom.dcmread(BytesIO(content))
    del dataset.PixelData
    return dataset.to_json_dict() | {"7FE00010": {"vr": "OW", "BulkDataURI": location}}


@pytest.fixture
def send(token_of: Any) -> Any:
    header = {"HTTP_AUTHORIZATION": f"Bearer {token_of('technologist')}"}

    def post(
        body: bytes, content_type: str, path: str = "/dicom-web/studies", method: str = "POST", **extra: str
    ) -> Any:
        return Client().generic(method, path, body, content_type=content_type, **header, **extra)

    return post


def reasons(answer: Any) -> list[int]:
    content = answer.json()
    items = content.get("00081198", {}).get("Value", []) + content.get("0008119A", {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in items]


def stored() -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(objects.read_instance(Instance.objects.get())))


@pytest.mark.parametrize("location", ["bulk/1", "https://elsewhere.example/bulk/1"])
@pytest.mark.parametrize("kind", ["json", "xml"])
def test_metadata_and_bulk_data_make_the_instance(send: Any, kind: str, location: str) -> None:
    content = make_instance(**UIDS, PatientName="Ærø^Åse")
    metadata = metadata_of(content, location)
    pixels = pydicom.dcmread(BytesIO(content)).PixelData
    if kind == "json":
        first = ({"Content-Type": "application/dicom+json"}, json.dumps([metadata]).encode())
    else:
        first = ({"Content-Type": "application/dicom+xml"}, to_native_xml(metadata))
    bulk = ({"Content-Type": "application/octet-stream", "Content-Location": location}, pixels)
    answer = send(message(first, bulk), JSON if kind == "json" else XML)
    assert answer.status_code == 200, answer.content
    kept, sent = stored(), pydicom.dcmread(BytesIO(content))
    assert kept.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    for element in sent:
        assert kept[element.tag].value == element.value, element.keyword


def test_many_instances_in_one_array(send: Any) -> None:
    metadata, bulk = [], []
    for n in range(3):
        content = make_instance(**{**UIDS, "SOPInstanceUID": f"1.2.3.4.{n}"})
        metadata.append(metadata_of(content, f"bulk/{n}"))
        bulk.append(({"Content-Location": f"bulk/{n}"}, pydicom.dcmread(BytesIO(content)).PixelData))
    first = ({"Content-Type": "application/dicom+json"}, json.dumps(metadata).encode())
    bulk = [({"Content-Type": "application/octet-stream", **headers}, data) for headers, data in bulk]
    assert send(message(first, *bulk), JSON).status_code == 200
    assert Instance.objects.count() == 3


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("JPEG2000.dcm", "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91"),
        ("JPEG-LL.dcm", "image/jpeg"),
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jpeg"),
        ("MR_small_RLE.dcm", "image/dicom-rle"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/jls"),
    ],
)
def test_compressed_pixels_are_kept_as_they_come(send: Any, name: str, media_type: str) -> None:
    source = pydicom.dcmread(str(get_testdata_file(name)))
    (frame,) = pydicom.encaps.generate_frames(source.PixelData, number_of_frames=1)
    metadata = json.loads(source.to_json(bulk_data_threshold=1 << 30, suppress_invalid_tags=True))
    metadata["7FE00010"] = {"vr": "OB", "BulkDataURI": "frame"}
    first = ({"Content-Type": "application/dicom+json"}, json.dumps(metadata).encode())
    answer = send(message(first, ({"Content-Type": media_type, "Content-Location": "frame"}, frame)), JSON)
    assert answer.status_code == 200, answer.content
    kept = stored()
    assert kept.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    assert next(pydicom.encaps.generate_frames(kept.PixelData, number_of_frames=1)).rstrip(b"\0") == frame.rstrip(b"\0")
    assert np.array_equal(kept.pixel_array, source.pixel_array)


def test_frames_in_parts_of_their_own_are_one_instance(send: Any) -> None:
    source = pydicom.dcmread(str(get_testdata_file("color3d_jpeg_baseline.dcm")))
    count = int(source.NumberOfFrames)
    frames = list(pydicom.encaps.generate_frames(source.PixelData, number_of_frames=count))
    del source.PixelData
    metadata = json.loads(source.to_json(suppress_invalid_tags=True))
    metadata["7FE00010"] = {"vr": "OB", "BulkDataURI": "frames"}
    metadata.pop("00282110", None)
    head = {"Content-Type": "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50", "Content-Location": "frames"}
    first = ({"Content-Type": "application/dicom+json"}, json.dumps(metadata).encode())
    answer = send(message(first, *[(head, frame) for frame in frames]), JSON)
    assert answer.status_code == 200, answer.content
    instance = Instance.objects.get()
    assert instance.number_of_frames == count
    assert objects.read_frame(instance, count).rstrip(b"\0") == frames[-1].rstrip(b"\0")
    assert objects.read_dataset(instance).LossyImageCompression == "01"


def test_what_lacks_its_bulk_data_is_refused_alone(send: Any) -> None:
    whole, lacking = make_instance(**UIDS), make_instance(**{**UIDS, "SOPInstanceUID": "1.2.3.4.6"})
    metadata = json.dumps([metadata_of(whole, "a"), metadata_of(lacking, "b")]).encode()
    bulk = ({"Content-Type": "application/octet-stream", "Content-Location": "a"}, whole[-8192:])
    answer = send(message(({"Content-Type": "application/dicom+json"}, metadata), bulk), JSON)
    assert answer.status_code == 202
    (failed,) = answer.json()["00081198"]["Value"]
    assert failed["00081155"]["Value"] == ["1.2.3.4.6"]
    assert reasons(answer) == [0xA900]
    assert Instance.objects.count() == 1


def test_a_zip_brings_all_its_files(send: Any) -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for n in range(3):
            file.writestr(f"IMG{n}", make_instance(StudyInstanceUID="1.2.3"))
        file.writestr("README", b"not dicom")
    answer = send(buffer.getvalue(), "application/zip")
    assert answer.status_code == 202
    assert Study.objects.get().number_of_instances == 3
    assert reasons(answer) == [0xC000]
    assert send(b"PK no zip", "application/zip").status_code == 400


@pytest.mark.parametrize("path", ["/dicom-web/studies", "/upload/files/?name=cd.zip"])
def test_a_zip_with_a_broken_file_brings_those_before_it(path: str, send: Any) -> None:
    whole, broken = make_instance(StudyInstanceUID="1.2.3"), make_instance(StudyInstanceUID="1.2.3")
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("1", whole)
        file.writestr("2", broken)
    checksum, other = zlib.crc32(broken).to_bytes(4, "little"), b"\1\2\3\4"
    answer = send(buffer.getvalue().replace(checksum, other), "application/zip", path)
    assert answer.status_code in {200, 202}
    assert b"broken" in answer.content
    assert Study.objects.get().number_of_instances == 1


def test_the_answer_comes_as_xml_where_wanted(send: Any) -> None:
    answer = send(make_instance(**UIDS), "application/dicom", HTTP_ACCEPT="application/dicom+xml")
    assert answer["Content-Type"] == "application/dicom+xml"
    content = from_native_xml(answer.content)
    assert content["00081199"]["Value"][0]["00081155"]["Value"] == ["1.2.3.4.5"]
    refused = send(make_instance(), "application/dicom", HTTP_ACCEPT="text/html")
    assert refused.status_code == 406
    assert Instance.objects.count() == 1


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.1.1"}, 0x0122),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.31"}, 0x0122),
        ({"SOPInstanceUID": "1.2.x"}, 0x0117),
        ({"StudyInstanceUID": None}, 0xA900),
        ({"SeriesInstanceUID": "1..2"}, 0xA900),
    ],
)
def test_each_failure_has_its_reason(send: Any, keywords: dict[str, Any], reason: int) -> None:
    with pydicom.config.disable_value_validation():
        content = make_instance(**keywords)
    answer = send(content, "application/dicom")
    assert answer.status_code == 409
    assert reasons(answer) == [reason]


BIG_ENDIAN = Path(str(get_testdata_file("MR_small_bigendian.dcm"))).read_bytes()


@pytest.mark.parametrize(
    ("whole", "cut", "reason"),
    [
        (make_instance(**UIDS), 500, 0xC000),
        (BIG_ENDIAN, 500, 0xC000),
        (deflated(make_instance(**UIDS)), 20, 0xC000),
        (make_instance(**UIDS, NumberOfFrames=2), 0, 0xC000),
        (make_instance(**{**UIDS, "StudyInstanceUID": None}), 0, 0xA900),
    ],
    ids=["cut pixels", "cut big endian", "cut deflated", "a frame too few", "no study"],
)
def test_what_fails_is_named_where_its_uids_can_be_read(send: Any, whole: bytes, cut: int, reason: int) -> None:
    answer = send(message(({}, make_instance()), ({}, whole[: len(whole) - cut])), DICOM)
    assert answer.status_code == 202
    assert "0008119A" not in answer.json()
    (failed,) = answer.json()["00081198"]["Value"]
    sent = pydicom.dcmread(BytesIO(whole))
    assert failed["00081150"]["Value"] == [sent.SOPClassUID]
    assert failed["00081155"]["Value"] == [sent.SOPInstanceUID]
    assert failed["00081197"]["Value"] == [reason]


@pytest.mark.parametrize("keywords", [{"SOPClassUID": "1.2.840.10008.5.1.4.31"}, {"SeriesInstanceUID": "1..2"}])
def test_what_is_of_another_service_or_has_an_invalid_series_is_named(send: Any, keywords: dict[str, str]) -> None:
    with pydicom.config.disable_value_validation():
        content = make_instance(**{**UIDS, **keywords})
    (failed,) = send(content, "application/dicom").json()["00081198"]["Value"]
    assert failed["00081150"]["Value"] == [keywords.get("SOPClassUID", uid.CTImageStorage)]
    assert failed["00081155"]["Value"] == ["1.2.3.4.5"]


def test_what_is_no_uid_is_not_told_back(send: Any) -> None:
    hostile = "<script>"
    with pydicom.config.disable_value_validation():
        files = [
            make_instance(**{**UIDS, "SOPInstanceUID": hostile}),
            make_instance(**{**UIDS, "SOPClassUID": hostile}),
        ]
    metadata = {**metadata_of(files[0], "a"), "0020000D": {"vr": "UI", "Value": [{"a": hostile}]}}
    for answer in (
        send(message(*[({}, file) for file in files]), DICOM),
        send(message(({"Content-Type": "application/dicom+json"}, json.dumps([metadata]).encode())), JSON),
    ):
        assert answer.status_code == 409
        assert b"script" not in answer.content
        assert len(answer.json()["0008119A"]["Value"]) == 1


def test_a_retrieve_url_is_empty_where_nothing_or_more_than_one_study_was_stored(send: Any) -> None:
    for answer in (
        send(b"no dicom", "application/dicom"),
        send(message(({}, make_instance(StudyInstanceUID="1.2")), ({}, make_instance(StudyInstanceUID="1.3"))), DICOM),
    ):
        assert answer.json()["00081190"] == {"vr": "UR"}
    answer = send(b"no dicom", "application/dicom", HTTP_ACCEPT="application/dicom+xml")
    assert from_native_xml(answer.content)["00081190"] == {"vr": "UR"}


def test_elements_of_an_answer_are_in_ascending_order(send: Any) -> None:
    content = make_instance(**UIDS)
    other = content.replace(b"1.2.3.4.5\0", b"1.2.3.4.9\0", 1)
    answer = send(message(({}, other), ({}, content[:-500]), ({}, b"no dicom")), DICOM).json()
    items = [item for tag in ("00081198", "00081199", "0008119A") for item in answer[tag]["Value"]]
    for elements in (answer, *items):
        assert list(elements) == sorted(elements)
    assert all("00000902" in item for item in items)


@pytest.mark.parametrize("kind", ["video/H265", "Video/h265", "VIDEO/MP4;Transfer-Syntax=1.2.840.10008.1.2.4.107"])
def test_media_types_are_taken_in_any_case(send: Any, kind: str) -> None:
    metadata = metadata_of(make_instance(**UIDS), "a")
    parts = (
        ({"content-type": "Application/DICOM+JSON"}, json.dumps([metadata]).encode()),
        ({"CONTENT-TYPE": kind, "CONTENT-LOCATION": "a"}, b"stream"),
    )
    answer = send(message(*parts), 'Multipart/Related; Type="Application/Dicom+Json"; Boundary=frontier')
    assert answer.status_code == 200, answer.content
    assert stored().file_meta.TransferSyntaxUID == uid.HEVCMP51


def test_private_and_unknown_classes_are_stored(send: Any) -> None:
    assert send(make_instance(SOPClassUID="1.2.826.0.1.3680043.9.9"), "application/dicom").status_code == 200


def test_file_meta_information_of_another_instance_is_a_warning(send: Any) -> None:
    content = make_instance(**UIDS)
    other = content.replace(b"1.2.3.4.5\0", b"1.2.3.4.9\0", 1)
    assert other != content
    answer = send(other, "application/dicom")
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB007]


@pytest.mark.parametrize("step", ["begin_writing", "place_all"])
def test_storage_that_fails_is_said_so(step: str, send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(staged: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(objects, step, full)
    answer = send(make_instance(**UIDS), "application/dicom")
    assert answer.status_code == 409
    assert reasons(answer) == [0xA700]
    assert not Instance.objects.exists()


def test_too_much_is_413_and_one_too_large_is_refused_alone(send: Any, settings: LazySettings) -> None:
    small, large = make_instance(**UIDS), make_instance(pixels=np.zeros((200, 200), np.uint16))
    settings.ATRIUM = replace(settings.ATRIUM, largest_instance=len(small) + 100, largest_store=10 * len(large))
    answer = send(message(({}, large), ({}, small)), DICOM)
    assert answer.status_code == 202
    assert reasons(answer) == [0xA700]
    assert Instance.objects.get().sop_instance_uid == "1.2.3.4.5"
    assert send(message(*[({}, large)] * 11), DICOM).status_code == 413


def test_what_is_too_large_alone_is_refused_for_good(send: Any, settings: LazySettings) -> None:
    large = make_instance(**UIDS, pixels=np.zeros((200, 200), np.uint16))
    settings.ATRIUM = replace(settings.ATRIUM, largest_instance=len(large) - 1)
    metadata = ({"Content-Type": "application/dicom+json"}, json.dumps([metadata_of(large, "a")]).encode())
    bulk = ({"Content-Type": "application/octet-stream", "Content-Location": "a"}, bytes(len(large)))
    for answer in (
        send(large, "application/dicom"),
        send(message(({}, large)), DICOM),
        send(message(metadata, bulk), JSON),
    ):
        assert answer.status_code == 409
        (failed,) = answer.json()["00081198"]["Value"]
        assert (failed["00081155"]["Value"], failed["00081197"]["Value"]) == (["1.2.3.4.5"], [0xA700])
    nameless = send(bytes(len(large)), "application/dicom")
    assert (nameless.status_code, reasons(nameless)) == (409, [0xA700])


def test_without_room_to_stage_anything_a_sender_is_asked_to_try_again(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_body, "stage", full)
    assert send(make_instance(**UIDS), "application/dicom").status_code == 503


@given(body=st.binary(max_size=400), kind=st.sampled_from([JSON, XML, DICOM, "application/zip", "application/dicom"]))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_breaks_the_server(send: Any, body: bytes, kind: str) -> None:
    wrapped = message(({"Content-Type": "application/dicom+json"}, body)) if "json" in kind else body
    assert send(wrapped, kind).status_code in {400, 409, 413, 415}


@given(
    content=st.dictionaries(
        st.sampled_from(["00080018", "0020000D", "7FE00010", "00400275", "x", "00100010"]),
        st.dictionaries(st.sampled_from(["vr", "Value", "BulkDataURI", "InlineBinary"]), st.text(max_size=8)),
    )
)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_metadata_breaks_the_server(send: Any, content: dict[str, Any]) -> None:
    body = message(({"Content-Type": "application/dicom+json"}, json.dumps([content]).encode()))
    assert send(body, JSON).status_code in {400, 409}


def test_nothing_stays_in_staging(send: Any, settings: LazySettings) -> None:
    metadata = json.dumps([metadata_of(make_instance(**UIDS), "a")]).encode()
    first = ({"Content-Type": "application/dicom+json"}, metadata)
    send(message(first, ({"Content-Type": "application/octet-stream", "Content-Location": "z"}, b"12")), JSON)
    send(b"PK", "application/zip")
    send(message(({}, make_instance()), ({}, b"x"))[:-30], DICOM)
    assert list(Path(settings.STAGING_ROOT).iterdir()) == []


def test_a_body_of_bad_parts_is_read_to_a_bound_and_what_was_accepted_stays(
    send: Any, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "MOST_REFUSED", 40)
    monkeypatch.setattr(ingest_services, "KEPT_FILES", 7)
    bad = [({}, b"bad %d" % number) for number in range(99)]
    answer = send(message(({}, make_instance(**UIDS)), *bad), DICOM)
    assert answer.status_code == 202
    content = answer.json()
    assert [item["00081155"]["Value"] for item in content["00081199"]["Value"]] == [[UIDS["SOPInstanceUID"]]]
    *refused, last = content["0008119A"]["Value"]
    assert {item["00081197"]["Value"][0] for item in refused} == {0xC000}
    assert 40 <= len(refused) < 60
    assert last["00081197"]["Value"] == [0xA700]
    assert last["00000902"]["Value"] == [f"After {len(refused)} refused parts the rest wasn't read."]
    assert Instance.objects.count() == 1
    assert not list(Path(settings.STAGING_ROOT).glob("*"))
    # What one sender leaves in quarantine has a bound of its own, of which the trail tells.
    assert QuarantinedFile.objects.count() == 7
    told = AuditEvent.objects.filter(action=AuditEvent.Action.QUARANTINE)
    assert sum(event.details.get("not_kept", 1) for event in told) == len(refused)
    assert told.count() < 15


def test_a_body_with_as_many_bad_parts_as_are_borne_is_read_to_its_end(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "MOST_REFUSED", 20)
    answer = send(message(*[({}, b"bad %d" % number) for number in range(20)]), DICOM)
    assert answer.status_code == 409
    assert reasons(answer) == [0xC000] * 20


def test_the_quarantine_keeps_no_more_bytes_of_one_sender_than_it_may(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_services, "KEPT_BYTES", 100)
    send(message(({}, b"a" * 60), ({}, b"b" * 60), ({}, b"c" * 40)), DICOM)
    assert sorted(QuarantinedFile.objects.values_list("size", flat=True)) == [40, 60]


@pytest.mark.parametrize(
    ("tag", "element"),
    [
        ("00280106", {"vr": "US", "Value": [1.5]}),
        ("00280106", {"vr": "US", "Value": [65536]}),
        ("00280106", {"vr": "US", "Value": [True]}),
        ("00200012", {"vr": "IS", "Value": ["9" * 50]}),
        ("00200012", {"vr": "IS", "Value": [1.5]}),
        ("00200012", {"vr": "IS", "Value": [99999999999]}),
        ("00101030", {"vr": "DS", "Value": [float("nan")]}),
        ("00101030", {"vr": "DS", "Value": ["1,5"]}),
        ("00189004", {"vr": "CS", "Value": [7]}),
        ("00200242", {"vr": "OB", "InlineBinary": "!!!"}),
        ("00281080", {"vr": "AT", "Value": ["zzzzzzzz"]}),
        ("00081030", {"vr": "LO", "Value": ["a\x00b"]}),
        ("00081070", {"vr": "PN", "Value": [{"Alphabetic": "\ud800"}]}),
        ("00081030", {"vr": "LO", "Value": ["a\\b"]}),
        ("00189073", {"vr": "FL", "Value": [1e39]}),
        ("00281199", {"vr": "US", "Value": [1, None]}),
        ("00400275", {"vr": "SQ", "Value": [{"00280106": {"vr": "SS", "Value": [40000]}}]}),
    ],
)
def test_metadata_that_would_be_kept_as_something_else_are_refused(
    send: Any, tag: str, element: dict[str, Any]
) -> None:
    content = make_instance()
    metadata = json.dumps([metadata_of(content, "a") | {tag: element}]).encode()
    pixels = pydicom.dcmread(BytesIO(content)).PixelData
    octets = {"Content-Type": "application/octet-stream", "Content-Location": "a"}
    answer = send(message(({"Content-Type": "application/dicom+json"}, metadata), (octets, pixels)), JSON)
    assert answer.status_code == 409
    assert reasons(answer) == [0xC000]
    assert not Instance.objects.exists()


def sent_with(send: Any, elements: dict[str, Any], kind: str = "json") -> pydicom.Dataset:
    """Store an instance with more elements as metadata and pixels, and give it as it's kept."""
    content = make_instance()
    metadata = metadata_of(content, "a") | elements
    body = json.dumps([metadata]).encode() if kind == "json" else to_native_xml(metadata)
    pixels = pydicom.dcmread(BytesIO(content)).PixelData
    octets = {"Content-Type": "application/octet-stream", "Content-Location": "a"}
    first = ({"Content-Type": f"application/dicom+{kind}"}, body)
    answer = send(message(first, (octets, pixels)), JSON if kind == "json" else XML)
    assert answer.status_code == 200, answer.content
    return stored()


def test_values_are_kept_as_json_says_them(send: Any) -> None:
    kept = sent_with(
        send,
        {
            "00200012": {"vr": "IS", "Value": ["7"]},
            "00101030": {"vr": "DS", "Value": [70.12345678901231]},
            "00180050": {"vr": "DS", "Value": ["1.5", None, "2"]},
            "00200013": {"vr": "IS", "Value": [None]},
            "00280106": {"vr": "US", "Value": [3]},
            "00189073": {"vr": "FD", "Value": ["NaN", "-inf", 1e-3]},
            "00281080": {"vr": "AT", "Value": ["00280106"]},
            "00080060": {"vr": "CS", "Value": ["MR\0"]},
            "00102000": {"vr": "LO", "Value": ["a", None, "b"]},
        },
    )
    assert (kept.AcquisitionNumber, kept.SmallestImagePixelValue, kept[0x00281080].value) == (7, 3, 0x00280106)
    assert kept.get_item(0x00101030).value.strip() == b"70.1234567890123"
    assert kept.get_item(0x00180050).value.strip() == b"1.5\\\\2.0"
    assert kept.get_item(0x00102000).value.strip() == b"a\\\\b"
    assert kept.InstanceNumber is None
    assert kept.Modality == "MR"
    assert math.isnan(kept[0x00189073].value[0])
    assert list(kept[0x00189073].value)[1:] == [-math.inf, 1e-3]


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_every_letter_is_kept_whatever_character_set_is_named(kind: str, send: Any) -> None:
    latin = {"vr": "CS", "Value": ["ISO_IR 100"]}
    item = {"00080005": latin, "00321060": {"vr": "LO", "Value": ["Prześwietlenie łokcia"]}}
    name = {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    kept = sent_with(
        send,
        {
            "00080005": latin,
            "00100010": {"vr": "PN", "Value": [name]},
            "00400275": {"vr": "SQ", "Value": [item]},
            "7FE10010": {"vr": "LO", "Value": ["Göteborg Łódź"]},
        },
        kind,
    )
    assert str(kept.PatientName) == "=".join(name.values())
    assert kept.RequestAttributesSequence[0].RequestedProcedureDescription == "Prześwietlenie łokcia"
    assert kept[0x7FE10010].value == "Göteborg Łódź"


@pytest.mark.parametrize("vr", ["IS", "DS", "SQ", "AT", "UN"])
def test_a_character_set_that_is_none_is_written_anew(vr: str, send: Any) -> None:
    wrong = {"vr": vr} if vr == "UN" else {"vr": vr, "Value": [{}] if vr == "SQ" else ["00080005" if vr == "AT" else 1]}
    kept = sent_with(send, {"00080005": wrong, "00400275": {"vr": "SQ", "Value": [{"00080005": wrong}]}})
    assert kept.SpecificCharacterSet == kept.RequestAttributesSequence[0].SpecificCharacterSet == "ISO_IR 192"


def test_xml_leaves_values_out_by_their_numbers(send: Any) -> None:
    kept = sent_with(send, {"00102000": {"vr": "LO", "Value": ["a", None, "b"]}}, "xml")
    assert list(kept.MedicalAlerts) == ["a", "", "b"]
    named = '<DicomAttribute tag="00102000" vr="{vr}"><Value number="1">{one}</Value><Value number="3">c</Value>'
    document = f'<NativeDicomModel xmlns="{NAMESPACE}">{named}</DicomAttribute></NativeDicomModel>'
    assert from_native_xml(document.format(vr="LO", one="a").encode())["00102000"]["Value"] == ["a", None, "c"]
    for vr, one in (("US", "1_0"), ("US", "\u0663"), ("DS", "1_0.5"), ("FD", "0x1")):
        with pytest.raises(InvalidNativeModel):
            from_native_xml(document.format(vr=vr, one=one).encode())
    with pytest.raises(InvalidNativeModel):
        from_native_xml(document.replace('"3"', '"99999999"').format(vr="LO", one="a").encode())


def test_empty_values_among_others_are_null_in_metadata(send: Any) -> None:
    dataset = pydicom.dcmread(BytesIO(make_instance()))
    dataset.add(RawDataElement(Tag(0x00281050), "DS", 6, b"1.5\\\\2", 0, False, True))
    dataset.add_new(0x00189073, "FD", [math.nan, 2.0])
    file = BytesIO()
    dataset.save_as(file)
    assert send(file.getvalue(), "application/dicom").status_code == 200
    study = Instance.objects.get().series.study
    (content,) = json.loads(body_of(send(b"", "", f"/dicom-web/studies/{study.study_instance_uid}/metadata", "GET")))
    assert content["00281050"] == {"vr": "DS", "Value": [1.5, None, 2]}
    assert content["00189073"] == {"vr": "FD", "Value": [None, 2.0]}


def test_pixels_shorter_than_they_are_described_are_refused(send: Any) -> None:
    content = make_instance()
    pixels = pydicom.dcmread(BytesIO(content)).PixelData
    metadata = json.dumps([metadata_of(content, "a")]).encode()
    octets = {"Content-Type": "application/octet-stream", "Content-Location": "a"}
    answer = send(message(({"Content-Type": "application/dicom+json"}, metadata), (octets, pixels[:-2])), JSON)
    assert answer.status_code == 409
    assert reasons(answer) == [0xA900]
