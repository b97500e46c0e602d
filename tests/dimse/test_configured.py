"""What is configured: private storage classes both ways, and commitment that reads every byte."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt, register_uid
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet, StudyRootQueryRetrieveInformationModelMove

from tests.dimse.test_commitment import Reports, request
from tests.dimse.test_query import keys
from tests.dimse.test_retrieve import Sink, get, move
from tests.dimse.test_store import dataset_bytes, store
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.ports import free_port

PRIVATE, UNKNOWN = "1.2.826.0.1.3680043.9.7133.1.1", "1.2.826.0.1.3680043.9.7133.1.2"
LARGEST = 1_000_000
FETCH = """
from accounts.models import Site
from studies.dimse import queue
from studies.dimse.models import Node, Transfer
from studies.dimse.transfers import queue_retrieval
node = Node.objects.create(ae_title="FAR", site=Site.objects.get(slug="north"), host="127.0.0.1", port={port},
    may_be_queried=True, retrieve_by="get")
queue_retrieval(node=node, study_instance_uid="{study}", origin=Transfer.Origin.PERSON)
queue.work_off(node.pk, "retrieve")
print(Transfer.objects.get().status, Transfer.objects.get().completed)
"""
NODES = """
from accounts.models import Site
from studies.dimse.models import Node
Node.objects.create(ae_title="SINK", site=Site.objects.get(slug="north"), host="127.0.0.1", port={port},
    may_receive=True)
"""


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    register_uid(PRIVATE, "PrivateTestStorage", StorageServiceClass)
    sink = Sink()
    ae = AE("SINK")
    ae.add_supported_context(PRIVATE, ExplicitVRLittleEndian)
    server = ae.start_server(("127.0.0.1", sink.port), block=False, evt_handlers=[(evt.EVT_C_STORE, sink.on_store)])
    yield sink
    server.shutdown()


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Atrium]:
    environment = {
        "ATRIUM_DICOM_STORAGE_CLASSES": PRIVATE,
        "ATRIUM_COMMITMENT_HASH": "1",
        "ATRIUM_LARGEST_INSTANCE": str(LARGEST),
    }
    with running_atrium(tmp_path_factory.mktemp("configured") / "atrium", "dicom", **environment) as atrium:
        atrium.manage("shell", "--no-imports", "-c", NODES.format(port=sink.port))
        yield atrium


def test_a_configured_private_class_goes_in_and_out_byte_for_byte(
    configured: Atrium, sink: Sink, tmp_path: Path
) -> None:
    study, uid = generate_uid(), generate_uid()
    path = tmp_path / "private.dcm"
    path.write_bytes(make_instance(SOPClassUID=PRIVATE, StudyInstanceUID=study, SOPInstanceUID=uid))
    assert store(configured, path) == 0x0000
    received, statuses = get(configured, keys("STUDY", StudyInstanceUID=study), sop_class=PRIVATE)
    assert (list(received), statuses[-1].Status) == ([uid], 0x0000)
    moved = move(configured, "SINK", keys("STUDY", StudyInstanceUID=study), StudyRootQueryRetrieveInformationModelMove)
    assert (moved[-1].Status, moved[-1].NumberOfCompletedSuboperations) == (0x0000, 1)
    assert sink.received == {uid: dataset_bytes(path.read_bytes())}


def test_a_private_class_is_fetched_from_a_remote_archive_by_c_get(configured: Atrium, tmp_path: Path) -> None:
    study, uid, port = generate_uid(), generate_uid(), free_port()
    path = tmp_path / "far.dcm"
    path.write_bytes(make_instance(SOPClassUID=PRIVATE, StudyInstanceUID=study, SOPInstanceUID=uid))

    def on_get(event: evt.Event) -> Iterator[object]:
        yield 1
        yield 0xFF00, pydicom.dcmread(path)

    far = AE("FAR")
    far.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    far.add_supported_context(PRIVATE, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    register_uid(PRIVATE, "PrivateTestStorage", StorageServiceClass)
    server = far.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_GET, on_get)])
    try:
        told = configured.manage("shell", "--no-imports", "-c", FETCH.format(port=port, study=study))
    finally:
        server.shutdown()
    assert told.strip().splitlines()[-1] == "done 1"
    (kept,) = (configured.data / "objects").rglob(f"{uid}*.dcm")
    assert dataset_bytes(kept.read_bytes()) == dataset_bytes(path.read_bytes())


def test_an_object_that_is_too_large_is_refused_without_filling_the_disk_or_holding_up_others(
    configured: Atrium, tmp_path: Path
) -> None:
    large, small, other = tmp_path / "large.dcm", tmp_path / "small.dcm", tmp_path / "other.dcm"
    large.write_bytes(make_instance(pixels=np.zeros((40, 512, 512), dtype=np.uint16)))
    small.write_bytes(make_instance())
    other.write_bytes(make_instance())
    highest, is_over = 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not is_over.wait(0.002):
            highest = max(highest, sum(_size(p) for p in (configured.data / "staging").glob("*")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    ae = AE("CT_NORTH")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", configured.dicom_port, ae_title="ATRIUM")
    try:
        refused = association.send_c_store(pydicom.dcmread(large))
        assert store(configured, other) == 0x0000
        taken = association.send_c_store(pydicom.dcmread(small))
    finally:
        association.release()
        is_over.set()
        watcher.join()
    assert (refused.Status, refused.ErrorComment) == (0xA700, f"Larger than {LARGEST} bytes.")
    assert taken.Status == 0x0000
    assert highest <= LARGEST + 100_000
    assert not list((configured.data / "staging").glob("*"))
    assert not list((configured.data / "quarantine").rglob("*.*"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_private_class_that_nobody_configured_is_not_taken(configured: Atrium) -> None:
    ae = AE("CT_NORTH")
    ae.add_requested_context(UNKNOWN)
    association = ae.associate("127.0.0.1", configured.dicom_port, ae_title="ATRIUM")
    assert not association.accepted_contexts
    assert [context.abstract_syntax for context in association.rejected_contexts] == [UNKNOWN]


def test_an_object_that_rotted_is_not_committed(configured: Atrium, tmp_path: Path) -> None:
    uids = [generate_uid(), generate_uid()]
    for uid in uids:
        path = tmp_path / f"{uid}.dcm"
        path.write_bytes(make_instance(SOPInstanceUID=uid))
        assert store(configured, path) == 0x0000
    (kept,) = (configured.data / "objects").rglob(f"{uids[1]}*.dcm")
    content = bytearray(kept.read_bytes())
    content[-5] ^= 1
    kept.write_bytes(content)
    reports: Reports = queue.Queue()
    request(configured, [(CTImageStorage, uid) for uid in uids], reports)
    event_type, report = reports.get(timeout=10)
    assert event_type == 2
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == uids[:1]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in report.FailedSOPSequence] == [(uids[1], 0x0110)]
