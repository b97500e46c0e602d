"""Memory, many associations, and peers that send too slowly or too much."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification

from studies.dimse.associations import PULSE_SECONDS
from studies.dimse.transport import sockets
from studies.dimse.transport.sockets import LARGEST_PDU, TunedSocket
from tests.dimse.test_store import send, test_echo_is_answered, wait_until
from tests.factories import make_instance
from tests.services.atrium import Atrium

MEGABYTE = 1 << 20


def memory(atrium: Atrium) -> int:
    """Give the listener's private memory in bytes, at its highest."""
    status = Path(f"/proc/{atrium.processes['dicom'].pid}/status").read_text()
    (anonymous,) = re.findall(r"RssAnon:\s+(\d+) kB", status)
    return int(anonymous) * 1024


def test_a_multi_frame_object_of_300_megabytes_passes_in_little_memory(atrium: Atrium, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(make_instance(pixels=np.zeros((150, 1024, 1024), dtype=np.uint16), PatientID="LARGE"))
    before, highest, is_over = memory(atrium), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not is_over.wait(0.05):
            highest = max(highest, memory(atrium))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert send(atrium, path).returncode == 0
    finally:
        is_over.set()
        watcher.join()
    assert highest - before < 60 * MEGABYTE


def associated(ae: AE, atrium: Atrium) -> Any:
    """Open an association as soon as those that other tests left behind make room."""
    association = None
    deadline = time.monotonic() + 30
    while association is None or not association.is_established:
        assert time.monotonic() < deadline
        association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
    return association


@pytest.mark.database
def test_sixty_four_open_associations_cost_little_and_the_next_is_refused(atrium: Atrium) -> None:
    atrium.manage(
        "shell",
        "--no-imports",
        "-c",
        "from studies.dimse.models import Node\n"
        "Node.objects.filter(ae_title='CT_NORTH').update(maximum_associations=64)",
    )
    before = memory(atrium)
    ae = AE("CT_NORTH")
    ae.add_requested_context(Verification)
    ae.network_timeout = 120
    opened: list[Any] = []
    try:
        for _ in range(64):
            opened.append(associated(ae, atrium))
        assert opened[-1].send_c_echo().Status == 0x0000
        assert memory(atrium) - before < 64 * 2 * MEGABYTE
        refused = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
        assert refused.is_rejected
    finally:
        for association in opened:
            association.release()
    assert wait_until(lambda: ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM").is_established)


def test_a_working_association_tells_its_progress_every_five_seconds(atrium: Atrium) -> None:
    ae = AE("CT_NORTH")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = associated(ae, atrium)
    try:
        for _ in range(2):
            assert association.send_c_store(pydicom.dcmread(BytesIO(make_instance()))).Status == 0x0000
        time.sleep(PULSE_SECONDS + 0.2)
        # What comes next finds that it's time to tell.
        assert association.send_c_store(pydicom.dcmread(BytesIO(make_instance()))).Status == 0x0000
        assert wait_until(lambda: told(atrium).startswith(("2 ", "3 ")))
        stored, received, is_open = told(atrium).split()
        assert int(received) > 2 * 8192
        assert (stored in "23", is_open) == (True, "True")
    finally:
        association.release()
    assert wait_until(lambda: told(atrium).split()[0::2] == ["3", "False"])


def told(atrium: Atrium) -> str:
    """Give what the log says of the newest association: instances stored, bytes received, whether it's open."""
    script = (
        "from studies.dimse.models import AssociationLog as L\n"
        "one = L.objects.filter(ae_title='CT_NORTH').latest('pk')\n"
        "print(one.stored, one.received_bytes, one.closed_at is None)"
    )
    return atrium.manage("shell", "--no-imports", "-c", script).strip().splitlines()[-1]


def test_a_pdu_longer_than_announced_is_refused_without_being_read(atrium: Atrium) -> None:
    with socket.create_connection(("127.0.0.1", atrium.dicom_port), 5) as peer:
        peer.sendall(struct.pack(">BxI", 0x01, LARGEST_PDU * 4000) + b"\0" * 100)
        assert peer.recv(10)[:1] in {b"\x07", b""}  # A-ABORT, or closed
    test_echo_is_answered(atrium)


def test_a_pdu_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PDU_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname(), 5)
        ours, _ = listening.accept()
    owner = SimpleNamespace(dul=SimpleNamespace(event_queue=SimpleNamespace(put=lambda _: None)))
    wrapped = TunedSocket.__new__(TunedSocket)
    wrapped._assoc, wrapped.socket = owner, ours
    theirs.sendall(b"\x01\x00")
    with pytest.raises(TimeoutError):
        wrapped.recv(6)
    ours.close()
    theirs.close()
