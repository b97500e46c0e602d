"""The non-patient instance service (PS3.18 §12): stored for a site, found, given back as they were."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from studies.archive.models import NonPatientInstance
from studies.archive.native_model import from_native_xml
from tests.dicomweb.retrieving import body_of
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
PALETTES = "/dicom-web/color-palettes"
DICOM = "application/dicom"


def palette(
    uid: str = "1.2.3.1",
    label: str = "HOT_IRON",
    sop_class: str = "1.2.840.10008.5.1.4.39.1",
    syntax: str = ExplicitVRLittleEndian,
) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.ContentLabel, dataset.ContentDescription = label, "Heiß"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ContentCreatorName = "Müller^Jörg"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = UID(syntax)
    words = b"\0\1\2\3" if syntax == ExplicitVRBigEndian else b"\1\0\3\2"
    dataset.RedPaletteColorLookupTableData = words
    buffer = BytesIO()
    file = FileDataset(None, dataset, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def technologist(client_of: Any) -> Client:
    browser: Client = client_of("technologist")
    return browser


def test_it_is_stored_once_found_and_given_back_as_it_was(technologist: Client) -> None:
    content = palette()
    answer = technologist.post(PALETTES, content, content_type=DICOM)
    assert answer.status_code == 200
    (stored,) = answer.json()["00081199"]["Value"]
    assert stored["00081155"]["Value"] == ["1.2.3.1"]
    assert technologist.post(f"{PALETTES}/1.2.3.1", content, content_type=DICOM).status_code == 200
    assert NonPatientInstance.objects.count() == 1
    given = technologist.get(f"{PALETTES}/1.2.3.1", HTTP_ACCEPT=DICOM)
    assert body_of(given) == content
    described = technologist.get(f"{PALETTES}/1.2.3.1", HTTP_ACCEPT="application/dicom+json").json()
    assert described[0]["00700080"]["Value"] == ["HOT_IRON"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 2),
        ("ContentLabel=PET", 1),
        ("00700080=HOT*", 1),
        ("00700080=hot*", 0),
        ("ContentCreatorName=m?ller*", 2),
        ("ContentLabel=NONE", 0),
        ("limit=1", 1),
        ("offset=1", 1),
    ],
)
def test_a_search_finds_what_matches(query: str, count: int, technologist: Client) -> None:
    technologist.post(PALETTES, palette(), content_type=DICOM)
    technologist.post(PALETTES, palette("1.2.3.2", "PET"), content_type=DICOM)
    answer = technologist.get(f"{PALETTES}?{query}")
    assert (len(answer.json()) if answer.status_code == 200 else 0) == count
    assert ("Additional results" in answer.headers.get("Warning", "")) == (query == "limit=1")


@pytest.mark.parametrize(
    "query",
    [
        "NoSuchThing=1",
        "=1",
        "ContentLabel=PET&ContentLabel=HOT_IRON",
        "ContentLabel=PET&00700080=HOT_IRON",
        "ContentLabel=P%FCT",
        "ContentLabel=" + "x" * 201,
    ],
)
def test_a_search_for_what_is_no_key_is_refused(query: str, technologist: Client) -> None:
    technologist.post(PALETTES, palette(), content_type=DICOM)
    assert technologist.get(f"{PALETTES}?{query}").status_code == 400


def test_another_object_of_the_same_uid_is_refused_and_the_first_stays(technologist: Client) -> None:
    assert technologist.post(PALETTES, palette(), content_type=DICOM).status_code == 200
    answer = technologist.post(PALETTES, palette(label="OTHER"), content_type=DICOM)
    (failed,) = answer.json()["00081198"]["Value"]
    assert (answer.status_code, failed["00081197"]["Value"]) == (409, [0x0111])
    (kept,) = technologist.get(PALETTES).json()
    assert kept["00700080"]["Value"] == ["HOT_IRON"]


@pytest.mark.parametrize(
    "stored", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_it_is_given_in_the_transfer_syntax_that_is_asked_for(stored: str, technologist: Client) -> None:
    content = palette(syntax=stored)
    assert technologist.post(PALETTES, content, content_type=DICOM).status_code == 200
    url, red = f"{PALETTES}/1.2.3.1", b"\1\0\3\2"
    # What's deflated may be a thousand times as long.
    is_deflated = stored == DeflatedExplicitVRLittleEndian
    by_default = stored if is_deflated else ExplicitVRLittleEndian
    explicit = [] if is_deflated else [(ExplicitVRLittleEndian,) * 2]
    for asked, given in (("", by_default), ("*", stored), (stored,) * 2, *explicit):
        answer = technologist.get(url, HTTP_ACCEPT=f"{DICOM}; transfer-syntax={asked}" if asked else DICOM)
        assert answer["Content-Type"] == f"{DICOM}; transfer-syntax={given}"
        given_content = body_of(answer)
        dataset = pydicom.dcmread(BytesIO(given_content))
        assert dataset.file_meta.TransferSyntaxUID == given
        words = np.frombuffer(dataset.RedPaletteColorLookupTableData, ">u2" if given == ExplicitVRBigEndian else "<u2")
        assert words.astype("<u2").tobytes() == red
        assert (given_content == content) == (given == stored)
    assert is_deflated == (
        technologist.get(url, HTTP_ACCEPT=f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.1").status_code == 406
    )
    jpeg = f"{DICOM}; transfer-syntax={JPEGBaseline8Bit}"
    refused = technologist.get(url, HTTP_ACCEPT=jpeg)
    assert (refused.status_code, jpeg in refused.json()["available"]) == (406, False)
    described = technologist.get(url, HTTP_ACCEPT=f"{jpeg}, application/dicom+json").json()
    assert b64decode(described[0]["00281201"]["InlineBinary"]) == red
    second = technologist.get(url, HTTP_ACCEPT=f'multipart/related; type="application/dicom+json", {DICOM};q=0.5')
    assert second["Content-Type"].startswith(DICOM + ";")


def test_the_same_validator_means_the_same_bytes_and_a_wildcard_takes_what_is_not_refused(technologist: Client) -> None:
    for uid in ("1.2.3.1", "1.2.3.2"):
        technologist.post(PALETTES, palette(uid), content_type=DICOM)
    xml = 'multipart/related; type="application/dicom+xml"'
    first, second = (technologist.get(f"{PALETTES}/1.2.3.1", HTTP_ACCEPT=xml) for _ in range(2))
    assert (first["ETag"], first["Content-Type"], first.content) == (
        second["ETag"],
        second["Content-Type"],
        second.content,
    )
    without = technologist.get(f"{PALETTES}/1.2.3.1", HTTP_ACCEPT="application/dicom;q=0, */*")
    assert without["Content-Type"] == "application/dicom+json"
    several = technologist.get(PALETTES, HTTP_ACCEPT="application/dicom+json;q=0, */*")
    assert several["Content-Type"].startswith(xml)


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        (PALETTES, b"no dicom", 409),
        (PALETTES, make_instance(), 409),
        ("/dicom-web/hanging-protocols", palette(), 409),
        (f"{PALETTES}/1.2.9", palette(), 409),
        ("/dicom-web/wallpapers", palette(), 404),
    ],
    ids=["no DICOM", "an image", "another category", "another UID", "no category"],
)
def test_what_does_not_belong_there_is_refused(path: str, content: bytes, status: int, technologist: Client) -> None:
    assert technologist.post(path, content, content_type=DICOM).status_code == status
    assert not NonPatientInstance.objects.exists()


def test_what_is_refused_is_named_as_far_as_it_can_be(technologist: Client) -> None:
    for path, content, reason in (
        (PALETTES, make_instance(SOPInstanceUID="1.2.3.1"), 0xA900),
        (f"{PALETTES}/1.2.9", palette(), 0xA900),
        (PALETTES, palette()[:-3], 0xC000),
    ):
        answer = technologist.post(path, content, content_type=DICOM).json()
        assert answer["00081190"] == {"vr": "UR"}
        (failed,) = answer["00081198"]["Value"]
        assert list(failed) == sorted(failed)
        assert failed["00081150"]["Value"][0].startswith("1.2.840.10008.5.1.4.")
        assert (failed["00081155"]["Value"], failed["00081197"]["Value"]) == (["1.2.3.1"], [reason])
    nameless = technologist.post(PALETTES, b"no dicom", content_type=DICOM).json()
    assert "00081198" not in nameless
    assert nameless["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]


def test_the_answer_to_a_store_comes_as_xml_where_wanted(technologist: Client) -> None:
    answer = technologist.post(PALETTES, palette(), content_type=DICOM, HTTP_ACCEPT="application/dicom+xml")
    assert answer["Content-Type"] == "application/dicom+xml"
    (stored,) = from_native_xml(answer.content)["00081199"]["Value"]
    assert stored["00081190"]["Value"] == ["http://testserver/dicom-web/color-palettes/1.2.3.1"]


def test_it_is_the_sites_own(technologist: Client, client_of: Any) -> None:
    technologist.post(PALETTES, palette(), content_type=DICOM)
    assert client_of("southradiologist").get(f"{PALETTES}/1.2.3.1").status_code == 404
    assert client_of("southradiologist").get(PALETTES).status_code == 204
    assert client_of("referrer").get(PALETTES).status_code == 403
    assert client_of("resident").post(PALETTES, palette(), content_type=DICOM).status_code == 403
    assert Client().get(PALETTES).status_code == 401
