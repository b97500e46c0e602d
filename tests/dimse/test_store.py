"""The DICOM listener before real peers: dcmtk's tools, pynetdicom, and peers that misbehave."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, _config
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage, Verification

from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

# Data sets go from file to network without being parsed, so that even broken ones can be sent.
_config.STORE_SEND_CHUNKED_DATASET = True


def dcmtk(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"dcmtk's {tool} isn't installed")
    return found


def send(atrium: Atrium, *files: Path, ae_title: str = "CT_NORTH") -> subprocess.CompletedProcess[str]:
    """Send files with storescu, which proposes each file's own transfer syntax."""
    command = [dcmtk("storescu"), "-aet", ae_title, "-aec", "ATRIUM", "127.0.0.1"]
    return subprocess.run([*command, str(atrium.dicom_port), *map(str, files)], capture_output=True, text=True)


def split(content: bytes) -> tuple[Any, bytes]:
    """Give the file meta information and the data set's bytes, by pydicom's reading of them."""
    buffer = BytesIO(content)
    pydicom.filereader.read_preamble(buffer, force=False)
    meta = pydicom.filereader._read_file_meta_info(buffer)
    return meta, content[buffer.tell() :]


def dataset_bytes(content: bytes) -> bytes:
    return split(content)[1]


def store(atrium: Atrium, path: Path, ae_title: str = "CT_NORTH") -> int | None:
    """Send a file's data set as it is, in its own transfer syntax; give the status, None when nothing was answered."""
    meta, _ = split(path.read_bytes())
    ae = AE(ae_title)
    ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
    assert association.is_established
    try:
        answer = association.send_c_store(path)
        return answer.get("Status")
    finally:
        association.release()


def store_request(content: bytes, length: int) -> C_STORE:
    """Give a C-STORE request whose data set is cut after ``length`` bytes."""
    meta, dataset = split(content)
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = meta.MediaStorageSOPClassUID
    request.AffectedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    request.Priority = 2
    request.DataSet = BytesIO(dataset[:length])
    return request


def retrieve(atrium: Atrium, token: str, dataset: Any) -> bytes:
    answer = requests.get(
        f"{atrium.url}/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}",
        headers={"Authorization": f"Bearer {token}", "Accept": "application/dicom; transfer-syntax=*"},
        timeout=30,
    )
    answer.raise_for_status()
    return answer.content


@pytest.fixture(scope="module")
def token(atrium: Atrium) -> str:
    return atrium.token("radiologist")


def test_echo_is_answered(atrium: Atrium) -> None:
    command = [dcmtk("echoscu"), "-aet", "CT_NORTH", "-aec", "ATRIUM", "127.0.0.1", str(atrium.dicom_port)]
    assert subprocess.run(command).returncode == 0


def test_a_peer_that_wants_to_shut_us_down_is_let_talk(atrium: Atrium) -> None:
    command = [dcmtk("termscu"), "-v", "-aet", "CT_NORTH", "-aec", "ATRIUM", "127.0.0.1", str(atrium.dicom_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Association Accepted" in done.stdout + done.stderr or "No Acceptable" in done.stdout + done.stderr
    command[command.index("CT_NORTH")] = "STRANGER"
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0
    test_echo_is_answered(atrium)


def test_an_unknown_caller_and_a_wrong_called_title_are_refused(atrium: Atrium) -> None:
    for calling, called in (("STRANGER", "ATRIUM"), ("CT_NORTH", "ELSEWHERE")):
        command = [dcmtk("echoscu"), "-aet", calling, "-aec", called, "127.0.0.1", str(atrium.dicom_port)]
        assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.database
def test_storescu_sends_and_the_data_set_comes_back_as_it_was(atrium: Atrium, token: str, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(make_instance())
    sent = send(atrium, path)
    assert sent.returncode == 0, sent.stderr
    assert dataset_bytes(retrieve(atrium, token, pydicom.dcmread(path))) == dataset_bytes(path.read_bytes())


def test_every_readable_real_file_goes_in_and_comes_back(shared: Path, atrium: Atrium, token: str) -> None:
    files = [p for p in sorted((shared / "dicom").rglob("*.dcm")) if "malformed" not in p.parts]
    assert len(files) > 60
    for path in files:
        content = path.read_bytes()
        assert store(atrium, path) == 0x0000, path.name
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert dataset_bytes(retrieve(atrium, token, dataset)) == dataset_bytes(content), path.name


def test_every_malformed_file_that_can_be_sent_is_refused(shared: Path, atrium: Atrium) -> None:
    sent = 0
    for path in sorted((shared / "dicom" / "malformed").iterdir()):
        content = path.read_bytes()
        if content[128:132] != b"DICM":
            continue  # without file meta information there's nothing to negotiate
        assert store(atrium, path) not in {0x0000, None}, path.name
        sent += 1
    assert sent >= 4


@pytest.mark.database
def test_what_one_site_sends_is_not_seen_at_the_other(atrium: Atrium, tmp_path: Path) -> None:
    path = tmp_path / "south.dcm"
    path.write_bytes(make_instance(PatientID="SOUTHERNER"))
    assert send(atrium, path, ae_title="CT_SOUTH").returncode == 0
    headers = {"Authorization": f"Bearer {atrium.token('technologist')}"}
    found = requests.get(f"{atrium.url}/dicom-web/studies?PatientID=SOUTHERNER", headers=headers, timeout=30)
    assert found.status_code == 204


def test_peers_that_send_garbage_do_not_disturb_others(atrium: Atrium) -> None:
    address = ("127.0.0.1", atrium.dicom_port)
    noise = [
        os.urandom(4096),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + b"\x00" * 64,
        b"\x04\x00\x00\x00\x00\x00",
        b"",
    ]
    hanging = []
    for data in noise:
        peer = socket.create_connection(address, 5)
        peer.sendall(data)
        hanging.append(peer)
    test_echo_is_answered(atrium)
    for peer in hanging:
        peer.close()
    test_echo_is_answered(atrium)


@pytest.mark.database
def test_a_peer_that_aborts_in_the_middle_leaves_nothing_visible(atrium: Atrium, token: str) -> None:
    content = make_instance(pixels=np.zeros((1024, 1024), dtype=np.uint16), PatientID="ABORTED")
    ae = AE("CT_NORTH")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
    threading.Timer(0.02, association.abort).start()
    association.dimse.send_msg(store_request(content, 500_000), 1)
    association.abort()
    test_echo_is_answered(atrium)
    headers = {"Authorization": f"Bearer {token}"}
    found = requests.get(f"{atrium.url}/dicom-web/studies?PatientID=ABORTED", headers=headers, timeout=30)
    assert found.status_code == 204


def test_a_data_set_that_breaks_off_leaves_no_file(atrium: Atrium) -> None:
    staging = atrium.data / "staging"
    ae = AE("CT_NORTH")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
    meta, dataset = split(make_instance(pixels=np.zeros((1024, 1024), dtype=np.uint16)))
    message = C_STORE_RQ()
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 1, 2
    primitive.AffectedSOPClassUID = meta.MediaStorageSOPClassUID
    primitive.AffectedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    primitive.DataSet = BytesIO(dataset)
    message.primitive_to_message(primitive)
    for fragment in islice(message.encode_msg(1, 16382), 6):
        association.dul.send_pdu(fragment)
    assert wait_until(lambda: any(staging.iterdir()))
    association.abort()
    assert wait_until(lambda: not any(staging.iterdir()))
    test_echo_is_answered(atrium)


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()


def test_killed_in_the_middle_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    study, series = generate_uid(), generate_uid()
    contents = [
        make_instance(
            pixels=rng.integers(0, 4000, (256, 256), dtype=np.uint16),
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            InstanceNumber=number,
        )
        for number in range(1, 201)
    ]
    with running_atrium(tmp_path / "atrium", "web", "dicom") as atrium:
        token = atrium.token("radiologist")
        acknowledged = _send_until_killed(atrium, contents)
        assert 0 < len(acknowledged) < len(contents)
        atrium.start("dicom")
        for content in acknowledged:
            dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
            assert dataset_bytes(retrieve(atrium, token, dataset)) == dataset_bytes(content)
        headers = {"Authorization": f"Bearer {token}"}
        listed = requests.get(f"{atrium.url}/dicom-web/studies/{study}/instances", headers=headers, timeout=30).json()
        assert len(acknowledged) <= len(listed) <= len(acknowledged) + 1
        for item in listed:
            one = requests.get(
                item["00081190"]["Value"][0],
                headers={**headers, "Accept": "application/dicom; transfer-syntax=*"},
                timeout=30,
            )
            assert one.content[-256 * 256 * 2 :] in {c[-256 * 256 * 2 :] for c in contents}
        for content in contents:
            path = tmp_path / "again.dcm"
            path.write_bytes(content)
            assert store(atrium, path) == 0
        listed = requests.get(f"{atrium.url}/dicom-web/studies/{study}/instances", headers=headers, timeout=30).json()
        assert len(listed) == len(contents)


def _send_until_killed(atrium: Atrium, contents: list[bytes]) -> list[bytes]:
    """Send one after another and kill the listener after a while; give those that were acknowledged."""
    ae = AE("CT_NORTH")
    ae.dimse_timeout = ae.network_timeout = 5
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
    acknowledged = []
    for number, content in enumerate(contents):
        if number == 60:
            threading.Timer(0.02, atrium.kill, ["dicom"]).start()
        if not association.is_established:
            break
        status = association.send_c_store(pydicom.dcmread(BytesIO(content)))
        if status and status.Status == 0x0000:
            acknowledged.append(content)
    association.abort()
    return acknowledged
