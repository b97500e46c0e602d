"""UPS-RS clause by clause (PS3.18 §11): statuses, headers, forms."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from studies.archive.native_model import to_native_xml
from studies.workitems.models import EventReport, Subscription, Workitem
from tests.workitems.workitem_data import TRANSACTION, code, discontinued, performed, scheduled

pytestmark = [pytest.mark.django_db, pytest.mark.database]
ROOT = "/dicom-web/workitems"
JSON = "application/dicom+json"
SERVICE = "299 http://testserver/dicom-web"
UID = "1.2.826.0.1.3680043.8.498.1"
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"


def body(dataset: Dataset) -> str:
    return json.dumps([dataset.to_json_dict()])


def post(browser: Client, path: str, dataset: Dataset | None = None) -> Any:
    return browser.post(path, body(dataset) if dataset is not None else "", content_type=JSON)


def to_state(browser: Client, state: str, transaction_uid: str = TRANSACTION) -> Any:
    change = Dataset()
    change.ProcedureStepState = state
    if transaction_uid:
        change.TransactionUID = transaction_uid
    return browser.put(f"{ROOT}/{UID}/state", body(change), content_type=JSON)


@pytest.fixture
def technologist(client_of: Any) -> Client:
    browser: Client = client_of("technologist")
    return browser


@pytest.fixture
def made(technologist: Client) -> Client:
    """Give the technologist with one workitem made."""
    assert post(technologist, f"{ROOT}?workitem={UID}", scheduled()).status_code == 201
    return technologist


@pytest.mark.parametrize("query", [f"workitem={UID}", UID, f"AffectedSOPInstanceUID={UID}"])
def test_a_workitem_is_created_at_the_uid_asked_for(query: str, technologist: Client) -> None:
    answer = post(technologist, f"{ROOT}?{query}", scheduled())
    assert answer.status_code == 201
    assert answer["Location"].endswith(f"{ROOT}/{UID}")
    assert "Warning" not in answer
    assert technologist.get(answer["Location"]).status_code == 200


def test_without_a_uid_one_is_given(technologist: Client) -> None:
    answer = post(technologist, ROOT, scheduled(WorklistLabel=None))
    assert re.search(r"/workitems/[0-9.]+$", answer["Location"])
    assert answer["Warning"] == f'{SERVICE} "The Workitem was created with modifications."'


def test_creating_it_twice_is_a_conflict(made: Client) -> None:
    assert post(made, f"{ROOT}?workitem={UID}", scheduled()).status_code == 409


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        (JSON, "[{}", 400),
        (JSON, "[]", 400),
        (JSON, "[1]", 400),
        (JSON, '[{"00741000": {"vr": "SQ", "Value": 3}}]', 400),
        (JSON, "[{}]", 400),
        ("application/dicom+xml", "<a/>", 400),
        ("application/dicom+xml", '<!DOCTYPE a [<!ENTITY b "c">]><NativeDicomModel/>', 400),
        ("text/plain", "x", 415),
    ],
)
def test_what_is_no_workitem_is_refused(content_type: str, content: str, status: int, technologist: Client) -> None:
    assert technologist.post(ROOT, content, content_type=content_type).status_code == status


def test_it_comes_back_as_it_was_without_its_secret(made: Client) -> None:
    assert to_state(made, "IN PROGRESS").status_code == 200
    answer = made.get(f"{ROOT}/{UID}")
    (item,) = answer.json()
    assert answer["Content-Type"] == JSON
    assert item["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert item["00741000"]["Value"] == ["IN PROGRESS"]
    assert item["00080018"]["Value"] == [UID]
    assert item["00404005"]["Value"] == ["20260901101500"]
    assert "00404010" in item
    assert TRANSACTION not in answer.content.decode()


def test_it_comes_as_xml_and_goes_in_as_xml(made: Client) -> None:
    answer = made.get(f"{ROOT}/{UID}", HTTP_ACCEPT="application/dicom+xml")
    root = ElementTree.fromstring(answer.content)
    names = {e.get("keyword"): e for e in root}
    namespace = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    assert names["PatientName"].find(f".//{namespace}FamilyName").text == "Müller"
    document = to_native_xml(scheduled().to_json_dict())
    again = made.post(ROOT, document, content_type="application/dicom+xml")
    assert again.status_code == 201
    assert Workitem.objects.latest("pk").patient_name == "Müller^Jörg"
    many = made.get(ROOT, HTTP_ACCEPT='multipart/related; type="application/dicom+xml"')
    assert many.content.count(b"<NativeDicomModel") == 2
    assert made.get(f"{ROOT}/{UID}", HTTP_ACCEPT="image/png").status_code == 406


def test_its_whole_life(made: Client) -> None:
    claimed = to_state(made, "IN PROGRESS")
    assert claimed.status_code == 200
    refused = post(made, f"{ROOT}/{UID}", performed())
    assert (refused.status_code, refused["Warning"]) == (
        400,
        f'{SERVICE} "The Transaction UID is missing."',
    )
    refused = post(made, f"{ROOT}/{UID}?transaction-uid=1.2.3", performed())
    assert (refused.status_code, refused["Warning"]) == (
        400,
        f'{SERVICE} "The Transaction UID is incorrect."',
    )
    early = to_state(made, "COMPLETED")
    assert (early.status_code, early.json()["dicomStatus"]) == (409, "C304")
    assert post(made, f"{ROOT}/{UID}?transaction-uid={TRANSACTION}", performed()).status_code == 200
    assert to_state(made, "COMPLETED").status_code == 200
    again = to_state(made, "COMPLETED")
    assert (again.status_code, again["Warning"]) == (
        200,
        f'{SERVICE} "The UPS is already in the requested state of COMPLETED."',
    )
    late = post(made, f"{ROOT}/{UID}?transaction-uid={TRANSACTION}", performed())
    assert late.status_code == 409
    assert "inconsistent with the current state" in late["Warning"]


@pytest.mark.parametrize(
    ("state", "transaction_uid", "status"),
    [("IN PROGRESS", "", 400), ("COMPLETED", TRANSACTION, 409), ("SCHEDULED", TRANSACTION, 409), ("", "1.2", 400)],
)
def test_a_state_that_cannot_be_entered(state: str, transaction_uid: str, status: int, made: Client) -> None:
    assert to_state(made, state, transaction_uid).status_code == status


def test_the_transaction_uid_may_stand_in_the_body(made: Client) -> None:
    to_state(made, "IN PROGRESS")
    change = performed()
    change.TransactionUID = TRANSACTION
    assert post(made, f"{ROOT}/{UID}", change).status_code == 200
    assert TRANSACTION not in str(Workitem.objects.get().attributes)


def test_cancellation(made: Client) -> None:
    assert post(made, f"{ROOT}/{UID}/cancelrequest").status_code == 202
    again = post(made, f"{ROOT}/{UID}/cancelrequest")
    assert (again.status_code, again["Warning"]) == (
        202,
        f'{SERVICE} "The UPS is already in the requested state of CANCELED."',
    )


def test_cancellation_of_what_is_done_is_a_conflict(made: Client) -> None:
    to_state(made, "IN PROGRESS")
    post(made, f"{ROOT}/{UID}?transaction-uid={TRANSACTION}", performed())
    to_state(made, "COMPLETED")
    answer = post(made, f"{ROOT}/{UID}/cancelrequest", discontinued())
    assert (answer.status_code, answer["Warning"]) == (
        409,
        f'{SERVICE} "The UPS is already COMPLETED."',
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["P7", "P8"]),
        ("PatientID=P8", ["P8"]),
        ("00100020=P8", ["P8"]),
        ("ScheduledStationNameCodeSequence.CodeValue=GPU2", ["P8"]),
        ("00404025.00080100=GPU1", ["P7"]),
        ("ProcedureStepState=SCHEDULED&limit=1", ["P7"]),
        ("limit=1&offset=1", ["P8"]),
        ("ScheduledProcedureStepStartDateTime=20260902-", ["P8"]),
    ],
)
def test_a_search_finds_what_matches(query: str, found: list[str], made: Client) -> None:
    post(
        made,
        ROOT,
        scheduled(
            PatientID="P8",
            ScheduledStationNameCodeSequence=[code("GPU2")],
            ScheduledProcedureStepStartDateTime="20260902",
        ),
    )
    answer = made.get(f"{ROOT}?{query}")
    assert answer.status_code in {200, 206}
    assert [w["00100020"]["Value"][0] for w in answer.json()] == found


def test_a_search_says_whether_it_gave_all_part_or_nothing(technologist: Client) -> None:
    """PS3.18 Table 11.9.3-1; what matches and where a page begins and ends is §8.3.4.4.1."""
    assert technologist.get(ROOT).status_code == 204
    for number in range(3):
        post(technologist, ROOT, scheduled(PatientID=f"P{number}"))
    assert technologist.get(ROOT).status_code == 200

    def page(query: str) -> tuple[int, int, bool]:
        answer = technologist.get(f"{ROOT}?{query}")
        has_more = "Additional results can be requested" in answer.headers.get("Warning", "")
        return answer.status_code, len(answer.json()) if answer.content else 0, has_more

    assert page("limit=2") == (206, 2, True)
    assert page("limit=2&offset=1") == (200, 2, False)
    assert page("limit=2&offset=2") == (200, 1, False)
    assert page("limit=3") == (200, 3, False)
    assert page("offset=3") == (204, 0, False)
    assert page("limit=0") == (204, 0, False)


def test_a_search_that_finds_nothing_or_cannot_be_done(made: Client) -> None:
    assert made.get(f"{ROOT}?PatientID=NOBODY").status_code == 204
    assert made.get(f"{ROOT}?NoSuchThing=1").status_code == 400
    assert made.get(f"{ROOT}?limit=x").status_code == 400
    assert "PatientWeight" in made.get(f"{ROOT}?PatientWeight=80")["Warning"]


def test_subscriptions(made: Client) -> None:
    answer = post(made, f"{ROOT}/{UID}/subscribers/WATCH?deletionlock=true")
    assert answer.status_code == 201
    assert answer["Content-Location"].startswith("ws://")
    assert answer["Content-Location"].endswith("/dicom-web/subscribers/WATCH")
    assert Subscription.objects.get().deletion_lock
    assert EventReport.objects.count() == 1
    assert made.delete(f"{ROOT}/{UID}/subscribers/WATCH").status_code == 200
    assert made.delete(f"{ROOT}/{UID}/subscribers/WATCH").status_code == 404
    assert post(made, f"{ROOT}/1.2.3/subscribers/WATCH").status_code == 404
    assert post(made, f"{ROOT}/{UID}/subscribers/TOOLONGFORANAETITLE").status_code == 400


def test_global_subscriptions(made: Client) -> None:
    assert post(made, f"{ROOT}/{GLOBAL}/subscribers/ALL").status_code == 201
    assert post(made, f"{ROOT}/{GLOBAL}/subscribers/ALL?filter=PatientID=P7").status_code == 400
    assert post(made, f"{ROOT}/{FILTERED}/subscribers/SOME?filter=PatientID=P9,WorklistLabel=AI").status_code == 201
    assert post(made, f"{ROOT}/{FILTERED}/subscribers/SOME").status_code == 400
    post(made, ROOT, scheduled(PatientID="P9"))
    told = EventReport.objects.filter(workitem__patient_id="P9", event_type=1).values_list("ae_title", flat=True)
    assert sorted(told) == ["ALL", "SOME"]
    assert post(made, f"{ROOT}/{GLOBAL}/subscribers/ALL/suspend").status_code == 200
    assert post(made, f"{ROOT}/{GLOBAL}/subscribers/ALL/suspend").status_code == 409
    assert post(made, f"{ROOT}/{UID}/subscribers/ALL/suspend").status_code == 400
    assert made.delete(f"{ROOT}/{GLOBAL}/subscribers/ALL").status_code == 200
    assert not Subscription.objects.filter(ae_title="ALL").exists()


def test_another_sites_workitem_is_not_there(made: Client, client_of: Any) -> None:
    southern = client_of("southradiologist")
    assert southern.get(f"{ROOT}/{UID}").status_code == 404
    assert southern.get(ROOT).status_code == 204
    assert post(southern, f"{ROOT}/{UID}", performed()).status_code == 404
    assert post(southern, f"{ROOT}/{UID}/cancelrequest").status_code == 404
    assert post(southern, f"{ROOT}/{UID}/subscribers/SPY").status_code == 404
    assert post(southern, f"{ROOT}/{GLOBAL}/subscribers/SPY").status_code == 201
    assert not EventReport.objects.exists()
    # Nor does its UID stand in the other site's way.
    assert post(southern, f"{ROOT}?workitem={UID}", scheduled()).status_code == 201


def test_who_only_refers_has_no_worklist(client_of: Any) -> None:
    assert client_of("referrer").get(ROOT).status_code == 403
    assert Client().get(ROOT).status_code == 401


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
elements = st.fixed_dictionaries(
    {"vr": st.sampled_from(["CS", "DT", "SQ", "PN", "UI", "OB", "??"])},
    optional={"Value": values, "InlineBinary": values},
)


@given(
    tags=st.dictionaries(
        st.sampled_from(["00741200", "00404005", "00404041", "00741000", "00100010", "00404025", "x"]), elements
    )
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_breaks_the_server(tags: Any, technologist: Client) -> None:
    content = json.loads(body(scheduled()))[0] | tags
    answer = technologist.post(ROOT, json.dumps([content]), content_type=JSON)
    assert answer.status_code < 500, answer.content
    if answer.status_code == 201:
        assert technologist.get(answer["Location"]).status_code == 200
        assert technologist.get(answer["Location"], HTTP_ACCEPT="application/dicom+xml").status_code == 200


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SOPInstanceUID=abc", "UID"),
        ("00404005=-", "date"),
        ("PatientBirthDate=-", "one end"),
        ("PatientBirthDate=1970 101", "YYYYMMDD"),
        ("0040A370=x", "sequence"),
        ("PatientName=" + "x" * 6000, "at most 5000 characters"),
        ("PatientID=a%00b", "NUL"),
        ("StudyInstanceUID=,", "UID"),
        ("00404005=20260901100000+0100", "%2B0100"),
        ("limit=\u0661", "natural number"),
        ("emptyvaluematching=perhaps", "true or false"),
    ],
)
def test_a_search_for_what_is_no_value_is_refused_with_the_reason(made: Client, query: str, reason: str) -> None:
    answer = made.get(f"{ROOT}?{query}")
    assert answer.status_code == 400
    assert reason in answer.json()["title"]


def test_moments_are_matched_to_their_precision_and_in_their_zone(made: Client) -> None:
    # It begins on the first of September 2026 at 10:15.
    whole = ("2026", "202609", "20260901", "2026090110", "20260901101500", " 2026")
    ranges = ("-2026", "20260901-", "202608-202609", "-9999", "0001-", "0001-99991231")
    for found in (*whole, *ranges):
        assert made.get(f"{ROOT}?00404005={found}").status_code == 200, found
    for missed in ("2025", "202608", "2026090111", "20260902-", "-20260831", "20260901101500.5"):
        assert made.get(f"{ROOT}?00404005={missed}").status_code == 204, missed
    assert made.get(f"{ROOT}?00404005=20260901121500%2B0200").status_code == 200
    assert made.get(f"{ROOT}?00404005=20260901101500%2B0200").status_code == 204


def test_absent_values_and_names_that_sound_alike_are_found_where_asked_for(made: Client) -> None:
    def finds(query: str) -> bool:
        answer = made.get(f"{ROOT}?{query}")
        assert answer.status_code in {200, 204}, answer.content
        return bool(answer.status_code == 200)

    assert finds('AdmissionID=""&emptyvaluematching=true')
    assert not finds('PatientID=""&emptyvaluematching=true')
    assert finds('ExpectedCompletionDateTime=""&emptyvaluematching=true')
    assert not finds('00404005=""&emptyvaluematching=true')
    assert finds('ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue=""&emptyvaluematching=true')
    assert not finds('ScheduledWorkitemCodeSequence.CodeValue=""&emptyvaluematching=true')
    assert finds("PatientName=Muller")
    assert not finds("PatientName=Miller^Jork")
    assert finds("PatientName=Miller^Jork&fuzzymatching=true")
    assert finds("PatientID=P1&PatientID=P7&multiplevaluematching=true")


def test_an_update_is_held_to_what_a_creation_is(made: Client) -> None:
    for tag, vr, wrong in (
        ("00404005", "DT", "x"),
        ("00741200", "CS", "URGENT"),
        ("00404011", "DT", "x"),
        ("00280010", "US", 1.5),
        ("00189073", "FL", 1e39),
    ):
        content = json.dumps([{tag: {"vr": vr, "Value": [wrong]}}])
        assert made.post(f"{ROOT}/{UID}", content, content_type=JSON).status_code == 400, tag
    assert made.get(f"{ROOT}/{UID}").json()[0]["00404005"]["Value"] == ["20260901101500"]


def test_a_filter_that_was_taken_before_keeps_no_workitem_out(technologist: Client) -> None:
    assert post(technologist, f"{ROOT}/{GLOBAL}/subscribers/OLD").status_code == 201
    Subscription.objects.update(filter={"StudyInstanceUID": "1.2.*"})
    assert post(technologist, f"{ROOT}/{GLOBAL}/subscribers/ALL").status_code == 201
    assert post(technologist, f"{ROOT}?workitem={UID}", scheduled()).status_code == 201
    assert set(EventReport.objects.values_list("ae_title", flat=True)) == {"ALL"}


def test_flags_are_true_or_false(made: Client) -> None:
    assert post(made, f"{ROOT}/{UID}/subscribers/WATCH?deletionlock=maybe").status_code == 400
    assert not Subscription.objects.exists()
