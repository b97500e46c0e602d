"""WADO-RS: all bulk data, or all pixels, of a study, series or instance; bulk data of compressed pixels."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from studies.models import Instance
from tests.dicomweb.retrieving import (
    SERIES,
    STUDY,
    UIDS,
    address,
    as_file,
    body_of,
    make_pdf_object,
    make_video,
    parts_of,
)
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY_URL = f"/dicom-web/studies/{STUDY}"
PIXELS = np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 16, 16)
PRIVATE = bytes(range(256)) * 8
OCTETS = f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


def located(answer: Any) -> dict[str, bytes]:
    """Give the parts by their Content-Location."""
    message = message_from_bytes(b"Content-Type: " + answer["Content-Type"].encode() + b"\r\n\r\n" + body_of(answer))
    return {part["Content-Location"]: part.get_payload(decode=True) for part in message.get_payload()}  # type: ignore


def test_every_binary_value_comes_under_the_address_that_the_metadata_names(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(
        north, make_instance(**UIDS, pixels=PIXELS, EncapsulatedDocument=PRIVATE), make_pdf_object(b"%PDF" * 999)
    )
    metadata = radiologist.get(f"{STUDY_URL}/metadata").json()
    named = [e["BulkDataURI"] for content in metadata for e in content.values() if "BulkDataURI" in e]
    parts = located(radiologist.get(f"{STUDY_URL}/bulkdata"))
    assert sorted(parts) == sorted(f"http://testserver{uri}" for uri in named)
    image = address(Instance.objects.get(number_of_frames=2))
    assert parts[f"http://testserver{image}/bulkdata/7FE00010"] == PIXELS.tobytes()
    assert parts[f"http://testserver{image}/bulkdata/00420011"] == PRIVATE
    for uri in named:
        assert body_of(radiologist.get(uri, HTTP_ACCEPT="*/*")) == parts[f"http://testserver{uri}"]
    assert len(located(radiologist.get(f"{STUDY_URL}/series/{SERIES}/bulkdata"))) == 2
    assert len(located(radiologist.get(f"{image}/bulkdata"))) == 2


def test_pixels_come_as_stored_uncompressed_or_compressed_as_asked(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_instance(**UIDS, pixels=PIXELS, EncapsulatedDocument=PRIVATE))
    for url in (STUDY_URL, f"{STUDY_URL}/series/{SERIES}", address(Instance.objects.get())):
        assert parts_of(radiologist.get(f"{url}/pixeldata")) == [(OCTETS, PIXELS.tobytes())]
        compressed = parts_of(radiologist.get(f"{url}/pixeldata", HTTP_ACCEPT='multipart/related; type="image/jls"'))
        assert [kind.split(";")[0] for kind, _ in compressed] == ["image/jls"] * 2
        assert radiologist.get(f"{url}/pixeldata", HTTP_ACCEPT="text/html").status_code == 406


def test_compressed_pixels_come_compressed_or_decoded(
    shared: Path, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    path = shared / "dicom" / "codecs" / "CT1_J2KR.dcm"
    ingest_files(north, path)
    dataset = pydicom.dcmread(path)
    url = address(Instance.objects.get())
    ((kind, frame),) = parts_of(radiologist.get(f"{url}/pixeldata"))
    assert kind == "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90"
    assert frame == next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    plain = 'multipart/related; type="application/octet-stream"'
    assert parts_of(radiologist.get(f"{url}/pixeldata", HTTP_ACCEPT=plain)) == [(OCTETS, dataset.pixel_array.tobytes())]


def test_bulk_data_of_compressed_pixels_are_uncompressed_and_have_ranges(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    path = Path(str(pydicom.data.get_testdata_file("SC_rgb_rle_2frame.dcm")))
    ingest_files(north, path)
    whole = pydicom.dcmread(path).pixel_array.tobytes()
    url = address(Instance.objects.get(), "/bulkdata/7FE00010")
    octets = {"HTTP_ACCEPT": "application/octet-stream"}
    assert body_of(radiologist.get(url, **octets)) == whole
    middle = len(whole) // 2
    for asked, span in (
        (f"{middle - 10}-{middle + 9}", (middle - 10, middle + 10)),
        ("-5", (-5, None)),
        ("0-0", (0, 1)),
    ):
        part = radiologist.get(url, HTTP_RANGE=f"bytes={asked}", **octets)
        assert part.status_code == 206
        assert body_of(part) == whole[slice(*span)]
    for beyond in (f"{len(whole)}-", "99999999999999999999-", "-0"):
        assert radiologist.get(url, HTTP_RANGE=f"bytes={beyond}", **octets).status_code == 416
    # No digits of ours: no range (RFC 9110 §14.2).
    assert radiologist.get(url, HTTP_RANGE="bytes=\u0661-\u0662", **octets).status_code == 200


def test_bulk_data_of_a_video_are_its_stream(north: Any, ingest_files: Any, radiologist: Client) -> None:
    mp4, content = make_video()
    ingest_files(north, content)
    url = address(Instance.objects.get(), "/bulkdata/7FE00010")
    answer = radiologist.get(url)
    assert answer["Content-Type"] == "video/mp4"
    assert body_of(answer).rstrip(b"\0") == mp4.rstrip(b"\0")
    # A player seeks by ranges.
    assert body_of(radiologist.get(url, HTTP_RANGE="bytes=4-11")) == mp4[4:12]


def test_what_holds_no_bulk_data_has_none(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, as_file(Dataset(), RTStructureSetStorage))
    for below in ("/bulkdata", "/pixeldata"):
        assert radiologist.get(f"{STUDY_URL}{below}").status_code == 404
        assert radiologist.get(f"/dicom-web/studies/9.9{below}").status_code == 404


def test_what_a_client_has_is_not_sent_again(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, make_instance(**UIDS, pixels=PIXELS))
    for below in ("/bulkdata", "/pixeldata"):
        first = radiologist.get(f"{STUDY_URL}{below}")
        body_of(first)
        assert radiologist.get(f"{STUDY_URL}{below}", HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 304


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "text/javascript", "a/b\r\nX-Evil: 1", "ü/ü", ""])
def test_a_document_is_no_page_of_ours(media_type: str, north: Any, ingest_files: Any, radiologist: Client) -> None:
    """Whoever may upload mustn't have others' browsers run what they uploaded."""
    dataset = Dataset()
    dataset.EncapsulatedDocument = b"<script src=evil></script>".ljust(2000)
    dataset.MIMETypeOfEncapsulatedDocument = media_type
    (outcome,) = ingest_files(north, as_file(dataset, "1.2.840.10008.5.1.4.1.1.104.2"))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    bulk = radiologist.get(f"{url}/bulkdata/00420011")
    assert bulk["Content-Type"] == "application/octet-stream"
    assert bulk["X-Content-Type-Options"] == "nosniff"
    assert radiologist.get(f"{url}/rendered").status_code == 406
