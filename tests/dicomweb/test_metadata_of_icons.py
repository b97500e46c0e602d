"""Pixel Data inside sequences: in metadata, as bulk data, and sent back by STOW-RS (PS3.18 §10.4.3.3.2)."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
)

from studies.archive import icons, objects
from studies.archive.codecs import decode
from studies.archive.models import SeriesMetadata
from studies.archive.native_model import to_native_xml
from studies.models import Instance
from tests.dicomweb.retrieving import address, as_file, body_of
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
ICONS, PIXELS = "00880200", "7FE00010"
DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
LARGE, SMALL = np.arange(64 * 64).astype(np.uint8).reshape(64, 64), np.arange(256, dtype=np.uint8).reshape(16, 16)
OCTETS = "application/octet-stream"
XML = 'multipart/related; type="application/dicom+xml"'


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


def icon(pixels: Any, vr: str = "OB", value: bytes | None = None) -> Dataset:
    """Give an item of Icon Image Sequence; ``value`` is what is stored if it isn't the pixels as they are."""
    item = Dataset()
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 0
    item.Rows, item.Columns = pixels.shape
    item.BitsAllocated, item.BitsStored, item.HighBit = 8, 8, 7
    item.add_new(int(PIXELS, 16), vr, pixels.tobytes() if value is None else value)
    return item


def with_icons(*items: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Give an MR image in a native syntax that has these icons."""
    dataset = pydicom.dcmread(BytesIO(make_instance(SOPClassUID=MRImageStorage, Modality="MR")))
    dataset.IconImageSequence = list(items)
    return as_file(Dataset(dict(dataset.items())), MRImageStorage, syntax)


def test_icons_are_inline_or_named_by_an_address_that_gives_them(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    (outcome,) = ingest_files(north, with_icons(icon(LARGE), icon(SMALL)))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    large, small = content[ICONS]["Value"]
    assert large[PIXELS] == {"vr": "OB", "BulkDataURI": f"{url}/bulkdata/{ICONS}.1.{PIXELS}"}
    assert small[PIXELS] == {"vr": "OB", "InlineBinary": base64.b64encode(SMALL.tobytes()).decode()}
    assert list(large) == sorted(large)
    # The image's own pixels are named as ever.
    assert content[PIXELS] == {"vr": "OW", "BulkDataURI": f"{url}/bulkdata/{PIXELS}"}
    assert body_of(radiologist.get(large[PIXELS]["BulkDataURI"], HTTP_ACCEPT=OCTETS)) == LARGE.tobytes()
    part = radiologist.get(large[PIXELS]["BulkDataURI"], HTTP_RANGE="bytes=5-8", HTTP_ACCEPT=OCTETS)
    assert (part.status_code, body_of(part)) == (206, LARGE.tobytes()[5:9])
    xml = b"".join(radiologist.get(f"{url}/metadata", HTTP_ACCEPT=XML)).decode()
    assert f'uri="{url}/bulkdata/{ICONS}.1.{PIXELS}"' in xml
    assert small[PIXELS]["InlineBinary"] in xml


@pytest.mark.parametrize(
    ("syntax", "vr"),
    [
        (ImplicitVRLittleEndian, "OW"),
        (ExplicitVRBigEndian, "OB"),
        (ExplicitVRBigEndian, "OW"),
        (DeflatedExplicitVRLittleEndian, "OB"),
    ],
)
def test_icons_are_given_from_every_native_syntax(
    syntax: str, vr: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    turned = syntax == ExplicitVRBigEndian and vr == "OW"
    stored = np.frombuffer(LARGE.tobytes(), "<u2").astype(">u2").tobytes() if turned else LARGE.tobytes()
    (outcome,) = ingest_files(north, with_icons(icon(LARGE, vr, stored), syntax=syntax))
    assert outcome.is_in, outcome.reason
    (content,) = radiologist.get(address(Instance.objects.get(), "/metadata")).json()
    given = content[ICONS]["Value"][0][PIXELS]
    assert given["vr"] == vr
    assert body_of(radiologist.get(given["BulkDataURI"], HTTP_ACCEPT=OCTETS)) == LARGE.tobytes()


def test_icons_of_compressed_images_and_of_deeper_items_are_given(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    dataset = pydicom.dcmread(str(pydicom.data.get_testdata_file("MR_small_RLE.dcm")))
    reference = Dataset()
    reference.IconImageSequence = [icon(LARGE)]
    dataset.ReferencedImageSequence = [Dataset(), reference]
    output = BytesIO()
    dataset.save_as(output)
    (outcome,) = ingest_files(north, output.getvalue())
    assert outcome.is_in, outcome.reason
    instance = Instance.objects.get()
    assert instance.transfer_syntax_uid == RLELossless
    url = address(instance)
    (content,) = radiologist.get(f"{url}/metadata").json()
    given = content["00081140"]["Value"][1][ICONS]["Value"][0][PIXELS]
    assert given == {"vr": "OB", "BulkDataURI": f"{url}/bulkdata/00081140.2.{ICONS}.1.{PIXELS}"}
    assert body_of(radiologist.get(given["BulkDataURI"], HTTP_ACCEPT=OCTETS)) == LARGE.tobytes()
    assert content[PIXELS] == {"vr": "OB", "BulkDataURI": f"{url}/bulkdata/{PIXELS}"}


def compressed_icon(stream: bytes, **values: Any) -> Dataset:
    item = icon(LARGE, value=encapsulate([stream]))
    for keyword, value in values.items():
        setattr(item, keyword, value)
    item["PixelData"].is_undefined_length = True
    return item


def with_compressed_icons(name: str, *items: Dataset) -> bytes:
    """Give pydicom's compressed image of that name with these icons, the last of them in an item of an item."""
    dataset = pydicom.dcmread(str(pydicom.data.get_testdata_file(name)))
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = MRImageStorage, "1.2.3.4"
    dataset.IconImageSequence = list(items[:-1])
    reference.IconImageSequence = list(items[-1:])
    dataset.ReferencedImageSequence = [reference]
    output = BytesIO()
    dataset.save_as(output)
    return output.getvalue()


def in_rle(samples: Any) -> bytes:
    return bytes(
        RLELosslessEncoder.encode(
            samples,
            rows=samples.shape[0],
            columns=samples.shape[1],
            samples_per_pixel=1,
            bits_allocated=8,
            bits_stored=8,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
            number_of_frames=1,
        )
    )


def test_compressed_icons_are_given_uncompressed_and_left_out_where_they_cannot_be_decoded(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    broken, whole = compressed_icon(b"\x01" * 2000), compressed_icon(in_rle(LARGE))
    (outcome,) = ingest_files(north, with_compressed_icons("MR_small_RLE.dcm", broken, icon(SMALL), whole))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    left_out, native = content[ICONS]["Value"]
    assert PIXELS not in left_out
    assert left_out["00280010"]["Value"] == [64]
    assert base64.b64decode(native[PIXELS]["InlineBinary"]) == SMALL.tobytes()
    path = f"00081140.1.{ICONS}.1.{PIXELS}"
    given = content["00081140"]["Value"][0][ICONS]["Value"][0][PIXELS]
    assert given == {"vr": "OB", "BulkDataURI": f"{url}/bulkdata/{path}"}
    assert body_of(radiologist.get(given["BulkDataURI"], HTTP_ACCEPT=OCTETS)) == LARGE.tobytes()
    assert LARGE.tobytes() in body_of(radiologist.get(f"{url}/bulkdata"))
    assert radiologist.get(f"{url}/bulkdata/{ICONS}.1.{PIXELS}").status_code == 404


def test_a_colour_icon_says_in_which_colours_it_comes(north: Any, ingest_files: Any, radiologist: Client) -> None:
    red, stream = np.full((64, 64, 3), (200, 20, 20), np.uint8), BytesIO()
    Image.fromarray(red).save(stream, "JPEG", quality=95)
    values = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    item = compressed_icon(stream.getvalue(), **values)
    (outcome,) = ingest_files(north, with_compressed_icons("SC_rgb_jpeg_dcmtk.dcm", item, icon(SMALL)))
    assert outcome.is_in, outcome.reason
    (content,) = radiologist.get(address(Instance.objects.get(), "/metadata")).json()
    (given,) = content[ICONS]["Value"]
    assert given["00280004"]["Value"] == ["RGB"]
    pixels = body_of(radiologist.get(given[PIXELS]["BulkDataURI"], HTTP_ACCEPT=OCTETS))
    assert np.abs(np.frombuffer(pixels, np.uint8).reshape(64, 64, 3).astype(int) - red).max() < 8


def test_files_in_another_transfer_syntax_hold_their_icons_uncompressed(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    whole = compressed_icon(in_rle(LARGE))
    (outcome,) = ingest_files(north, with_compressed_icons("MR_small_RLE.dcm", compressed_icon(in_rle(LARGE)), whole))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    for syntax in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless):
        answer = radiologist.get(url, HTTP_ACCEPT=f"application/dicom; transfer-syntax={syntax}")
        assert answer.status_code == 200
        dataset = pydicom.dcmread(BytesIO(body_of(answer)))
        for (item,) in (dataset.IconImageSequence, dataset.ReferencedImageSequence[0].IconImageSequence):
            assert not item["PixelData"].is_undefined_length
            assert item.PixelData == LARGE.tobytes()
    stored = pydicom.dcmread(BytesIO(body_of(radiologist.get(url, HTTP_ACCEPT="application/dicom; transfer-syntax=*"))))
    assert stored.IconImageSequence[0]["PixelData"].is_undefined_length


def encoded(tag: int, vr: bytes, value: bytes) -> bytes:
    """Give an element of undefined length where the value ends as such do."""
    if value.endswith(DELIMITER):
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, 0xFFFFFFFF) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def hostile_icon(*elements: bytes) -> bytes:
    """Give pydicom's MR_small_RLE with an icon of these elements, written as they are."""
    content = Path(str(pydicom.data.get_testdata_file("MR_small_RLE.dcm"))).read_bytes()
    at = content.index(b"\xe0\x7f\x10\x00OB")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + b"".join(elements) + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    return content[:at] + encoded(0x00880200, b"SQ", item + DELIMITER) + content[at:]


def numbers(**values: int | bytes) -> list[bytes]:
    """Give the elements that say how an icon is to be read; bytes stand for a number of eight."""
    usual: dict[str, int | bytes] = {"SamplesPerPixel": 1, "Rows": 64, "Columns": 64, "BitsAllocated": 8}
    usual |= {"BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, **values}
    return [
        encoded(
            tag_for_keyword(name) or 0,
            *((b"FD", value) if isinstance(value, bytes) else (b"US", struct.pack("<H", value))),
        )
        for name, value in usual.items()
    ]


RLE_ICON = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0"


@pytest.mark.parametrize(
    "elements",
    [
        [*numbers(), encoded(0x7FE00010, b"OB", DELIMITER)],
        [*numbers(), encoded(0x7FE00010, b"FD", b"abcd")],
        [*numbers(), encoded(0x7FE00010, b"US", b"abc")],
        [*numbers(Rows=b"abc"), encoded(0x7FE00010, b"OB", RLE_ICON + b"\0\0\0\0" + DELIMITER)],
        [*numbers(Rows=65535, Columns=65535), encoded(0x7FE00010, b"OB", RLE_ICON + b"\0\0\0\0" + DELIMITER)],
    ],
    ids=["no item", "FD", "US", "rows", "huge"],
)
def test_an_icon_that_cannot_be_read_takes_nothing_else_along(
    elements: list[bytes], north: Any, ingest_files: Any, radiologist: Client
) -> None:
    (outcome,) = ingest_files(north, hostile_icon(*elements))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    for where in (f"{url}/metadata", f"{url.rpartition('/instances/')[0]}/metadata"):
        answer = radiologist.get(where)
        assert answer.status_code == 200
        assert answer.json()[0]["00280010"]["Value"] == [64]
    assert radiologist.get(f"{url}/bulkdata/{ICONS}.1.{PIXELS}").status_code == 404
    assert radiologist.get(f"{url}/bulkdata").status_code == 200
    for syntax in ("*", ExplicitVRLittleEndian):
        given = radiologist.get(url, HTTP_ACCEPT=f"application/dicom; transfer-syntax={syntax}")
        assert len(pydicom.dcmread(BytesIO(body_of(given))).PixelData) > 0


def test_many_large_icons_are_not_decoded_all_at_once(
    north: Any, ingest_files: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icons, "MOST", 3 * LARGE.size)
    decoded: list[str] = []
    monkeypatch.setattr(
        icons, "decode", lambda data, syntax, form: decoded.append(syntax) or decode(data, syntax, form)
    )
    (outcome,) = ingest_files(north, with_compressed_icons("MR_small_RLE.dcm", *[compressed_icon(in_rle(LARGE))] * 6))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    items = content[ICONS]["Value"] + content["00081140"]["Value"][0][ICONS]["Value"]
    given = [PIXELS in item for item in items]
    assert given.count(True) == len(decoded) == 3
    decoded.clear()
    assert radiologist.get(f"{url}/bulkdata/{ICONS}.1.{PIXELS}").status_code == 200
    assert len(decoded) == 1


def test_sequences_that_hold_no_pixels_are_copied_as_they_stand() -> None:
    item = Dataset()
    item.ImagePositionPatient = [0, 0, 1]
    dataset = Dataset()
    dataset.PlanePositionSequence = [item]
    output = BytesIO()
    pydicom.dcmwrite(output, dataset, implicit_vr=False, little_endian=True)
    read = pydicom.dcmread(BytesIO(output.getvalue()), force=True)
    icons.uncompress_icons(read, RLELossless)
    assert isinstance(read.get_item("PlanePositionSequence"), RawDataElement)


def test_streams_in_an_uncompressed_file_are_left_out(north: Any, ingest_files: Any, radiologist: Client) -> None:
    (outcome,) = ingest_files(north, with_icons(compressed_icon(in_rle(LARGE)), icon(SMALL)))
    assert outcome.is_in, outcome.reason
    (content,) = radiologist.get(address(Instance.objects.get(), "/metadata")).json()
    assert [PIXELS in item for item in content[ICONS]["Value"]] == [False, True]


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_metadata_and_bulk_data_sent_back_make_the_icons_again(
    kind: str, north: Any, ingest_files: Any, radiologist: Client, token_of: Any
) -> None:
    (outcome,) = ingest_files(north, with_icons(icon(LARGE), icon(SMALL)))
    assert outcome.is_in, outcome.reason
    url = address(Instance.objects.get())
    (content,) = radiologist.get(f"{url}/metadata").json()
    answer = radiologist.get(f"{url}/bulkdata")
    bulk = message_from_bytes(b"Content-Type: " + answer["Content-Type"].encode() + b"\r\n\r\n" + body_of(answer))
    content["00080018"]["Value"] = ["1.2.3.99"]
    written = json.dumps([content]).encode() if kind == "json" else to_native_xml(content)
    body = b"--frontier\r\nContent-Type: application/dicom+%s\r\n\r\n%s\r\n" % (kind.encode(), written)
    for part in bulk.get_payload():
        head = "".join(f"{name}: {part[name]}\r\n" for name in ("Content-Type", "Content-Location"))  # type: ignore[index]
        body += f"--frontier\r\n{head}\r\n".encode() + part.get_payload(decode=True) + b"\r\n"  # type: ignore
    sent = Client().post(
        "/dicom-web/studies",
        body + b"--frontier--\r\n",
        content_type=f'multipart/related; type="application/dicom+{kind}"; boundary=frontier',
        HTTP_AUTHORIZATION=f"Bearer {token_of('technologist')}",
    )
    assert sent.status_code == 200, sent.content
    again = pydicom.dcmread(BytesIO(objects.read_instance(Instance.objects.get(sop_instance_uid="1.2.3.99"))))
    first, second = again.IconImageSequence
    assert first["PixelData"].VR == second["PixelData"].VR == "OB"
    assert (first.PixelData, second.PixelData) == (LARGE.tobytes(), SMALL.tobytes())
    assert (first.Rows, second.Rows) == (64, 16)


def test_metadata_that_were_kept_without_icons_are_built_anew(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, with_icons(icon(SMALL)))
    url = address(Instance.objects.get()).rpartition("/instances/")[0]
    today = radiologist.get(f"{url}/metadata")
    SeriesMetadata.objects.update(form=2, content=b"", etag="0" * 64)
    again = radiologist.get(f"{url}/metadata")
    assert again.json() == today.json()
    assert PIXELS in again.json()[0][ICONS]["Value"][0]


def test_a_validator_of_what_had_no_icons_is_none_of_what_has_them(
    north: Any, ingest_files: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_files(north, with_icons(icon(LARGE)))
    url = address(Instance.objects.get())
    for below, form in (
        ("/metadata", "studies.archive.metadata.FORM"),
        ("/bulkdata", "studies.dicomweb.wado_bulk.FORM"),
    ):
        with monkeypatch.context() as earlier:
            earlier.setattr(form, 2)
            kept = radiologist.get(f"{url}{below}")["ETag"]
        assert radiologist.get(f"{url}{below}", HTTP_IF_NONE_MATCH=kept).status_code == 200
