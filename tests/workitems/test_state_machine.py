"""The workitem's state machine, transition by transition (PS3.4 Table CC.1.1-2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from accounts.principals import Principal, principal_of_node
from portal.audit.models import AuditEvent
from studies.workitems import errors, services, subscriptions
from studies.workitems.matching import condition
from studies.workitems.models import EventReport, Workitem
from tests.factories import principal_of
from tests.workitems.workitem_data import TRANSACTION, discontinued, performed, scheduled

pytestmark = [pytest.mark.django_db, pytest.mark.database]
OTHER = "1.2.826.0.1.3680043.8.498.4712"


@pytest.fixture
def technologist(people: Any) -> Principal:
    return principal_of(people["technologist"])


@pytest.fixture
def made(north: Any, technologist: Principal) -> Callable[..., Workitem]:
    """Give a workitem in a state."""

    def make(state: str = "SCHEDULED", **keywords: Any) -> Workitem:
        workitem = services.create_workitem(site=north, dataset=scheduled(**keywords), principal=technologist).workitem
        if state == "SCHEDULED":
            return workitem
        _to(workitem, "IN PROGRESS", technologist)
        if state == "IN PROGRESS":
            return workitem
        ending = performed() if state == "COMPLETED" else discontinued()
        services.update_workitem(workitem=workitem, dataset=ending, transaction_uid=TRANSACTION, principal=technologist)
        _to(workitem, state, technologist)
        return workitem

    return make


def _to(workitem: Workitem, state: str, principal: Principal, transaction_uid: str = TRANSACTION) -> services.Done:
    return services.change_state(workitem=workitem, state=state, transaction_uid=transaction_uid, principal=principal)


FINAL = errors.NoLongerUpdatable


@pytest.mark.parametrize(
    ("state", "wanted", "transaction_uid", "refused"),
    [
        ("SCHEDULED", "IN PROGRESS", TRANSACTION, None),
        ("SCHEDULED", "IN PROGRESS", "", errors.MissingTransaction),
        ("SCHEDULED", "SCHEDULED", TRANSACTION, errors.ScheduledOnlyByCreation),
        ("SCHEDULED", "COMPLETED", TRANSACTION, errors.NotInProgress),
        ("SCHEDULED", "CANCELED", TRANSACTION, errors.NotInProgress),
        ("IN PROGRESS", "IN PROGRESS", TRANSACTION, errors.AlreadyInProgress),
        ("IN PROGRESS", "IN PROGRESS", OTHER, errors.WrongTransaction),
        ("IN PROGRESS", "SCHEDULED", TRANSACTION, errors.ScheduledOnlyByCreation),
        ("IN PROGRESS", "COMPLETED", TRANSACTION, errors.FinalStateNotMet),
        ("IN PROGRESS", "CANCELED", TRANSACTION, errors.FinalStateNotMet),
        ("IN PROGRESS", "COMPLETED", OTHER, errors.WrongTransaction),
        ("COMPLETED", "IN PROGRESS", TRANSACTION, FINAL),
        ("COMPLETED", "IN PROGRESS", OTHER, errors.WrongTransaction),
        ("COMPLETED", "CANCELED", TRANSACTION, FINAL),
        ("CANCELED", "IN PROGRESS", TRANSACTION, FINAL),
        ("CANCELED", "COMPLETED", TRANSACTION, FINAL),
        ("COMPLETED", "SCHEDULED", TRANSACTION, errors.ScheduledOnlyByCreation),
    ],
)
def test_each_transition_is_made_or_refused_with_its_reason(
    state: str, wanted: str, transaction_uid: str, refused: Any, made: Any, technologist: Principal
) -> None:
    workitem = made(state)
    if refused is None:
        _to(workitem, wanted, technologist, transaction_uid)
    else:
        with pytest.raises(refused) as caught:
            _to(workitem, wanted, technologist, transaction_uid)
        assert type(caught.value) is refused
    assert Workitem.objects.get().state == (state if refused else wanted)


@pytest.mark.parametrize(("state", "warning"), [("COMPLETED", 0xB306), ("CANCELED", 0xB304)])
def test_ending_what_has_ended_so_is_a_warning(state: str, warning: int, made: Any, technologist: Principal) -> None:
    assert _to(made(state), state, technologist).warning == warning


@pytest.mark.parametrize("missing", ["PerformedProcedureStepEndDateTime", "OutputInformationSequence"])
def test_it_is_not_completed_before_all_is_told(missing: str, made: Any, technologist: Principal) -> None:
    workitem = made("IN PROGRESS")
    told = performed()
    delattr(told.UnifiedProcedureStepPerformedProcedureSequence[0], missing)
    services.update_workitem(workitem=workitem, dataset=told, transaction_uid=TRANSACTION, principal=technologist)
    with pytest.raises(errors.FinalStateNotMet, match=missing):
        _to(workitem, "COMPLETED", technologist)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, errors.MustBeScheduled),
        ({"ProcedureStepState": None}, errors.MustBeScheduled),
        ({"ProcedureStepLabel": None}, errors.MissingAttribute),
        ({"ScheduledProcedureStepStartDateTime": ""}, errors.MissingAttributeValue),
        ({"ScheduledProcedureStepPriority": "SOON"}, errors.InvalidWorkitem),
        ({"InputReadinessState": "PERHAPS"}, errors.InvalidWorkitem),
        ({"TransactionUID": TRANSACTION}, errors.InvalidWorkitem),
        (
            {
                "ProcedureStepProgressInformationSequence": discontinued().ProcedureStepProgressInformationSequence,
            },
            errors.InvalidWorkitem,
        ),
    ],
)
def test_what_cannot_be_scheduled_is_refused(change: Any, refused: Any, made: Any) -> None:
    with pytest.raises(refused):
        made(**change)
    assert not Workitem.objects.exists()


def test_a_workitem_is_made_once(north: Any, technologist: Principal) -> None:
    made = [
        lambda: services.create_workitem(
            site=north, dataset=scheduled(), principal=technologist, sop_instance_uid="1.2.3"
        )
    ] * 2
    made[0]()
    with pytest.raises(errors.DuplicateWorkitem):
        made[1]()


def test_without_a_worklist_it_is_made_with_one_and_that_is_said(north: Any, technologist: Principal) -> None:
    done = services.create_workitem(site=north, dataset=scheduled(WorklistLabel=None), principal=technologist)
    assert (done.warning, done.workitem.worklist_label) == (0xB300, "GENERAL")


@pytest.mark.parametrize(
    ("state", "transaction_uid", "refused"),
    [
        ("SCHEDULED", "", None),
        ("SCHEDULED", TRANSACTION, errors.NotInProgress),
        ("IN PROGRESS", TRANSACTION, None),
        ("IN PROGRESS", "", errors.MissingTransaction),
        ("IN PROGRESS", OTHER, errors.WrongTransaction),
        ("COMPLETED", TRANSACTION, errors.NoLongerUpdatable),
        ("CANCELED", TRANSACTION, errors.NoLongerUpdatable),
    ],
)
def test_a_workitem_is_changed_by_whom_it_belongs_to(
    state: str, transaction_uid: str, refused: Any, made: Any, technologist: Principal
) -> None:
    workitem = made(state)
    change = scheduled()
    change.clear()
    change.ProcedureStepLabel = "Segment the spleen"

    def update() -> None:
        services.update_workitem(
            workitem=workitem, dataset=change, transaction_uid=transaction_uid, principal=technologist
        )

    if refused:
        with pytest.raises(refused):
            update()
    else:
        update()
        assert Workitem.objects.get().procedure_step_label == "Segment the spleen"


@pytest.mark.parametrize("keyword", ["PatientID", "ProcedureStepState", "StudyInstanceUID"])
def test_whose_work_it_is_is_never_changed(keyword: str, made: Any, technologist: Principal) -> None:
    change = scheduled()
    for element in list(change):
        if element.keyword != keyword:
            del change[element.tag]
    with pytest.raises(errors.InvalidWorkitem, match=keyword):
        services.update_workitem(workitem=made(), dataset=change, principal=technologist)


def test_a_request_cancels_what_nobody_has_claimed(made: Any, technologist: Principal) -> None:
    workitem = made()
    services.request_cancellation(workitem=workitem, dataset=scheduled(), principal=technologist)
    canceled = Workitem.objects.get()
    assert canceled.state == "CANCELED"
    item = canceled.attributes["00741002"]["Value"][0]
    assert item["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]


def test_a_request_tells_the_performer_who_decides(made: Any, technologist: Principal) -> None:
    workitem = made("IN PROGRESS")
    subscriptions.subscribe(workitem=workitem, ae_title="PERFORMER", principal=technologist)
    reason = scheduled()
    reason.clear()
    reason.ReasonForCancellation = "wrong side"
    services.request_cancellation(workitem=workitem, dataset=reason, principal=technologist)
    assert Workitem.objects.get().state == "IN PROGRESS"
    report = EventReport.objects.get(event_type=EventReport.Type.CANCEL_REQUESTED)
    assert report.information["00741238"]["Value"] == ["wrong side"]


@pytest.mark.parametrize(("state", "outcome"), [("COMPLETED", errors.AlreadyCompleted), ("CANCELED", 0xB304)])
def test_a_request_comes_too_late(state: str, outcome: Any, made: Any, technologist: Principal) -> None:
    workitem = made(state)
    if outcome == 0xB304:
        done = services.request_cancellation(workitem=workitem, dataset=scheduled(), principal=technologist)
        assert done.warning == outcome
    else:
        with pytest.raises(outcome):
            services.request_cancellation(workitem=workitem, dataset=scheduled(), principal=technologist)


def test_subscribers_hear_each_step_in_order(made: Any, technologist: Principal) -> None:
    workitem = made()
    subscriptions.subscribe(workitem=workitem, ae_title="WATCH", principal=technologist)
    _to(workitem, "IN PROGRESS", technologist)
    services.update_workitem(
        workitem=workitem, dataset=discontinued(), transaction_uid=TRANSACTION, principal=technologist
    )
    _to(workitem, "CANCELED", technologist)
    reports = EventReport.objects.order_by("pk")
    heard = [(r.event_type, r.information.get("00741000", {}).get("Value")) for r in reports]
    assert heard == [(1, ["SCHEDULED"]), (1, ["IN PROGRESS"]), (3, None), (1, ["CANCELED"])]


def test_global_subscribers_hear_what_their_filter_matches(
    made: Any, north: Any, south: Any, technologist: Principal
) -> None:
    made()
    for ae_title, keys in (("ALL", {}), ("GPU2", {"ScheduledStationNameCodeSequence.CodeValue": "GPU2"})):
        subscriptions.subscribe_globally(site=north, ae_title=ae_title, principal=technologist, keys=keys)
    made(ScheduledStationNameCodeSequence=[], PatientID="P8")
    heard = list(EventReport.objects.order_by("pk").values_list("ae_title", "workitem__patient_id", "event_type"))
    assert heard == [("ALL", "P7", 1), ("ALL", "P8", 1)]
    subscriptions.suspend_globally(site=north, ae_title="ALL", principal=technologist)
    workitem = made()
    assert not workitem.subscriptions.exists()
    assert Workitem.objects.get(patient_id="P8").subscriptions.count() == 1
    with pytest.raises(errors.InappropriateAction):
        subscriptions.suspend_globally(site=north, ae_title="ALL", principal=technologist)
    subscriptions.unsubscribe_globally(site=north, ae_title="ALL", principal=technologist)
    with pytest.raises(errors.NotSubscribed):
        subscriptions.unsubscribe_globally(site=north, ae_title="ALL", principal=technologist)


def test_who_may_not_work_at_the_site_does_nothing(made: Any, people: Any, north: Any) -> None:
    workitem = made()
    southern = principal_of(people["southradiologist"])
    with pytest.raises(errors.NotAuthorised):
        services.create_workitem(site=north, dataset=scheduled(), principal=southern)
    with pytest.raises(errors.NotAuthorised):
        _to(workitem, "IN PROGRESS", southern)
    with pytest.raises(errors.NotAuthorised):
        services.update_workitem(workitem=workitem, dataset=scheduled(), principal=southern)
    with pytest.raises(errors.NotAuthorised):
        services.request_cancellation(workitem=workitem, dataset=scheduled(), principal=southern)
    node = principal_of_node(ae_title="CT", site_id=north.pk, capabilities=[], ip_address=None)
    with pytest.raises(errors.NotAuthorised):
        subscriptions.subscribe(workitem=workitem, ae_title="CT", principal=node)


def test_every_step_is_in_the_trail_and_the_transaction_uid_is_not(made: Any) -> None:
    made("COMPLETED")
    told = [e.details.get("what") for e in AuditEvent.objects.filter(action="change").order_by("sequence")]
    assert told[-4:] == ["workitem created", "workitem in progress", "workitem changed", "workitem completed"]
    assert TRANSACTION not in str(list(AuditEvent.objects.values_list("details", flat=True)))


@pytest.mark.parametrize(
    ("keys", "is_found"),
    [
        ({"PatientName": "muller*"}, True),
        ({"PatientName": "Müller"}, True),
        ({"PatientID": "P?"}, True),
        ({"PatientID": "Q*"}, False),
        ({"ScheduledProcedureStepStartDateTime": "20260901"}, True),
        ({"ScheduledProcedureStepStartDateTime": "20260901101500"}, True),
        ({"ScheduledProcedureStepStartDateTime": "20260901121500+0200"}, True),
        ({"ScheduledProcedureStepStartDateTime": "202609-"}, True),
        ({"ScheduledProcedureStepStartDateTime": "-20260831"}, False),
        ({"ScheduledProcedureStepStartDateTime": "20260901101501-20260902"}, False),
        ({"ScheduledProcedureStepStartDateTime": "20260901051500-0500"}, True),
        ({"ScheduledProcedureStepStartDateTime": "20260901050000-0500-20260901052000-0500"}, True),
        ({"PatientBirthDate": "19700101-19700103"}, True),
        ({"ScheduledStationNameCodeSequence.CodeValue": "GPU1"}, True),
        ({"ScheduledStationNameCodeSequence.CodeValue": "GPU*"}, True),
        ({"ScheduledStationNameCodeSequence.CodeValue": "GPU2"}, False),
        ({"ReferencedRequestSequence.AccessionNumber": "ACC7"}, True),
        ({"ProcedureStepState": "SCHEDULED\\IN PROGRESS"}, True),
        ({"ProcedureStepState": "COMPLETED"}, False),
        ({"PatientSex": ""}, True),
    ],
)
def test_matching_finds_what_is_meant(keys: dict[str, str], is_found: bool, made: Any) -> None:
    made()
    assert Workitem.objects.filter(condition(keys)).exists() is is_found


@given(key=st.sampled_from(["ScheduledProcedureStepStartDateTime", "PatientName", "PatientBirthDate"]), value=st.text())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_breaks_matching(key: str, value: str) -> None:
    try:
        list(Workitem.objects.filter(condition({key: value})))
    except errors.InvalidWorkitem:
        pass
    except UnicodeEncodeError:
        assert any(0xD800 <= ord(c) < 0xE000 for c in value)


def test_what_is_told_comes_by_ascending_tag_in_items_too(
    made: Any, technologist: Principal, client_of: Callable[[str], Client]
) -> None:
    item = {"00080104": text_of("LO", "meant"), "00080100": text_of("SH", "GPU1"), "00080102": text_of("SH", "99TEST")}
    stations = Dataset()
    stations.ScheduledStationNameCodeSequence = [Dataset.from_json(item)]
    workitem = made()
    subscriptions.subscribe(workitem=workitem, ae_title="WATCH", principal=technologist)
    services.update_workitem(workitem=workitem, dataset=stations, transaction_uid="", principal=technologist)
    _to(workitem, "IN PROGRESS", technologist)
    services.update_workitem(
        workitem=workitem, dataset=discontinued(), transaction_uid=TRANSACTION, principal=technologist
    )
    _to(workitem, "CANCELED", technologist)
    told = [report.information for report in EventReport.objects.order_by("pk")]
    assert max(len(content) for content in told) > 2
    answers = client_of("technologist").get("/dicom-web/workitems").json()
    assert len(answers) == 1
    assert not list(disordered([*told, *answers]))


def text_of(vr: str, value: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def disordered(contents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the objects, nested ones too, whose tags aren't in ascending order."""
    for content in contents:
        if list(content) != sorted(content):
            yield content
        for element in content.values():
            if element["vr"] == "SQ":
                yield from disordered(element.get("Value", []))
