"""C-MOVE and C-GET before dcmtk's getscu and movescu, pynetdicom and Orthanc."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from pynetdicom import AE, build_role, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    CompositeInstanceRetrieveWithoutBulkDataGet,
    CompositeInstanceRootRetrieveGet,
    CTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
    PatientRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from tests.dicomweb.test_metadata_of_icons import LARGE, compressed_icon, in_rle, with_compressed_icons
from tests.dimse.test_query import keys
from tests.dimse.test_store import dataset_bytes, dcmtk, store
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.ports import free_port

pytestmark = pytest.mark.database

STUDY = "1.2.826.0.1.3680043.8.498.81"
COUNT = 12
NODES = """
from accounts.models import Site
from studies.dimse.models import Node
north, south = (Site.objects.get(slug=slug) for slug in ("north", "south"))
Node.objects.create(ae_title="SINK", site=north, host="127.0.0.1", port={port}, may_receive=True)
Node.objects.create(ae_title="CLOSED", site=north, host="127.0.0.1", port={port})
Node.objects.create(ae_title="AWAY", site=north, host="127.0.0.1", port=1, may_receive=True)
Node.objects.create(ae_title="SOUTHSINK", site=south, host="127.0.0.1", port={port}, may_receive=True)
"""


class Sink:
    """A storage SCP that keeps what it gets, as sent."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: dict[str, bytes] = {}
        self.originators: set[tuple[str, int]] = set()
        self.status = 0x0000
        self.syntaxes: set[str] = set()

    def on_store(self, event: Event) -> int:
        request = event.request
        self.received[request.AffectedSOPInstanceUID] = request.DataSet.getvalue()
        self.syntaxes.add(event.context.transfer_syntax)
        if request.MoveOriginatorApplicationEntityTitle:
            self.originators.add(
                (str(request.MoveOriginatorApplicationEntityTitle).strip(), request.MoveOriginatorMessageID)
            )
        return self.status

    def start(self) -> Any:
        ae = AE("SINK")
        for sop_class in (CTImageStorage, MRImageStorage, EnhancedMRImageStorage):
            ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        return ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self.on_store)])


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    server = sink.start()
    yield sink
    server.shutdown()


@pytest.fixture(autouse=True)
def _empty_sink(sink: Sink) -> None:
    sink.received.clear()
    sink.originators.clear()
    sink.syntaxes.clear()
    sink.status = 0x0000


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    return {
        f"{STUDY}.1.{number}": make_instance(
            pixels=rng.integers(0, 4000, (128, 128), dtype=np.uint16),
            PatientID="R1",
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=f"{STUDY}.1",
            SOPInstanceUID=f"{STUDY}.1.{number}",
            InstanceNumber=number,
        )
        for number in range(1, COUNT + 1)
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, sink: Sink, files: dict[str, bytes]) -> Iterator[Atrium]:
    folder: Path = tmp_path_factory.mktemp("files")
    with running_atrium(tmp_path_factory.mktemp("retrieve") / "atrium", "dicom") as atrium:
        atrium.manage("shell", "--no-imports", "-c", NODES.format(port=sink.port))
        for uid, content in files.items():
            path = folder / uid
            path.write_bytes(content)
            assert store(atrium, path) == 0x0000
        yield atrium


def get(
    atrium: Atrium,
    identifier: Dataset,
    model: str = StudyRootQueryRetrieveInformationModelGet,
    *,
    syntaxes: Any = None,
    sop_class: str = CTImageStorage,
    ae_title: str = "WS_NORTH",
    cancel_after: int = 0,
) -> tuple[dict[str, Dataset], list[Dataset]]:
    """Retrieve by C-GET; give what came and every status."""
    received: dict[str, Dataset] = {}

    def on_store(event: Event) -> int:
        received[event.request.AffectedSOPInstanceUID] = event.dataset
        return 0x0000

    ae = AE(ae_title)
    ae.add_requested_context(model)
    ae.add_requested_context(sop_class, syntaxes or ExplicitVRLittleEndian)
    association = ae.associate(
        "127.0.0.1",
        atrium.dicom_port,
        ae_title="ATRIUM",
        ext_neg=[build_role(sop_class, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, on_store)],
    )
    assert association.is_established
    statuses = []
    for status, failed in association.send_c_get(identifier, model, msg_id=5):
        if failed is not None and "FailedSOPInstanceUIDList" in failed:
            status.failed = failed.FailedSOPInstanceUIDList
        statuses.append(status)
        if cancel_after and len(statuses) == cancel_after:
            association.send_c_cancel(5, query_model=model)
    association.release()
    return received, statuses


def move(
    atrium: Atrium,
    destination: str,
    identifier: Dataset,
    model: str = StudyRootQueryRetrieveInformationModelMove,
    *,
    ae_title: str = "WS_NORTH",
) -> list[Dataset]:
    """Retrieve by C-MOVE; give every status."""
    ae = AE(ae_title)
    ae.add_requested_context(model)
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
    assert association.is_established
    statuses = []
    for status, failed in association.send_c_move(identifier, destination, model, msg_id=9):
        if failed is not None and "FailedSOPInstanceUIDList" in failed:
            status.failed = failed.FailedSOPInstanceUIDList
        statuses.append(status)
    association.release()
    return statuses


def test_getscu_gets_a_study_byte_for_byte(filled: Atrium, files: dict[str, bytes], tmp_path: Path) -> None:
    command = [dcmtk("getscu"), "-S", "-B", "-od", str(tmp_path), "-aet", "WS_NORTH", "-aec", "ATRIUM", "127.0.0.1"]
    wanted = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    subprocess.run([*command, str(filled.dicom_port), *wanted], check=True, capture_output=True)
    got = {pydicom.dcmread(p).SOPInstanceUID: dataset_bytes(p.read_bytes()) for p in tmp_path.iterdir()}
    assert got == {uid: dataset_bytes(content) for uid, content in files.items()}


def test_movescu_moves_a_study_byte_for_byte(filled: Atrium, files: dict[str, bytes], sink: Sink) -> None:
    command = [dcmtk("movescu"), "-S", "-aem", "SINK", "-aet", "WS_NORTH", "-aec", "ATRIUM", "127.0.0.1"]
    wanted = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    subprocess.run([*command, str(filled.dicom_port), *wanted], check=True, capture_output=True)
    assert sink.received == {uid: dataset_bytes(content) for uid, content in files.items()}


def test_a_move_counts_its_sub_operations_and_names_its_originator(filled: Atrium, sink: Sink) -> None:
    statuses = move(filled, "SINK", keys("SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1"))
    counts = [
        (s.get("NumberOfRemainingSuboperations"), s.NumberOfCompletedSuboperations, s.NumberOfFailedSuboperations)
        for s in statuses
    ]
    assert counts == [*((COUNT - n, n, 0) for n in range(1, COUNT)), (None, COUNT, 0)]
    assert [s.Status for s in statuses] == [0xFF00] * (COUNT - 1) + [0x0000]
    assert sink.originators == {("WS_NORTH", 9)}


@pytest.mark.parametrize("destination", ["NOBODY", "CLOSED", "SOUTHSINK"])
def test_a_move_to_whom_it_may_not_go_is_refused(filled: Atrium, sink: Sink, destination: str) -> None:
    (last,) = move(filled, destination, keys("STUDY", StudyInstanceUID=STUDY))
    assert last.Status == 0xA801
    assert sink.received == {}


def test_what_a_destination_refuses_is_counted_and_named(filled: Atrium, files: dict[str, bytes], sink: Sink) -> None:
    sink.status = 0xA700
    last = move(filled, "SINK", keys("STUDY", StudyInstanceUID=STUDY))[-1]
    assert last.Status == 0xA702
    assert last.NumberOfFailedSuboperations == COUNT
    assert set(last.failed) == set(files)
    sink.status = 0xB000
    last = move(filled, "SINK", keys("STUDY", StudyInstanceUID=STUDY))[-1]
    assert (last.Status, last.NumberOfWarningSuboperations) == (0xB000, COUNT)


def test_a_destination_that_cannot_be_reached_fails_all(filled: Atrium) -> None:
    (last,) = move(filled, "AWAY", keys("STUDY", StudyInstanceUID=STUDY))
    assert last.Status == 0xA702
    assert last.NumberOfFailedSuboperations == COUNT


def test_levels_and_lists_of_uids(filled: Atrium) -> None:
    wanted = [f"{STUDY}.1.2", f"{STUDY}.1.5"]
    one = keys("IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=wanted)
    assert set(get(filled, one)[0]) == set(wanted)
    patient = keys("PATIENT", PatientID="R1")
    assert len(get(filled, patient, PatientRootQueryRetrieveInformationModelGet)[0]) == COUNT
    root = keys("IMAGE", SOPInstanceUID=wanted[0])
    assert set(get(filled, root, CompositeInstanceRootRetrieveGet)[0]) == {wanted[0]}
    _, (last,) = get(filled, keys("STUDY"))
    assert last.Status == 0xA900


def test_what_matches_nothing_succeeds_with_nothing(filled: Atrium) -> None:
    received, (last,) = get(filled, keys("STUDY", StudyInstanceUID="1.2.3"))
    assert received == {}
    assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 0)


def test_headers_come_without_bulk_data(filled: Atrium) -> None:
    identifier = keys("IMAGE", SOPInstanceUID=f"{STUDY}.1.1")
    received, statuses = get(filled, identifier, CompositeInstanceRetrieveWithoutBulkDataGet)
    assert statuses[-1].Status == 0x0000
    (header,) = received.values()
    assert header.PatientID == "R1"
    assert "PixelData" not in header


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, ExplicitVRBigEndian])
def test_headers_come_with_icons_that_their_transfer_syntax_takes(syntax: str, filled: Atrium, tmp_path: Path) -> None:
    stored = with_compressed_icons("MR_small_RLE.dcm", *[compressed_icon(in_rle(LARGE))] * 2)
    (tmp_path / "icons").write_bytes(stored)
    assert store(filled, tmp_path / "icons") == 0x0000
    uid = pydicom.dcmread(tmp_path / "icons").SOPInstanceUID
    received, statuses = get(
        filled,
        keys("IMAGE", SOPInstanceUID=uid),
        CompositeInstanceRetrieveWithoutBulkDataGet,
        syntaxes=syntax,
        sop_class=MRImageStorage,
    )
    if syntax == ExplicitVRBigEndian:
        assert (received, statuses[-1].NumberOfFailedSuboperations) == ({}, 1)
        return
    assert statuses[-1].Status == 0x0000
    icon = received[uid].IconImageSequence[0]
    assert icon["PixelData"].is_undefined_length == (syntax == RLELossless)
    assert syntax == RLELossless or icon.PixelData == LARGE.tobytes()


def test_a_get_is_cancelled_in_the_middle(filled: Atrium) -> None:
    received, statuses = get(filled, keys("STUDY", StudyInstanceUID=STUDY), cancel_after=1)
    assert statuses[-1].Status in {0xFE00, 0x0000}
    if statuses[-1].Status == 0xFE00:
        assert statuses[-1].NumberOfRemainingSuboperations == COUNT - len(received)


def test_a_node_gets_nothing_of_another_site_and_only_what_it_may(filled: Atrium) -> None:
    received, statuses = get(filled, keys("STUDY", StudyInstanceUID=STUDY), ae_title="WS_SOUTH")
    assert (received, statuses[-1].Status) == ({}, 0x0000)
    received, statuses = get(filled, keys("STUDY", StudyInstanceUID=STUDY), ae_title="CT_NORTH")
    assert (received, statuses[-1].Status) == ({}, 0x0124)


def test_a_sop_class_that_the_peer_does_not_take_fails(filled: Atrium) -> None:
    received, statuses = get(filled, keys("STUDY", StudyInstanceUID=STUDY), sop_class=MRImageStorage)
    assert received == {}
    assert (statuses[-1].Status, statuses[-1].NumberOfFailedSuboperations) == (0xA702, COUNT)


def test_compressed_images_are_decoded_losslessly_for_whom_needs_it(filled: Atrium, sink: Sink, tmp_path: Path) -> None:
    path = Path(get_testdata_file("693_J2KR.dcm"))
    original = pydicom.dcmread(path)
    assert original.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert store(filled, path) == 0x0000
    identifier = keys("STUDY", StudyInstanceUID=original.StudyInstanceUID)
    as_stored, _ = get(filled, identifier, syntaxes=JPEG2000Lossless, sop_class=original.SOPClassUID)
    assert as_stored[original.SOPInstanceUID].PixelData == original.PixelData
    decoded, _ = get(filled, identifier, syntaxes=ImplicitVRLittleEndian, sop_class=original.SOPClassUID)
    (pixels,) = (d.PixelData for d in decoded.values())
    assert pixels == original.pixel_array.tobytes()
    assert move(filled, "SINK", identifier)[-1].Status == 0x0000
    (sent,) = sink.received.values()
    assert original.pixel_array.tobytes() in sent


def test_the_trail_tells_who_retrieved_and_who_was_refused(filled: Atrium) -> None:
    said = filled.manage(
        "shell",
        "--no-imports",
        "-c",
        "from portal.audit.models import AuditEvent as E\n"
        "print(*{(e.action, e.outcome, e.username) for e in E.objects.all()}, sep='\\n')",
    )
    assert "('retrieve', 'success', 'AE:WS_NORTH')" in said
    assert "('refusal', 'refused', 'AE:CT_NORTH')" in said
