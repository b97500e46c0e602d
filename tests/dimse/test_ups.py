"""Unified Procedure Step and Instance Availability Notification before pynetdicom as the peer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    InstanceAvailabilityNotification,
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
    UPSFilteredGlobalSubscriptionInstance,
    UPSGlobalSubscriptionInstance,
)

from studies import events
from studies.archive import rejection
from studies.archive.deletion import delete_instances
from studies.archive.rejection import Reason
from studies.arrival import settle_studies
from studies.dimse.models import Node
from studies.dimse.ups_events import deliver_report
from studies.models import DomainEvent, Instance, Study
from studies.workitems import services, subscriptions
from studies.workitems.models import EventReport
from tests.factories import ingest_as, make_instance, principal_of
from tests.services.atrium import Atrium
from tests.services.ports import free_port
from tests.workitems.workitem_data import TRANSACTION, performed, scheduled

CLASSES = (
    *(UnifiedProcedureStepPush, UnifiedProcedureStepPull, UnifiedProcedureStepWatch, UnifiedProcedureStepQuery),
    InstanceAvailabilityNotification,
)


@contextmanager
def associated(atrium: Atrium, ae_title: str = "CT_NORTH") -> Iterator[Any]:
    ae = AE(ae_title)
    for sop_class in CLASSES:
        ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


@pytest.fixture(scope="module")
def scu(atrium: Atrium) -> Iterator[Any]:
    with associated(atrium) as association:
        yield association


def create(scu: Any, dataset: Dataset | None = None) -> str:
    uid = generate_uid()
    answer, made = scu.send_n_create(dataset or scheduled(), UnifiedProcedureStepPush, uid)
    assert answer.Status == 0x0000, answer
    assert made.ProcedureStepState == "SCHEDULED"
    return str(uid)


def act(scu: Any, uid: str, action: int, context: str = UnifiedProcedureStepPull, **keywords: Any) -> int:
    information = Dataset()
    for keyword, value in keywords.items():
        setattr(information, keyword, value)
    # An empty data set is announced by pynetdicom and never sent.
    answer, _ = scu.send_n_action(information or None, action, UnifiedProcedureStepPush, uid, meta_uid=context)
    return int(answer.Status)


def to_state(scu: Any, uid: str, state: str, transaction_uid: str = TRANSACTION) -> int:
    return act(scu, uid, 1, ProcedureStepState=state, TransactionUID=transaction_uid)


def change(scu: Any, uid: str, dataset: Dataset, transaction_uid: str = "") -> int:
    if transaction_uid:
        dataset.TransactionUID = transaction_uid
    answer, _ = scu.send_n_set(dataset, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
    return int(answer.Status)


def find(scu: Any, context: str = UnifiedProcedureStepPull, **keywords: Any) -> tuple[list[Dataset], set[int]]:
    identifier = Dataset()
    for keyword, value in keywords.items():
        setattr(identifier, keyword, value)
    matches, statuses = [], set()
    for answer, match in scu.send_c_find(identifier, context):
        statuses.add(int(answer.Status))
        if match is not None:
            matches.append(match)
    return matches, statuses


def test_a_workitem_is_pushed_pulled_and_completed(scu: Any) -> None:
    uid = create(scu)
    assert to_state(scu, uid, "IN PROGRESS") == 0x0000
    answer, got = scu.send_n_get([], UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepWatch)
    assert answer.Status == 0x0000
    assert got.ProcedureStepState == "IN PROGRESS"
    assert got.PatientName == "Müller^Jörg"
    assert not got.get("TransactionUID")
    assert to_state(scu, uid, "COMPLETED") == 0xC304
    assert change(scu, uid, performed()) == 0xC301
    assert change(scu, uid, performed(), TRANSACTION) == 0x0000
    assert to_state(scu, uid, "COMPLETED") == 0x0000
    assert to_state(scu, uid, "COMPLETED") == 0xB306


@pytest.mark.parametrize(
    ("dataset", "status"),
    [
        (scheduled(ProcedureStepState="IN PROGRESS"), 0xC309),
        (scheduled(ProcedureStepLabel=None), 0x0120),
        (scheduled(ProcedureStepLabel=""), 0x0121),
        (scheduled(ScheduledProcedureStepPriority="SOON"), 0x0106),
        (scheduled(WorklistLabel=""), 0xB300),
    ],
)
def test_creation_is_answered_with_the_standards_statuses(dataset: Dataset, status: int, scu: Any) -> None:
    answer, _ = scu.send_n_create(dataset, UnifiedProcedureStepPush, generate_uid())
    assert answer.Status == status


def test_a_uid_is_used_once_and_given_where_none_is(scu: Any) -> None:
    uid = create(scu)
    assert scu.send_n_create(scheduled(), UnifiedProcedureStepPush, uid)[0].Status == 0x0111
    answer, made = scu.send_n_create(scheduled(), UnifiedProcedureStepPush, None)
    assert answer.Status == 0x0000
    assert to_state(scu, made.SOPInstanceUID, "IN PROGRESS") == 0x0000


@pytest.mark.parametrize(
    ("state", "transaction_uid", "status"),
    [
        ("SCHEDULED", TRANSACTION, 0xC303),
        ("IN PROGRESS", TRANSACTION, 0xC302),
        ("IN PROGRESS", "1.2.3", 0xC301),
        ("IN PROGRESS", "", 0xC301),
        ("CANCELED", TRANSACTION, 0xC304),
        ("ELSEWHERE", TRANSACTION, 0x0106),
    ],
)
def test_states_are_entered_by_the_rules(state: str, transaction_uid: str, status: int, scu: Any) -> None:
    uid = create(scu)
    to_state(scu, uid, "IN PROGRESS")
    assert to_state(scu, uid, state, transaction_uid) == status


def test_cancellation(scu: Any) -> None:
    uid = create(scu)
    assert act(scu, uid, 2, UnifiedProcedureStepPush, ReasonForCancellation="mistake") == 0x0000
    assert act(scu, uid, 2, UnifiedProcedureStepPush) == 0xB304
    assert change(scu, uid, performed()) == 0xC300


def test_what_is_not_there(scu: Any) -> None:
    assert to_state(scu, "1.2.3.4", "IN PROGRESS") == 0xC307
    assert change(scu, "1.2.3.4", performed()) == 0xC307
    answer, _ = scu.send_n_get([], UnifiedProcedureStepPush, "1.2.3.4", meta_uid=UnifiedProcedureStepPull)
    assert answer.Status == 0xC307
    assert act(scu, create(scu), 9) == 0x0123


def test_only_what_is_asked_for_is_given(scu: Any) -> None:
    uid = create(scu)
    tag = pydicom.tag.Tag("ProcedureStepLabel")
    _, got = scu.send_n_get([tag], UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull)
    assert [e.keyword for e in got] == ["SpecificCharacterSet", "ProcedureStepLabel"]


def test_workitems_are_found_by_their_keys(scu: Any) -> None:
    label = generate_uid()[-16:]
    uids = [create(scu, scheduled(WorklistLabel=label, PatientID=patient)) for patient in ("F1", "F2")]
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "GPU1", ""
    matches, statuses = find(
        scu,
        WorklistLabel=label,
        PatientID="",
        PatientName="mull*",
        ScheduledProcedureStepStartDateTime="20260901-20260902",
        ScheduledStationNameCodeSequence=[item],
        ProcedureStepState="SCHEDULED",
        SpecificCharacterSet="ISO_IR 100",
    )
    assert statuses == {0xFF00, 0x0000}
    assert sorted(str(m.PatientID) for m in matches) == ["F1", "F2"]
    assert {m.SOPInstanceUID for m in matches} == set(uids)
    assert matches[0].PatientName == "Müller^Jörg"
    assert matches[0].ScheduledStationNameCodeSequence[0].CodeValue == "GPU1"
    assert find(scu, WorklistLabel=label, PatientID="F2", context=UnifiedProcedureStepQuery)[0][0].PatientID == "F2"
    assert find(scu, WorklistLabel=label, PatientID="F9")[0] == []
    assert 0xFF01 in find(scu, WorklistLabel=label, PatientWeight="80")[1]
    assert find(scu, ScheduledProcedureStepStartDateTime="soon")[1] == {0xA900}


def test_a_node_without_the_right_gets_nothing(atrium: Atrium, scu: Any) -> None:
    uid = create(scu)
    with associated(atrium, "WS_NORTH") as viewer:
        assert viewer.send_n_create(scheduled(), UnifiedProcedureStepPush, generate_uid())[0].Status == 0x0124
        assert to_state(viewer, uid, "IN PROGRESS") == 0x0124
        assert find(viewer, PatientID="P7") == ([], {0x0124})


def test_another_sites_workitem_is_not_there(atrium: Atrium, scu: Any) -> None:
    uid = create(scu)
    with associated(atrium, "CT_SOUTH") as southern:
        assert to_state(southern, uid, "IN PROGRESS") == 0xC307
        assert find(southern, SOPInstanceUID=uid) == ([], {0x0000})
        assert act(southern, uid, 3, UnifiedProcedureStepWatch, ReceivingAE="CT_SOUTH") == 0xC307


def test_subscriptions_are_answered_with_the_standards_statuses(scu: Any) -> None:
    uid = create(scu)
    watch = UnifiedProcedureStepWatch
    assert act(scu, uid, 3, watch, ReceivingAE="CT_NORTH", DeletionLock="TRUE") == 0x0000
    assert act(scu, uid, 3, watch, ReceivingAE="NOBODY") == 0xC308
    assert act(scu, uid, 3, watch) == 0x0120
    assert act(scu, uid, 4, watch, ReceivingAE="CT_NORTH") == 0x0000
    assert act(scu, uid, 4, watch, ReceivingAE="CT_NORTH") == 0xC307
    assert act(scu, uid, 5, watch, ReceivingAE="CT_NORTH") == 0xC314
    assert act(scu, UPSGlobalSubscriptionInstance, 3, watch, ReceivingAE="WS_NORTH") == 0x0000
    assert act(scu, UPSGlobalSubscriptionInstance, 5, watch, ReceivingAE="WS_NORTH") == 0x0000
    assert act(scu, UPSGlobalSubscriptionInstance, 5, watch, ReceivingAE="WS_NORTH") == 0xC314
    assert act(scu, UPSGlobalSubscriptionInstance, 4, watch, ReceivingAE="WS_NORTH") == 0x0000
    filtered = UPSFilteredGlobalSubscriptionInstance
    assert act(scu, filtered, 3, watch, ReceivingAE="WS_NORTH") == 0x0106
    assert act(scu, filtered, 3, watch, ReceivingAE="WS_NORTH", PatientID="P9") == 0x0000


@contextmanager
def subscriber(heard: list[tuple[str, int, str]], notices: list[Dataset], status: int = 0x0000) -> Iterator[int]:
    """Listen for event reports and notifications as a peer does; give the port."""

    def on_event(event: Any) -> tuple[int, None]:
        heard.append(
            (
                str(event.request.AffectedSOPInstanceUID),
                event.event_type,
                str(event.event_information.get("ProcedureStepState", "")),
            )
        )
        return status, None

    def on_notice(event: Any) -> tuple[int, Dataset]:
        notices.append(event.attribute_list)
        return status, event.attribute_list

    ae = AE("WATCHER")
    ae.add_supported_context(UnifiedProcedureStepEvent, scu_role=True, scp_role=True)
    ae.add_supported_context(InstanceAvailabilityNotification)
    port = free_port()
    handlers = [(evt.EVT_N_EVENT_REPORT, on_event), (evt.EVT_N_CREATE, on_notice)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield port
    finally:
        server.shutdown()


@pytest.mark.django_db
@pytest.mark.database
def test_a_subscriber_is_told_in_order_and_after_it_was_away(north: Any, people: Any) -> None:
    technologist = principal_of(people["technologist"])
    node = Node.objects.create(ae_title="WATCHER", site=north, host="127.0.0.1", port=free_port())
    workitem = services.create_workitem(site=north, dataset=scheduled(), principal=technologist).workitem
    subscriptions.subscribe(workitem=workitem, ae_title="WATCHER", principal=technologist)
    services.change_state(workitem=workitem, state="IN PROGRESS", transaction_uid=TRANSACTION, principal=technologist)
    events.deliver_due()
    assert EventReport.objects.filter(delivered_at__isnull=True).count() == 2
    heard: list[tuple[str, int, str]] = []
    with subscriber(heard, []) as port:
        Node.objects.filter(pk=node.pk).update(port=port)
        deliver_report({"report": EventReport.objects.latest("pk").pk})
        deliver_report({"report": EventReport.objects.earliest("pk").pk})
    uid = workitem.sop_instance_uid
    assert heard == [(uid, 1, "SCHEDULED"), (uid, 1, "IN PROGRESS")]
    assert not EventReport.objects.filter(delivered_at__isnull=True).exists()


@pytest.mark.django_db
@pytest.mark.database
def test_a_settled_study_is_told_to_the_nodes_that_want_it(north: Any, ingest_files: Any) -> None:
    ingest_files(
        north,
        *(
            make_instance(StudyInstanceUID="1.2.9", SeriesInstanceUID=f"1.2.9.{n // 2}", SOPInstanceUID=f"1.2.9.{n}.1")
            for n in range(3)
        ),
    )
    notices: list[Dataset] = []
    with subscriber([], notices) as port:
        for title, wants in (("WATCHER", True), ("INDIFFERENT", False)):
            Node.objects.create(
                ae_title=title, site=north, host="127.0.0.1", port=port, wants_availability_notification=wants
            )
        Study.objects.update(updated_at="2020-01-01T00:00:00Z")
        assert settle_studies() == 1
        events.deliver_due()
    (notice,) = notices
    assert notice.StudyInstanceUID == "1.2.9"
    counts = [len(series.ReferencedSOPSequence) for series in notice.ReferencedSeriesSequence]
    assert counts == [2, 1]
    reference = notice.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert (reference.InstanceAvailability, reference.RetrieveAETitle) == ("ONLINE", "ATRIUM")
    assert not DomainEvent.objects.filter(name="availability.due", delivered_at__isnull=True).exists()


@pytest.mark.django_db
@pytest.mark.database
def test_nodes_are_told_what_was_deleted_but_not_what_came_back(north: Any, people: Any, ingest_files: Any) -> None:
    uids = {"StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.9.1"}
    files = [make_instance(**uids, SOPInstanceUID=f"1.2.9.1.{n}", InstanceNumber=n) for n in (1, 2, 3)]
    ingest_files(north, *files)
    notices: list[Dataset] = []
    with subscriber([], notices) as port:
        Node.objects.create(
            ae_title="WATCHER", site=north, host="127.0.0.1", port=port, wants_availability_notification=True
        )
        delete_instances(
            study=Study.objects.get(), instances=Instance.objects.all(), principal=principal_of(people["admin"])
        )
        ingest_files(north, files[2])
        events.deliver_due()
    (notice,) = notices
    (series,) = notice.ReferencedSeriesSequence
    told = {r.ReferencedSOPInstanceUID: r.InstanceAvailability for r in series.ReferencedSOPSequence}
    assert told == {"1.2.9.1.1": "UNAVAILABLE", "1.2.9.1.2": "UNAVAILABLE"}


@pytest.mark.django_db
@pytest.mark.database
def test_nodes_are_told_what_was_rejected_and_what_is_shown_again(north: Any, people: Any, ingest_files: Any) -> None:
    uids = {"StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.9.1"}
    ingest_files(north, *(make_instance(**uids, SOPInstanceUID=f"1.2.9.1.{n}", InstanceNumber=n) for n in (1, 2)))
    study, principal = Study.objects.get(), principal_of(people["technologist"])
    notices: list[Dataset] = []
    with subscriber([], notices) as port:
        Node.objects.create(
            ae_title="WATCHER", site=north, host="127.0.0.1", port=port, wants_availability_notification=True
        )
        bad = Instance.objects.filter(sop_instance_uid="1.2.9.1.2").select_related("series")
        note = rejection.write_note(study=study, instances=list(bad), reason=Reason.QUALITY, observer="Tester")
        ingest_as(principal, north, [note])
        events.deliver_due()
        rejection.restore_instances(study=study, sop_instance_uids=["1.2.9.1.2"], principal=principal)
        events.deliver_due()
    states = [
        {
            str(reference.ReferencedSOPInstanceUID): str(reference.InstanceAvailability)
            for series in notice.ReferencedSeriesSequence
            for reference in series.ReferencedSOPSequence
        }
        for notice in notices
    ]
    assert [one["1.2.9.1.1"] for one in states] == ["ONLINE", "ONLINE"]
    assert [one["1.2.9.1.2"] for one in states] == ["UNAVAILABLE", "ONLINE"]


def test_a_notification_is_taken_once_and_kept(atrium: Atrium, scu: Any) -> None:
    notice = Dataset()
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.StudyInstanceUID = "1.2.3"
    assert scu.send_n_create(notice, InstanceAvailabilityNotification, generate_uid())[0].Status == 0x0120
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.1.1"
    reference.InstanceAvailability, reference.RetrieveAETitle = "ONLINE", "ELSEWHERE"
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3.1", [reference]
    notice.ReferencedSeriesSequence = [series]
    uid = generate_uid()
    assert scu.send_n_create(notice, InstanceAvailabilityNotification, uid)[0].Status == 0x0000
    assert scu.send_n_create(notice, InstanceAvailabilityNotification, uid)[0].Status == 0x0111
    with associated(atrium, "WS_NORTH") as viewer:
        assert viewer.send_n_create(notice, InstanceAvailabilityNotification, uid)[0].Status == 0x0124
