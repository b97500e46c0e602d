"""Sending to real nodes: what arrives, what happens when a node is away, breaks off or refuses."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from django.utils import timezone
from pydicom.uid import JPEG2000Lossless, generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import MRImageStorage, Verification

from accounts.models import Site
from portal.audit.models import AuditEvent
from studies.archive import objects
from studies.archive.deidentification import Profile
from studies.dimse import associations, calling, queue, transfers
from studies.dimse.calling import associated
from studies.dimse.errors import NodeBusy, NotAllowed
from studies.dimse.models import AssociationLog, Node, NodeState, Transfer, TransferItem
from studies.dimse.verification import verify_node
from studies.leases import new_lease
from studies.models import Instance, Study
from tests.dimse.test_tls_and_identity import certificate
from tests.factories import make_instance, principal_of
from tests.services.dicom_peers import Orthanc, orthanc, storescp
from tests.services.ports import free_port

pytestmark = [pytest.mark.django_db, pytest.mark.database]
SEND = Transfer.Kind.SEND


def node_at(site: Site, port: int, ae_title: str = "STORESCP", **fields: Any) -> Node:
    return Node.objects.create(
        ae_title=ae_title, site=site, host="127.0.0.1", port=port, may_receive=True, may_store=False, **fields
    )


@pytest.fixture
def study(north: Site, ingest_files: Callable[..., Any]) -> Study:
    uid, series = generate_uid(), generate_uid()
    ingest_files(
        north,
        *(make_instance(StudyInstanceUID=uid, SeriesInstanceUID=series, InstanceNumber=n) for n in range(1, 6)),
    )
    return Study.objects.get()


@pytest.fixture
def sender(people: dict[str, Any]) -> Any:
    return principal_of(people["radiologist"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Give a way to let time pass."""
    passed = [timedelta(0)]
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + passed[0])

    def advance(by: timedelta) -> None:
        passed[0] += by

    return advance


def received(folder: Path) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(p) for p in sorted(folder.iterdir())]


def dataset_bytes(content: bytes) -> bytes:
    buffer = BytesIO(content)
    pydicom.filereader.read_preamble(buffer, force=False)
    pydicom.filereader._read_file_meta_info(buffer)
    return content[buffer.tell() :]


def test_a_study_arrives_bit_by_bit_as_it_is_stored(study: Study, north: Site, sender: Any, tmp_path: Path) -> None:
    with storescp(tmp_path / "in", "+B") as port:  # +B: written exactly as read from the network
        node = node_at(north, port)
        transfer = transfers.send_study(study=study, node=node, principal=sender)
        queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert (transfer.status, transfer.completed, transfer.failed, transfer.total) == ("done", 5, 0, 5)
    stored = sorted(dataset_bytes(objects.read_instance(i)) for i in Instance.objects.all())
    assert sorted(dataset_bytes(p.read_bytes()) for p in (tmp_path / "in").iterdir()) == stored
    events = AuditEvent.objects.filter(action=AuditEvent.Action.EXPORT).order_by("sequence")
    assert [e.details["what"] for e in events] == ["sending queued", "sent"]
    assert {e.username for e in events} == {"radiologist"}


def test_what_the_node_does_not_read_is_sent_losslessly_converted(
    north: Site, sender: Any, ingest_files: Callable[..., Any], tmp_path: Path
) -> None:
    original = pydicom.dcmread(BytesIO(make_instance()))
    pixels = original.pixel_array
    original.compress(JPEG2000Lossless, generate_instance_uid=False)
    buffer = BytesIO()
    original.save_as(buffer)
    ingest_files(north, buffer.getvalue())
    with storescp(tmp_path / "in", "+xi") as port:  # +xi: implicit little endian only
        node = node_at(north, port)
        transfers.send_study(study=Study.objects.get(), node=node, principal=sender)
        queue.work_off(node.pk, SEND)
    (copy,) = received(tmp_path / "in")
    assert not copy.file_meta.TransferSyntaxUID.is_compressed
    assert (copy.pixel_array == pixels).all()
    assert copy.SOPInstanceUID == original.SOPInstanceUID


def test_only_the_chosen_series_goes(
    north: Site, sender: Any, ingest_files: Callable[..., Any], tmp_path: Path
) -> None:
    uid, wanted = generate_uid(), generate_uid()
    ingest_files(
        north,
        make_instance(StudyInstanceUID=uid, SeriesInstanceUID=wanted),
        make_instance(StudyInstanceUID=uid, SeriesInstanceUID=generate_uid()),
    )
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port)
        transfers.send_study(study=Study.objects.get(), node=node, principal=sender, series_instance_uid=wanted)
        queue.work_off(node.pk, SEND)
    assert [d.SeriesInstanceUID for d in received(tmp_path / "in")] == [wanted]


def test_a_day_without_the_node_loses_nothing_and_keeps_the_order_while_others_get_theirs(
    north: Site, sender: Any, ingest_files: Callable[..., Any], clock: Callable[[timedelta], None], tmp_path: Path
) -> None:
    away_port = free_port()
    away = node_at(north, away_port, "AWAY")
    uids = [generate_uid() for _ in range(6)]
    with storescp(tmp_path / "there") as port:
        there = node_at(north, port, "THERE")
        for uid in uids:  # a study every four hours
            ingest_files(north, make_instance(StudyInstanceUID=uid))
            study = Study.objects.get(study_instance_uid=uid)
            for node in (away, there):
                transfers.send_study(study=study, node=node, principal=sender)
            for node_id, kind in queue.due_queues():
                queue.work_off(node_id, kind)
            clock(timedelta(hours=4))
    assert sorted(d.StudyInstanceUID for d in received(tmp_path / "there")) == sorted(uids)
    state = NodeState.objects.get(node=away)
    assert state.failures == 6
    assert "can't be reached" in state.last_error
    assert Transfer.objects.filter(node=away, status="queued").count() == 6
    order: list[str] = []
    with storescp(tmp_path / "away", port=away_port):
        assert (away.pk, SEND) in queue.due_queues()
        assert queue.work_off(away.pk, SEND) is False
    done = Transfer.objects.filter(node=away).order_by("ended_at")
    order = [t.study_instance_uid for t in done]
    assert {t.status for t in done} == {"done"}
    assert order == uids
    assert sorted(d.StudyInstanceUID for d in received(tmp_path / "away")) == sorted(uids)
    state.refresh_from_db()
    assert (state.failures, state.down_since) == (0, None)


def test_waits_grow_but_never_beyond_a_quarter_of_an_hour(
    study: Study, north: Site, sender: Any, clock: Callable[[timedelta], None]
) -> None:
    node = node_at(north, free_port())
    transfers.send_study(study=study, node=node, principal=sender)
    waits = []
    for _ in range(8):
        queue.work_off(node.pk, SEND)
        state = NodeState.objects.get(node=node)
        waits.append(round((state.next_attempt_at - timezone.now()).total_seconds() / 30))
        assert queue.due_queues() == []
        clock(state.next_attempt_at - timezone.now() + timedelta(seconds=1))
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


class Peer:
    """A node of pynetdicom that answers as it's told."""

    def __init__(self, answer: Callable[[evt.Event, int], int], contexts: list[Any] | None = None) -> None:
        ae = AE("PEER")
        ae.supported_contexts = contexts or AllStoragePresentationContexts
        self.received: list[str] = []

        def on_store(event: evt.Event) -> int:
            status = answer(event, len(self.received) + 1)
            if status == 0:
                self.received.append(str(event.request.AffectedSOPInstanceUID))
            return status

        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
        self.port = self.server.server_address[1]


@pytest.fixture
def peer_that() -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def make(answer: Callable[[evt.Event, int], int], contexts: list[Any] | None = None) -> Peer:
        peers.append(Peer(answer, contexts))
        return peers[-1]

    yield make
    for peer in peers:
        peer.server.shutdown()


def test_a_node_without_room_is_asked_again_and_gets_the_rest(
    study: Study, north: Site, sender: Any, peer_that: Any, clock: Callable[[timedelta], None]
) -> None:
    full = threading.Event()
    full.set()
    peer = peer_that(lambda event, count: 0xA700 if full.is_set() and count > 2 else 0)
    node = node_at(north, peer.port, "PEER")
    transfer = transfers.send_study(study=study, node=node, principal=sender)
    queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert (transfer.status, transfer.completed) == ("queued", 2)
    assert "no room" in transfer.last_error
    full.clear()
    clock(timedelta(minutes=1))
    queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert (transfer.status, transfer.completed) == ("done", 5)
    assert len(peer.received) == len(set(peer.received)) == 5


def test_an_instance_that_is_refused_fails_alone_and_can_be_run_again(
    study: Study, north: Site, sender: Any, peer_that: Any
) -> None:
    bad = TransferItem.objects.none()
    refuses = [True]
    third = study.series.get().instances.get(instance_number=3).sop_instance_uid
    peer = peer_that(lambda event, count: 0xC001 if refuses[0] and event.request.AffectedSOPInstanceUID == third else 0)
    node = node_at(north, peer.port, "PEER")
    transfer = transfers.send_study(study=study, node=node, principal=sender)
    queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert (transfer.status, transfer.completed, transfer.failed) == ("failed", 4, 1)
    bad = transfer.items.filter(status="failed")
    assert [i.sop_instance_uid for i in bad] == [third]
    assert "C001" in bad[0].error
    refuses[0] = False
    transfers.run_again(transfer=transfer, principal=sender)
    queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert (transfer.status, transfer.completed, transfer.failed) == ("done", 5, 0)
    assert len(peer.received) == 5


def test_a_node_that_breaks_off_at_one_instance_gets_all_others(
    study: Study, north: Site, sender: Any, peer_that: Any, clock: Callable[[timedelta], None]
) -> None:
    third = study.series.get().instances.get(instance_number=3).sop_instance_uid

    def answer(event: evt.Event, count: int) -> int:
        if event.request.AffectedSOPInstanceUID == third:
            event.assoc.abort()
        return 0 if event.request.AffectedSOPInstanceUID != third else 0xC000

    peer = peer_that(answer)
    node = node_at(north, peer.port, "PEER")
    transfer = transfers.send_study(study=study, node=node, principal=sender)
    for _ in range(queue.MOST_BREAKS + 1):
        queue.work_off(node.pk, SEND)
        clock(timedelta(minutes=20))
    transfer.refresh_from_db()
    assert (transfer.status, transfer.completed, transfer.failed) == ("failed", 4, 1)
    assert len(peer.received) == 4
    assert "broke off" in transfer.last_error


def test_a_node_that_takes_no_such_objects_is_told_apart(
    study: Study, north: Site, sender: Any, peer_that: Any
) -> None:
    ae = AE()
    ae.add_supported_context(MRImageStorage)
    peer = peer_that(lambda event, count: 0, ae.supported_contexts)
    node = node_at(north, peer.port, "PEER")
    transfer = transfers.send_study(study=study, node=node, principal=sender)
    queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert transfer.last_error != ""
    assert transfer.completed == 0
    assert {i.error for i in transfer.items.all()} in ({"The node doesn't take objects of this class."}, {""})


def test_a_worker_that_died_leaves_its_queue_to_the_next(
    study: Study, north: Site, sender: Any, tmp_path: Path
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port)
        transfer = transfers.send_study(study=study, node=node, principal=sender)
        NodeState.objects.create(
            node=node,
            kind=SEND,
            lease=new_lease().replace(f":{os.getpid()}:", f":{ended.pid}:"),
            leased_until=timezone.now() + timedelta(minutes=9),
        )
        Transfer.objects.update(status="running")
        queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert transfer.status == "done"


def test_a_queue_that_another_worker_has_is_left_alone(study: Study, north: Site, sender: Any) -> None:
    node = node_at(north, free_port())
    transfer = transfers.send_study(study=study, node=node, principal=sender)
    NodeState.objects.create(
        node=node, kind=SEND, lease="elsewhere:1:abc", leased_until=timezone.now() + timedelta(minutes=9)
    )
    assert queue.work_off(node.pk, SEND) is False
    transfer.refresh_from_db()
    assert transfer.attempts == 0


def test_a_cancelled_transfer_stops_and_the_next_goes_on(
    study: Study, north: Site, sender: Any, tmp_path: Path
) -> None:
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port)
        first = transfers.send_study(study=study, node=node, principal=sender)
        second = transfers.send_study(study=study, node=node, principal=sender)
        transfers.cancel(transfer=first, principal=sender)
        queue.work_off(node.pk, SEND)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, first.completed, second.status) == ("cancelled", 0, "done")


def test_deidentified_copies_leave_and_the_archive_keeps_its_own(
    study: Study, north: Site, sender: Any, tmp_path: Path
) -> None:
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port)
        transfers.send_study(study=study, node=node, principal=sender, profile=Profile(retain_modified_dates=True))
        queue.work_off(node.pk, SEND)
    copies = received(tmp_path / "in")
    assert len(copies) == 5
    assert {c.PatientIdentityRemoved for c in copies} == {"YES"}
    assert len({c.StudyInstanceUID for c in copies}) == 1
    assert copies[0].StudyInstanceUID != study.study_instance_uid
    assert "Doe" not in str(copies[0].PatientName)
    study.refresh_from_db()
    assert study.patient_name == "Doe^Jane"


def test_who_may_not_send_is_refused_and_other_sites_nodes_are_out_of_reach(
    study: Study, north: Site, south: Site, people: dict[str, Any], sender: Any
) -> None:
    node, other = node_at(north, 104), node_at(south, 104, "OTHER")
    for name in ("resident", "referrer", "compliance", "southradiologist"):
        with pytest.raises(NotAllowed):
            transfers.send_study(study=study, node=node, principal=principal_of(people[name]))
    with pytest.raises(NotAllowed):
        transfers.send_study(study=study, node=other, principal=sender)
    node.may_receive = False
    with pytest.raises(NotAllowed):
        transfers.send_study(study=study, node=node, principal=sender)
    assert not Transfer.objects.exists()


@pytest.fixture(scope="module")
def real_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def test_orthanc_gets_the_same_by_dimse_and_by_dicomweb(
    study: Study, north: Site, sender: Any, real_orthanc: Orthanc
) -> None:
    by_dimse = node_at(north, real_orthanc.dicom_port, "ORTHANC")
    by_web = Node.objects.create(
        ae_title="WEB", site=north, kind=Node.Kind.DICOMWEB, base_url=real_orthanc.dicomweb, may_receive=True
    )
    for node in (by_dimse, by_web):
        for one in real_orthanc.instances():
            import requests

            requests.delete(f"{real_orthanc.url}/instances/{one}", timeout=30)
        transfer = transfers.send_study(study=study, node=node, principal=sender)
        queue.work_off(node.pk, SEND)
        transfer.refresh_from_db()
        assert (transfer.status, transfer.completed) == ("done", 5), transfer.last_error
        files = [real_orthanc.file(i) for i in real_orthanc.instances()]
        assert len(files) == 5
        assert {pydicom.dcmread(BytesIO(f)).StudyInstanceUID for f in files} == {study.study_instance_uid}


def test_by_tls_it_goes_to_a_node_of_our_authority_and_to_no_other(
    study: Study, north: Site, sender: Any, tmp_path: Path, settings: Any
) -> None:
    authority = certificate(tmp_path, "authority")
    for name, issuer in (("peer", authority), ("us", authority), ("stranger", None)):
        certificate(tmp_path, name, issuer)
    settings.ATRIUM = replace(
        settings.ATRIUM,
        dicom_tls_ca=str(tmp_path / "authority.pem"),
        dicom_tls_certificate=str(tmp_path / "us.pem"),
        dicom_tls_key=str(tmp_path / "us.key"),
    )
    for name, is_trusted in (("peer", True), ("stranger", False)):
        keys = ("+tls", str(tmp_path / f"{name}.key"), str(tmp_path / f"{name}.pem"))
        with storescp(tmp_path / name / "in", *keys, "+cf", str(tmp_path / "authority.pem")) as port:
            node = node_at(north, port, name.upper(), uses_tls=True)
            node.host = "localhost"
            node.save()
            steps = verify_node(node)
            transfer = transfers.send_study(study=study, node=node, principal=sender)
            queue.work_off(node.pk, SEND)
        transfer.refresh_from_db()
        assert steps[-1].is_ok is is_trusted, steps[-1].text
        assert (transfer.status == "done") is is_trusted, transfer.last_error
        assert len(list((tmp_path / name / "in").iterdir())) == (5 if is_trusted else 0)
        if not is_trusted:
            assert "isn't trusted" in steps[-1].text


def test_a_dicomweb_node_is_verified_by_a_search(north: Site, real_orthanc: Orthanc) -> None:
    node = Node(ae_title="WEB", site=north, kind=Node.Kind.DICOMWEB, base_url=real_orthanc.dicomweb)
    assert [step.is_ok for step in verify_node(node)] == [True, True, True]
    node.base_url = f"{real_orthanc.url}/no-such-root"
    last = verify_node(node)[-1]
    assert not last.is_ok
    assert "404" in last.text


def test_real_files_go_to_orthanc_in_every_syntax(
    shared: Path, north: Site, sender: Any, ingest_files: Callable[..., Any], real_orthanc: Orthanc
) -> None:
    files = sorted((shared / "dicom" / "codecs").rglob("*.dcm"))
    assert len(files) > 5
    ingest_files(north, *files)
    node = node_at(north, real_orthanc.dicom_port, "ORTHANC")
    for study in Study.objects.all():
        transfers.send_study(study=study, node=node, principal=sender)
    queue.work_off(node.pk, SEND)
    failed = TransferItem.objects.exclude(status="done").values_list("sop_instance_uid", "error")
    assert list(failed) == []


def test_a_node_is_not_called_more_often_at_once_than_it_bears(
    study: Study,
    north: Site,
    sender: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: Callable[[timedelta], None],
) -> None:
    monkeypatch.setattr(calling, "TURN_SECONDS", 0.3)
    echo = [build_context(Verification)]
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port, maximum_associations=1)
        transfer = transfers.send_study(study=study, node=node, principal=sender)
        with associated(node, echo):
            with pytest.raises(NodeBusy), associated(node, echo):
                pass
            queue.work_off(node.pk, SEND)
            transfer.refresh_from_db()
            state = NodeState.objects.get()
            assert (transfer.status, state.down_since, state.failures) == ("queued", None, 0)
            assert "all are in use" in transfer.last_error
        clock(queue.TURN_WAIT)
        queue.work_off(node.pk, SEND)
    transfer.refresh_from_db()
    assert transfer.status == "done"
    assert not AssociationLog.objects.filter(closed_at__isnull=True).exists()


def test_what_a_dead_worker_had_open_takes_no_place(study: Study, north: Site, tmp_path: Path) -> None:
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port, maximum_associations=1)
        gone = subprocess.Popen(["true"])
        gone.wait()
        row = associations.reserved(node)
        assert row is not None
        AssociationLog.objects.update(listener=f"{row.listener.rpartition(':')[0]}:{gone.pid}")
        with associated(node, [build_context(Verification)]) as association:
            assert association.send_c_echo().Status == 0x0000


def test_the_log_tells_what_went_out_while_it_goes(
    study: Study, north: Site, sender: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(associations, "PULSE_SECONDS", 0.0)
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port)
        transfers.send_study(study=study, node=node, principal=sender)
        queue.work_off(node.pk, SEND)
    log = AssociationLog.objects.get()
    assert (log.is_outgoing, log.sent, log.outcome) == (True, 5, "released")
    assert log.sent_bytes > sum(i.object_length for i in Instance.objects.all()) - 5 * 1000
    assert [int(instances) for _, instances, _ in log.recent] == [0, 1, 2, 3, 4]
