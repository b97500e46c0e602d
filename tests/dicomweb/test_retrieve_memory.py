"""What a running server needs in memory to send much: it stays flat, whatever the size and the form."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import RLELossless

from tests.dicomweb.retrieving import SERIES, STUDY, UIDS
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

FRAMES, SIDE, INSTANCES = 96, 1024, 8
MEGABYTE = 1 << 20
# Seven instances more in the index for the one large object: a study of 1.5 GB that takes no room on disk.
COPIES = 7
INDEXED_AGAIN = """
from studies.counting import count_series, count_study
from studies.models import Instance
one = Instance.objects.select_related("series__study").get(sop_instance_uid="{sop}")
for number in range(1, {copies} + 1):
    one.pk, one.sop_instance_uid, one.instance_number = None, f"{sop}.{{number}}", number + 1
    one.save(force_insert=True)
count_series({{one.series_id}})
count_study(one.series.study)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    """Give a server that holds one object of 192 MB and eight of 24 MB."""
    folder = tmp_path_factory.mktemp("large")
    with running_atrium(tmp_path_factory.mktemp("server"), "web") as atrium:
        ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint16), (FRAMES, SIDE, SIDE))
        (folder / "large.dcm").write_bytes(make_instance(**UIDS, pixels=ramp, SOPInstanceUID=f"{SERIES}.1"))
        for number in range(INSTANCES):
            content = make_instance(
                StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1", pixels=ramp[:12], InstanceNumber=number
            )
            (folder / f"{number}.dcm").write_bytes(content)
        uids = {"StudyInstanceUID": "1.2.20", "SeriesInstanceUID": "1.2.20.1", "SOPInstanceUID": "1.2.20.1.1"}
        (folder / "again.dcm").write_bytes(make_instance(**uids, pixels=ramp))
        atrium.manage("import", str(folder), "--site", "north")
        again = INDEXED_AGAIN.format(sop="1.2.20.1.1", copies=COPIES)
        atrium.manage("shell", "--no-imports", "-c", again)
        yield atrium


@pytest.fixture(scope="module")
def session(server: Atrium) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {server.token('radiologist')}"
    return session


def memory_of(server: Atrium) -> int:
    """Give the resident bytes of the server's processes."""
    group = server.processes["web"].pid
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += int((folder / "statm").read_text().split()[1]) * 4096
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


@pytest.mark.parametrize(
    ("path", "accept", "least"),
    [
        (f"studies/{STUDY}", "*/*", 190),
        ("studies/1.2.9", 'multipart/related; type="application/dicom"', 190),
        ("studies/1.2.9", "application/zip", 190),
        ("studies/1.2.20", 'multipart/related; type="application/dicom"', 1530),
        ("studies/1.2.20", "application/zip", 1530),
        (f"studies/{STUDY}", 'multipart/related; type="application/octet-stream"', 190),
        (f"studies/{STUDY}", f'multipart/related; type="application/dicom"; transfer-syntax={RLELossless}', 1),
        (f"studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/bulkdata/7FE00010", "*/*", 190),
    ],
)
def test_memory_stays_flat(path: str, accept: str, least: int, server: Atrium, session: requests.Session) -> None:
    session.get(f"{server.url}/dicom-web/studies/1.2.9/metadata", timeout=60).raise_for_status()
    before = memory_of(server)
    most = length = seen = 0
    with session.get(f"{server.url}/dicom-web/{path}", headers={"Accept": accept}, stream=True, timeout=120) as answer:
        assert answer.status_code == 200
        for chunk in answer.iter_content(MEGABYTE):
            length += len(chunk)
            if length // (16 * MEGABYTE) > seen:
                seen = length // (16 * MEGABYTE)
                most = max(most, memory_of(server))
    assert length > least * MEGABYTE
    assert most - before < 80 * MEGABYTE


def test_one_frame_of_a_large_object_is_rendered_with_little(server: Atrium, session: requests.Session) -> None:
    before = memory_of(server)
    url = f"{server.url}/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/frames/90/rendered"
    assert session.get(url, timeout=60).status_code == 200
    assert memory_of(server) - before < 80 * MEGABYTE


def test_an_outside_client_gets_frames_bulk_data_and_pictures(server: Atrium, session: requests.Session) -> None:
    client = DICOMwebClient(f"{server.url}/dicom-web", session=session)
    uids = (STUDY, SERIES, f"{SERIES}.1")
    (frame,) = client.retrieve_instance_frames(
        *uids, frame_numbers=[96], media_types=(("image/jp2", "1.2.840.10008.1.2.4.90"),)
    )
    assert frame.startswith(b"\xff\x4f\xff\x51")
    (octets,) = client.retrieve_instance_frames(*uids, frame_numbers=[3], media_types=("application/octet-stream",))
    assert np.array_equal(np.frombuffer(octets, "<u2").reshape(SIDE, SIDE)[5], np.arange(SIDE))
    (metadata,) = client.retrieve_series_metadata(STUDY, SERIES)
    address = f"{server.url}/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/bulkdata/7FE00010"
    assert metadata["7FE00010"]["BulkDataURI"].endswith("bulkdata/7FE00010")
    (part,) = client.retrieve_bulkdata(address, byte_range=(0, 15))
    assert np.array_equal(np.frombuffer(part, "<u2"), np.arange(8))
    assert client.retrieve_instance_frames_rendered(*uids, frame_numbers=[2], media_types=("image/png",)).startswith(
        b"\x89PNG"
    )
    assert client.retrieve_instance_rendered(
        *uids, media_types=("image/jpeg",), params={"viewport": "64,64", "window": "500,800,linear"}
    ).startswith(b"\xff\xd8")
    (dataset,) = client.retrieve_series("1.2.9", "1.2.9.1", media_types=(("application/dicom", RLELossless),))[:1]
    assert dataset.file_meta.TransferSyntaxUID == RLELossless


@pytest.mark.database
def test_many_clients_that_read_slowly_hold_up_nobody(server: Atrium, session: requests.Session) -> None:
    token = session.headers["Authorization"]
    slow = []
    try:
        for _ in range(24):
            client = socket.create_connection(("127.0.0.1", server.http_port), 30)
            slow.append(client)
            client.sendall(
                f"GET /dicom-web/studies/1.2.9 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n"
                'Accept: multipart/related; type="application/dicom"\r\n\r\n'.encode()
            )
            assert client.recv(12) == b"HTTP/1.1 200"
        answer = session.get(f"{server.url}/dicom-web/studies?PatientID=P1", timeout=10)
        assert answer.status_code == 200
    finally:
        for client in slow:
            client.close()
