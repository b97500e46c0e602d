"""The form of metadata and other DICOM JSON: order of attributes, the pixels' VR, validators, what was kept before."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from studies.archive import metadata
from studies.archive.frames import Frames
from studies.archive.models import SeriesMetadata
from studies.models import Instance
from tests.dicomweb.retrieving import address, parts_of
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
URL = "/dicom-web/studies/1.2.3/series/1.2.3.4/metadata"


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


def disordered(contents: Iterable[dict[str, Any]]) -> list[list[str]]:
    """Give the tags of each object, nested ones too, that isn't in ascending order."""
    found = []
    for content in contents:
        found += [list(content)] if list(content) != sorted(content) else []
        for element in content.values():
            if element["vr"] == "SQ":
                found += disordered(element.get("Value", []))
    return found


def colours(syntax: str, vr: str) -> bytes:
    """Give an image of 8 bits in a native syntax, its pixels under a VR."""
    dataset = pydicom.dcmread(str(pydicom.data.get_testdata_file("SC_rgb.dcm")))
    dataset["PixelData"].VR = vr
    meta = FileMetaDataset()
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, syntax
    output = BytesIO()
    pydicom.dcmwrite(output, FileDataset(None, dataset, file_meta=meta, preamble=b"\0" * 128), enforce_file_format=True)  # type: ignore[arg-type]
    return output.getvalue()


def test_attributes_come_by_ascending_tag_in_items_too(north: Any, ingest_files: Any, radiologist: Client) -> None:
    names = ("CT_small.dcm", "rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm", "liver_1frame.dcm")
    ingest_files(north, *(Path(str(pydicom.data.get_testdata_file(name))) for name in names))
    assert Instance.objects.count() == len(names)
    for instance in Instance.objects.all():
        for below in ("", f"/series/{instance.series.series_instance_uid}"):
            url = f"/dicom-web/studies/{instance.series.study.study_instance_uid}{below}/metadata"
            assert not disordered(radiologist.get(url).json())
        (content,) = radiologist.get(address(instance, "/metadata")).json()
        assert {"00080018", "00083002"} <= content.keys()
        assert not disordered([content])
    for level in ("studies", "series", "instances"):
        assert not disordered(radiologist.get(f"/dicom-web/{level}?includefield=all").json())


@pytest.mark.parametrize(
    ("syntax", "stored", "given"),
    [
        (ExplicitVRLittleEndian, "OB", "OB"),
        (ExplicitVRLittleEndian, "OW", "OW"),
        (ExplicitVRBigEndian, "OB", "OB"),
        (ImplicitVRLittleEndian, "OW", "OW"),
        (DeflatedExplicitVRLittleEndian, "OB", "OB"),
    ],
)
def test_native_pixels_of_8_bits_have_the_vr_that_they_are_stored_with(
    syntax: str, stored: str, given: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    (outcome,) = ingest_files(north, colours(syntax, stored))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    assert content["7FE00010"] == {"vr": given, "BulkDataURI": f"{url}/bulkdata/7FE00010"}


@pytest.mark.parametrize(("name", "vr"), [("JPEG2000.dcm", "OB"), ("MR_small_RLE.dcm", "OB"), ("CT_small.dcm", "OW")])
def test_compressed_pixels_are_ob_and_those_of_more_than_8_bits_ow(
    name: str, vr: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, Path(str(pydicom.data.get_testdata_file(name))))
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    assert content["7FE00010"] == {"vr": vr, "BulkDataURI": f"{url}/bulkdata/7FE00010"}
    xml = radiologist.get(f"{url}/metadata", HTTP_ACCEPT='multipart/related; type="application/dicom+xml"')
    assert f'tag="7FE00010" vr="{vr}"' in b"".join(xml).decode()


def in_big_endian(dataset: pydicom.Dataset) -> bytes:
    """Give a data set, whose words are turned already, as a big-endian file."""
    meta = dataset.file_meta
    meta.TransferSyntaxUID = ExplicitVRBigEndian
    output = BytesIO()
    pydicom.dcmwrite(output, FileDataset(None, dataset, file_meta=meta, preamble=b"\0" * 128), enforce_file_format=True)  # type: ignore[arg-type]
    return output.getvalue()


def test_words_of_big_endian_objects_are_turned_in_metadata_and_bulk_data(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    dataset = pydicom.dcmread(BytesIO(make_instance(pixels=np.zeros((8, 8), np.uint16))))
    lut, long = np.arange(16, dtype="<u2"), np.arange(2000, dtype="<u2")
    dataset.add_new(0x00281201, "OW", lut.astype(">u2").tobytes())
    dataset.add_new(0x00281202, "OW", long.astype(">u2").tobytes())
    dataset.PixelData = np.arange(64, dtype=">u2").tobytes()
    (outcome,) = ingest_files(north, in_big_endian(dataset))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    assert base64.b64decode(content["00281201"]["InlineBinary"]) == lut.tobytes()
    octets = {"HTTP_ACCEPT": "application/octet-stream"}
    assert radiologist.get(content["00281202"]["BulkDataURI"], **octets).content == long.tobytes()
    pixels = np.arange(64, dtype="<u2").tobytes()
    assert radiologist.get(content["7FE00010"]["BulkDataURI"], **octets).content == pixels


@pytest.mark.parametrize("vr", ["OW", "OB"])
def test_bits_of_big_endian_objects_are_those_that_were_meant(
    vr: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    bits = np.random.default_rng(3).integers(0, 2, (3, 5, 7), dtype=np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset = pydicom.dcmread(BytesIO(make_instance(pixels=np.zeros((3, 5, 7), np.uint16))))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    turned = np.frombuffer(packed, "<u2").astype(">u2").tobytes() if vr == "OW" else packed
    dataset.PixelData = turned
    dataset["PixelData"].VR = vr
    (outcome,) = ingest_files(north, in_big_endian(dataset))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    file = pydicom.dcmread(BytesIO(radiologist.get(url, HTTP_ACCEPT="application/dicom").getvalue()))
    assert file.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert np.array_equal(file.pixel_array, bits)
    for number in (1, 2, 3):
        frame = radiologist.get(f"{url}/frames/{number}", HTTP_ACCEPT="application/octet-stream").content
        assert np.array_equal(
            np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:35], bits[number - 1].ravel()
        )


@pytest.mark.parametrize(("tag", "vr", "number"), [("7FE00008", "OF", np.float32), ("7FE00009", "OD", np.float64)])
def test_numbers_that_arent_whole_are_named_as_what_they_are(
    tag: str, vr: str, number: Any, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    values = np.linspace(-1, 1, 64, dtype=number)
    dataset = pydicom.dcmread(BytesIO(make_instance(pixels=np.zeros((8, 8), np.uint16))))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated = values.itemsize * 8
    dataset.add_new(int(tag, 16), vr, values.tobytes())
    output = BytesIO()
    dataset.save_as(output)
    (outcome,) = ingest_files(north, output.getvalue())
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    assert content[tag] == {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{tag}"}
    assert "7FE00010" not in content
    octets = "application/octet-stream"
    assert radiologist.get(f"{url}/bulkdata/{tag}", HTTP_ACCEPT=octets).content == values.tobytes()
    assert radiologist.get(f"{url}/bulkdata/7FE00010", HTTP_ACCEPT=octets).status_code == 404
    ((_, part),) = parts_of(radiologist.get(f"{url}/bulkdata", HTTP_ACCEPT=f'multipart/related; type="{octets}"'))
    assert part == values.tobytes()


@pytest.mark.usefixtures("series")
def test_the_same_validator_means_the_same_bytes(radiologist: Client) -> None:
    url = address(Instance.objects.all()[0])
    octets, related = "application/octet-stream", 'multipart/related; type="application/octet-stream"'
    single = radiologist.get(f"{url}/bulkdata/7FE00010", HTTP_ACCEPT=octets)
    message = radiologist.get(f"{url}/bulkdata/7FE00010", HTTP_ACCEPT=related)
    assert single["ETag"] != message["ETag"]
    for where, accept in (
        ("/bulkdata/7FE00010", related),
        ("/metadata", 'multipart/related; type="application/dicom+xml"'),
        ("/thumbnail", 'multipart/related; type="image/jpeg"'),
        ("/rendered", 'multipart/related; type="image/png"'),
    ):
        first, second = (radiologist.get(f"{url}{where}", HTTP_ACCEPT=accept) for _ in range(2))
        assert (first["ETag"], first["Content-Type"], b"".join(first)) == (
            second["ETag"],
            second["Content-Type"],
            b"".join(second),
        )
    zipped = radiologist.get(url, HTTP_ACCEPT="application/zip")
    assert zipped["ETag"].startswith("W/")
    assert radiologist.get(url, HTTP_ACCEPT="application/zip", HTTP_IF_NONE_MATCH=zipped["ETag"]).status_code == 304
    assert radiologist.get(url, HTTP_ACCEPT='multipart/related; type="application/zip"').status_code == 406


@pytest.mark.usefixtures("series")
@pytest.mark.parametrize(
    ("header", "is_taken"), [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.0, *", False)]
)
def test_gzip_is_given_to_those_who_take_it(header: str, is_taken: bool, radiologist: Client) -> None:
    assert radiologist.get(URL, HTTP_ACCEPT_ENCODING=header).has_header("Content-Encoding") == is_taken


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "MR_small_implicit.dcm"])
def test_metadata_need_nothing_of_most_pixels(
    name: str, north: Any, ingest_files: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at them is a request to an object store, or a whole object that's inflated."""
    ingest_files(north, Path(str(pydicom.data.get_testdata_file(name))))
    instance = Instance.objects.get()

    def look(frames: Frames) -> None:
        raise AssertionError("pixels were looked at")

    monkeypatch.setattr(Frames, "_pixel_element", property(look))
    (content,) = radiologist.get(address(instance, "/metadata")).json()
    assert content["7FE00010"]["vr"] == ("OB" if name == "JPEG2000.dcm" else "OW")


@pytest.fixture
def series(north: Any, ingest_files: Any) -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    pixels = np.zeros((8, 8), np.uint16)
    ingest_files(north, *[make_instance(**uids, pixels=pixels, InstanceNumber=n) for n in (1, 2)])


@pytest.mark.usefixtures("series")
@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_gzipped_and_plain_metadata_have_validators_of_their_own(level: str, radiologist: Client) -> None:
    urls = {"study": "/dicom-web/studies/1.2.3/metadata", "series": URL}
    url = urls.get(level) or address(Instance.objects.all()[0], "/metadata")
    plain = radiologist.get(url, HTTP_ACCEPT_ENCODING="identity")
    zipped = radiologist.get(url, HTTP_ACCEPT_ENCODING="gzip")
    assert gzip.decompress(zipped.content) == plain.content
    assert plain["ETag"] != zipped["ETag"]
    for answer, coding in ((plain, "identity"), (zipped, "gzip")):
        assert "Accept-Encoding" in answer["Vary"]
        for known in (answer["ETag"], f'"other", W/{answer["ETag"]}', "*"):
            again = radiologist.get(url, HTTP_ACCEPT_ENCODING=coding, HTTP_IF_NONE_MATCH=known)
            assert (again.status_code, again["ETag"], again.content) == (304, answer["ETag"], b"")
    assert radiologist.get(url, HTTP_ACCEPT_ENCODING="gzip", HTTP_IF_NONE_MATCH=plain["ETag"]).status_code == 200


@pytest.mark.usefixtures("series")
def test_metadata_kept_in_an_earlier_form_are_built_anew(radiologist: Client) -> None:
    today = radiologist.get(URL)
    earlier = gzip.compress(json.dumps([{"00080018": {"vr": "UI", "Value": ["9.9"]}}]).encode())
    SeriesMetadata.objects.update(form=0, content=earlier, etag="0" * 64)
    again = radiologist.get(URL)
    assert again.json() == today.json()
    assert again["ETag"] == today["ETag"]
    # And are kept in their turn.
    kept = SeriesMetadata.objects.get()
    assert json.loads(gzip.decompress(bytes(kept.content))) == today.json()
    assert kept.form > 0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_long_series_is_read_page_by_page_and_comes_in_order(
    count: int, north: Any, ingest_files: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "PAGE", 2)
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    ingest_files(north, *(make_instance(**uids, InstanceNumber=number) for number in range(count, 0, -1)))
    given = [content["00200013"]["Value"] for content in radiologist.get(URL).json()]
    assert given == [[number] for number in range(1, count + 1)]
