"""Storage commitment before a modality: on the same association, on one of our own, again after we were down."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from tests.dimse.test_store import send, wait_until
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.ports import free_port

pytestmark = pytest.mark.database

PORT = free_port()
NODE = f"""
from studies.dimse.models import Node
Node.objects.filter(ae_title="CT_NORTH").update(host="127.0.0.1", port={PORT})
"""
Reports = queue.Queue[tuple[int, Dataset]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Atrium, list[str]]]:
    """Give an archive with three images, of which one has lost its object, and the images' UIDs."""
    folder = tmp_path_factory.mktemp("files")
    uids = [generate_uid() for _ in range(3)]
    paths = []
    for uid in uids:
        path = folder / f"{uid}.dcm"
        path.write_bytes(make_instance(SOPInstanceUID=uid))
        paths.append(path)
    with running_atrium(tmp_path_factory.mktemp("commitment") / "atrium", "dicom", "worker", "scheduler") as atrium:
        atrium.manage("shell", "--no-imports", "-c", NODE)
        assert send(atrium, *paths).returncode == 0
        (lost,) = (atrium.data / "objects").rglob(f"{uids[2]}*.dcm")
        lost.write_bytes(lost.read_bytes()[:2000])
        yield atrium, uids


def request(
    atrium: Atrium, references: list[tuple[str, str]], reports: Reports | None = None, *, ae_title: str = "CT_NORTH"
) -> tuple[str, int]:
    """Ask for commitment; with ``reports`` wait for the report on this association, else leave at once."""

    def on_report(event: Event) -> tuple[int, None]:
        assert reports is not None
        reports.put((event.request.EventTypeID, event.event_information))
        return 0x0000, None

    ae = AE(ae_title)
    ae.add_requested_context(StorageCommitmentPushModel)
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, on_report)] if reports is not None else []
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM", evt_handlers=handlers)
    assert association.is_established
    information, transaction = Dataset(), generate_uid()
    information.TransactionUID = transaction
    items = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    information.ReferencedSOPSequence = items
    status, _ = association.send_n_action(
        information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    if reports is not None:
        assert status.Status != 0 or wait_until(lambda: not reports.empty())
    association.release()
    return transaction, status.Status


def test_what_is_durable_is_committed_on_the_same_association(kept: tuple[Atrium, list[str]]) -> None:
    atrium, uids = kept
    reports: Reports = queue.Queue()
    transaction, status = request(atrium, [(CTImageStorage, uid) for uid in uids[:2]], reports)
    assert status == 0x0000
    event_type, report = reports.get(timeout=10)
    assert event_type == 1
    assert report.TransactionUID == transaction
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == uids[:2]
    assert "FailedSOPSequence" not in report


def test_what_is_missing_or_broken_is_named_with_its_reason(kept: tuple[Atrium, list[str]]) -> None:
    atrium, uids = kept
    reports: Reports = queue.Queue()
    references = [(CTImageStorage, uids[0]), (MRImageStorage, uids[1]), (CTImageStorage, uids[2])]
    request(atrium, [*references, (CTImageStorage, "1.2.3")], reports)
    event_type, report = reports.get(timeout=10)
    assert event_type == 2
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == uids[:1]
    failed = {str(i.ReferencedSOPInstanceUID): i.FailureReason for i in report.FailedSOPSequence}
    assert failed == {uids[1]: 0x0119, uids[2]: 0x0110, "1.2.3": 0x0112}


# pynetdicom as the modality that leaves trips over the report that meets it on its way out.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_modality_that_left_is_called_and_called_again(kept: tuple[Atrium, list[str]]) -> None:
    atrium, uids = kept
    reports: Reports = queue.Queue()
    refused: list[int] = []
    transaction, status = request(atrium, [(CTImageStorage, uids[0])])
    assert status == 0x0000

    def on_report(event: Event) -> tuple[int, None]:
        if not refused:
            refused.append(1)
            return 0x0110, None
        reports.put((event.request.EventTypeID, event.event_information))
        return 0x0000, None

    ae = AE("CT_NORTH")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    server = ae.start_server(("127.0.0.1", PORT), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)])
    try:
        # The outbox waits longer and longer; an administrator's restart doesn't lose what waits.
        atrium.kill("worker")
        atrium.start("worker")
        due = (
            "from django.utils import timezone; from studies.models import DomainEvent; "
            "DomainEvent.objects.filter(delivered_at__isnull=True).update(due_at=timezone.now()); "
            "from studies.events import deliver_due; deliver_due()"
        )
        for _ in range(2):
            atrium.manage("shell", "--no-imports", "-c", due)
        event_type, report = reports.get(timeout=30)
    finally:
        server.shutdown()
    assert refused
    assert event_type == 1
    assert report.TransactionUID == transaction


def test_a_node_that_may_not_store_gets_no_commitment_and_another_site_none_of_ours(
    kept: tuple[Atrium, list[str]],
) -> None:
    atrium, uids = kept
    assert request(atrium, [(CTImageStorage, uids[0])], ae_title="WS_NORTH")[1] == 0x0124
    reports: Reports = queue.Queue()
    request(atrium, [(CTImageStorage, uids[0])], reports, ae_title="CT_SOUTH")
    event_type, report = reports.get(timeout=10)
    assert event_type == 2
    assert report.FailedSOPSequence[0].FailureReason == 0x0112
