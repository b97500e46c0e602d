"""Files and bad luck that must neither bring the archive down nor take others along."""

from __future__ import annotations

import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from django.core.files.storage import storages
from django.db import OperationalError
from pydicom import uid

from studies.archive import objects
from studies.archive.errors import ObjectMissing
from studies.archive.metadata import build_due_metadata
from studies.archive.models import SeriesMetadata
from studies.ingest import index
from studies.ingest.incoming import check
from studies.ingest.services import Source, Status, WayIn, stage
from studies.ingest.sources import UnacceptableZip, members_of
from studies.models import Instance, Series
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}


def without_pixels(**keywords: Any) -> bytes:
    dataset = pydicom.dcmread(BytesIO(make_instance(**keywords)))
    del dataset.PixelData
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def deflated(content: bytes) -> bytes:
    dataset = pydicom.dcmread(BytesIO(content))
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def of_syntax(name: bytes) -> bytes:
    """Give an instance whose file meta information names any transfer syntax, however long."""
    content = make_instance()
    at = content.index(b"\x02\x00\x10\x00UI")
    (length,) = struct.unpack_from("<H", content, at + 6)
    return content[: at + 6] + struct.pack("<H", len(name)) + name + content[at + 8 + length :]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(of_syntax(b"1.2.840." + b"1" * 80), id="a transfer syntax too long"),
        pytest.param(of_syntax(b"1.2.840\x0010008.1.2.1"), id="a transfer syntax with a NUL"),
        pytest.param(of_syntax(b"1.2\r\nX-Other: 1"), id="a transfer syntax that is a header"),
        pytest.param(make_instance().replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00UJ"), id="no such VR"),
        pytest.param(
            make_instance(Rows=1, Columns=1, BitsAllocated=1, BitsStored=1, HighBit=0, NumberOfFrames=10**10),
            id="ten milliard frames of a bit",
        ),
        pytest.param(deflated(make_instance(NumberOfFrames=10**10)), id="deflated, and cut short"),
        pytest.param(deflated(make_instance())[:-200] + b"\xff" * 200, id="deflated, and broken"),
    ],
)
def test_what_nobody_could_read_later_is_refused(content: bytes, north: Any, ingest_files: Any) -> None:
    outcomes = ingest_files(north, make_instance(), content)
    assert [o.status for o in outcomes] == [Status.STORED, Status.REFUSED]
    assert outcomes[1].reason


def test_numbers_beyond_a_column_are_left_out(north: Any, ingest_files: Any) -> None:
    (outcome,) = ingest_files(north, without_pixels(BitsAllocated=65535, NumberOfFrames=10**11))
    assert outcome.status is Status.STORED
    kept = Instance.objects.get()
    assert (kept.bits_allocated, kept.number_of_frames) == (None, 0)


def test_a_deflated_object_keeps_its_frames(north: Any, ingest_files: Any) -> None:
    ingest_files(north, deflated(make_instance()), deflated(without_pixels()))
    assert list(Instance.objects.order_by("pk").values_list("number_of_frames", flat=True)) == [1, 0]


def test_a_file_that_cannot_be_indexed_takes_no_other_along(north: Any, people: Any) -> None:
    files = [check(stage([make_instance(StudyInstanceUID="1.2.3")])) for _ in range(3)]
    for number, file in enumerate(files):
        file.object_key = f"north/{number}.dcm"
        file.is_placed = number != 1
    outcomes = index.commit(files, Source(WayIn.STOW, north, principal_of(people["admin"])))
    assert [o.status for o in outcomes] == [Status.STORED, Status.FAILED, Status.STORED]
    assert Series.objects.count() == 2


@pytest.mark.parametrize(("patience", "attempts"), [(0.0, 1), (60.0, index.COMMIT_ATTEMPTS)])
def test_a_database_that_holds_a_sender_up_is_not_asked_again(
    patience: float, attempts: int, north: Any, ingest_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def locked(*_: Any) -> None:
        asked.append(1)
        raise OperationalError("database is locked")

    monkeypatch.setattr(index, "COMMIT_PATIENCE", patience)
    monkeypatch.setattr(index, "_index", locked)
    (outcome,) = ingest_files(north, make_instance(**UIDS))
    assert (outcome.status, outcome.dicom_status) == (Status.FAILED, 0x0110)
    assert len(asked) == attempts


def test_what_storage_has_lost_is_put_back_by_sending_it_again(north: Any, ingest_files: Any) -> None:
    content = make_instance(**UIDS)
    ingest_files(north, content)
    kept = Instance.objects.get()
    storages["objects"].delete(kept.object_key)
    other = pydicom.dcmread(BytesIO(content))
    other.file_meta.ImplementationVersionName = "OTHER"
    buffer = BytesIO()
    other.save_as(buffer)
    (outcome,) = ingest_files(north, buffer.getvalue())
    assert outcome.status is Status.FAILED, "these aren't the bytes that the index names"
    (outcome,) = ingest_files(north, content)
    assert outcome.status is Status.DUPLICATE
    assert objects.read_instance(kept) == content


def test_one_series_that_cannot_be_read_holds_up_no_others_metadata(north: Any, ingest_files: Any) -> None:
    ingest_files(north, make_instance(SeriesInstanceUID="1.2.1"), make_instance(SeriesInstanceUID="1.2.2"))
    broken = Instance.objects.get(series__series_instance_uid="1.2.1")
    with Path(storages["objects"].path(broken.object_key)).open("r+b") as file:
        file.seek(128)
        file.write(b"XXXX")
    Series.objects.update(metadata_due_at="2020-01-01T00:00:00Z")
    build_due_metadata()
    assert list(SeriesMetadata.objects.values_list("series__series_instance_uid", flat=True)) == ["1.2.2"]
    assert not Series.objects.filter(metadata_due_at__isnull=False).exists()


def test_an_object_that_is_gone_reaches_nowhere() -> None:
    assert not objects.reaches("nowhere.dcm", 1)
    with pytest.raises(ObjectMissing):
        objects.digest("nowhere.dcm", 0, 1)


@pytest.mark.parametrize("what", ["checksum", "stream"])
def test_a_broken_file_in_a_zip_is_said_so(what: str) -> None:
    content = make_instance()
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    whole = buffer.getvalue()
    if what == "checksum":
        broken = whole.replace(struct.pack("<I", zlib.crc32(content)), b"\1\2\3\4")
    else:
        broken = whole[:31] + b"\xff" * 8 + whole[39:]
    members = members_of(BytesIO(broken))
    member = next(members)
    with pytest.raises(UnacceptableZip):
        b"".join(member.chunks)
