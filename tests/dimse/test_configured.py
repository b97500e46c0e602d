"""What is configured: private storage classes both ways, and commitment that reads every byte."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt, register_uid
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove

from tests.dimse.test_commitment import Reports, request
from tests.dimse.test_query import keys
from tests.dimse.test_retrieve import Sink, get, move
from tests.dimse.test_store import dataset_bytes, store
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

PRIVATE, UNKNOWN = "1.2.826.0.1.3680043.9.7133.1.1", "1.2.826.0.1.3680043.9.7133.1.2"
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
    environment = {"ATRIUM_DICOM_STORAGE_CLASSES": PRIVATE, "ATRIUM_COMMITMENT_HASH": "1"}
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
