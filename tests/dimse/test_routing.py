"""Routing rules: what goes where when a study has settled, and what's changed on the way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import principal_of_node
from studies import arrival, events
from studies.dimse import queue, routing
from studies.dimse.coercion import Coercion, InvalidCoercion, coerce
from studies.dimse.conditions import Condition, InvalidCondition
from studies.dimse.models import Node, RoutingRule, Transfer
from studies.models import DomainEvent, Study
from studies.worklists.models import ReadingGroup
from tests.factories import ingest_as, make_instance
from tests.services.dicom_peers import storescp
from tests.services.ports import free_port

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def pacs(north: Site) -> Node:
    return Node.objects.create(ae_title="PACS", site=north, host="127.0.0.1", port=free_port(), may_receive=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    passed = [timedelta(0)]
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + passed[0])

    def advance(by: timedelta) -> None:
        passed[0] += by

    return advance


def rule(site: Site, *nodes: Node, name: str = "rule", **fields: Any) -> RoutingRule:
    made = RoutingRule.objects.create(site=site, name=name, **fields)
    made.nodes.set(nodes)
    return made


def condition(attribute: str, operator: str, value: str) -> dict[str, str]:
    return {"attribute": attribute, "operator": operator, "value": value}


def settle(clock: Callable[[timedelta], None]) -> None:
    clock(timedelta(seconds=11))
    arrival.settle_studies()
    events.deliver_due()


def send_from(ae_title: str, site: Site, *files: bytes) -> None:
    principal = principal_of_node(
        ae_title=ae_title, site_id=site.pk, capabilities=[Capability.STUDY_UPLOAD], ip_address=None
    )
    assert all(outcome.is_in for outcome in ingest_as(principal, site, files))


def test_a_study_is_routed_when_it_has_settled_and_not_before(
    north: Site, pacs: Node, ingest_files: Any, clock: Any
) -> None:
    rule(north, pacs)
    ingest_files(north, make_instance())
    arrival.settle_studies()
    events.deliver_due()
    assert not Transfer.objects.exists()
    settle(clock)
    transfer = Transfer.objects.get()
    assert (transfer.node, transfer.origin, transfer.total) == (pacs, "rule", 1)
    settle(clock)
    assert Transfer.objects.count() == 1


def test_a_study_that_never_rests_is_routed_after_two_minutes(
    north: Site, pacs: Node, ingest_files: Any, clock: Any
) -> None:
    rule(north, pacs)
    study = generate_uid()
    for _ in range(15):
        ingest_files(north, make_instance(StudyInstanceUID=study))
        clock(timedelta(seconds=9))
        arrival.settle_studies()
    events.deliver_due()
    assert Transfer.objects.count() == 1


def test_what_comes_later_follows_and_nothing_goes_twice(
    north: Site, pacs: Node, ingest_files: Any, clock: Any, tmp_path: Path
) -> None:
    rule(north, pacs)
    study = generate_uid()
    first, second = (make_instance(StudyInstanceUID=study, InstanceNumber=n) for n in (1, 2))
    ingest_files(north, first)
    settle(clock)
    ingest_files(north, first, second)
    settle(clock)
    assert [t.total for t in Transfer.objects.order_by("pk")] == [1, 1]
    with storescp(tmp_path / "in", port=pacs.port):
        queue.work_off(pacs.pk, "send")
    assert len(list((tmp_path / "in").iterdir())) == 2


@pytest.mark.parametrize(
    ("asked", "applies"),
    [
        (condition("modality", "is", "CT, MR"), True),
        (condition("modality", "is", "mr"), False),
        (condition("modality", "is_not", "MR"), True),
        (condition("study_description", "matches", "thorax|chest"), True),
        (condition("study_description", "matches_not", "^CT"), False),
        (condition("referring_physician", "matches", "okafor ada"), True),
        (condition("calling_ae", "is", "CT1"), True),
        (condition("calling_ae", "is", "CT2"), False),
        (condition("priority", "is", "STAT"), False),
        (condition("body_part", "is", "CHEST"), True),
        (condition("station", "is", "SCANNER1"), True),
    ],
)
def test_each_condition_chooses_studies(
    north: Site, pacs: Node, clock: Any, asked: dict[str, str], applies: bool
) -> None:
    rule(north, pacs, conditions=[asked])
    send_from("CT1", north, make_instance(BodyPartExamined="CHEST", StationName="SCANNER1"))
    settle(clock)
    assert Transfer.objects.exists() is applies


def test_conditions_on_series_send_those_series_only(north: Site, pacs: Node, ingest_files: Any, clock: Any) -> None:
    rule(north, pacs, conditions=[condition("modality", "is", "CT")])
    study = generate_uid()
    ct, sr = (make_instance(StudyInstanceUID=study, Modality=m, SeriesInstanceUID=generate_uid()) for m in ("CT", "SR"))
    ingest_files(north, ct, sr)
    settle(clock)
    assert Transfer.objects.get().total == 1


@pytest.mark.parametrize(("hour", "applies"), [(23, True), (3, True), (12, False)])
def test_times_of_night_go_past_midnight(hour: int, applies: bool) -> None:
    asked = Condition.of(condition("time", "between", "18:00-07:00"))
    assert asked.holds_for("", datetime(2026, 11, 24, hour, tzinfo=UTC)) is applies


@given(st.text(max_size=60), st.text(max_size=30))
def test_no_text_makes_a_condition_fail_otherwise_than_by_saying_so(pattern: str, text: str) -> None:
    try:
        asked = Condition.of(condition("study_description", "matches", pattern))
    except InvalidCondition:
        return
    assert asked.holds_for(text, datetime(2026, 1, 1, tzinfo=UTC)) in {True, False}


def test_a_study_never_goes_back_to_where_it_came_from_nor_to_other_sites(
    north: Site, south: Site, pacs: Node, clock: Any
) -> None:
    abroad = Node.objects.create(ae_title="SOUTH", site=south, host="127.0.0.1", port=104, may_receive=True)
    rule(north, pacs, abroad)
    send_from("PACS", north, make_instance())
    settle(clock)
    assert not Transfer.objects.exists()


def test_rules_are_asked_in_order_until_one_stops(north: Site, pacs: Node, ingest_files: Any, clock: Any) -> None:
    other = Node.objects.create(ae_title="OTHER", site=north, host="127.0.0.1", port=104, may_receive=True)
    rule(north, other, name="last", order=30)
    rule(north, pacs, name="first", order=10, stops=True)
    rule(north, other, name="off", order=1, is_active=False)
    ingest_files(north, make_instance())
    settle(clock)
    assert [t.node.ae_title for t in Transfer.objects.all()] == ["PACS"]


def test_a_rule_sets_priority_and_reader_and_names_the_group(
    north: Site, people: dict[str, Any], ingest_files: Any, clock: Any
) -> None:
    rule(north, set_priority="STAT", assign_to=people["radiologist"], reading_group="Neuro")
    ingest_files(north, make_instance())
    settle(clock)
    study = Study.objects.get()
    assert (study.priority, study.assigned_to) == ("STAT", people["radiologist"])
    event = DomainEvent.objects.get(name="study.routed_to_group")
    assert event.payload == {"study": study.pk, "group": "Neuro"}


def test_a_rule_gives_the_case_to_a_reader_of_the_group(
    north: Site, people: dict[str, Any], ingest_files: Any, clock: Any
) -> None:
    group = ReadingGroup.objects.create(site=north, name="Neuro")
    group.members.set([people["radiologist"]])
    rule(north, reading_group="neuro")
    ingest_files(north, make_instance())
    settle(clock)
    assert Study.objects.get().assigned_to == people["radiologist"]


def test_coercion_on_the_way_out_leaves_its_trace_and_the_archive_alone(
    north: Site, pacs: Node, ingest_files: Any, clock: Any, tmp_path: Path
) -> None:
    rule(
        north,
        pacs,
        coercions_out=[
            {"action": "prefix", "attribute": "PatientID", "value": "N-"},
            {"action": "set", "attribute": "InstitutionName", "value": "Krankenhaus Süd"},
            {"action": "remove", "attribute": "AccessionNumber"},
        ],
    )
    ingest_files(north, make_instance())
    settle(clock)
    with storescp(tmp_path / "in", port=pacs.port):
        queue.work_off(pacs.pk, "send")
    (path,) = (tmp_path / "in").iterdir()
    copy = pydicom.dcmread(path)
    assert (copy.PatientID, copy.InstitutionName, copy.get("AccessionNumber")) == ("N-P1", "Krankenhaus Süd", None)
    (trace,) = copy.OriginalAttributesSequence
    assert trace.ReasonForTheAttributeModification == "COERCE"
    (before,) = trace.ModifiedAttributesSequence
    assert (before.PatientID, before.AccessionNumber) == ("P1", "A1")
    assert Study.objects.get().patient_id_value == "P1"


def test_coercion_on_the_way_in_changes_what_is_shown_and_not_what_is_stored(
    north: Site, ingest_files: Any, clock: Any, client_of: Any
) -> None:
    rule(
        north,
        coercions_in=[
            {"action": "prefix", "attribute": "AccessionNumber", "value": "N"},
            {"action": "replace", "attribute": "StudyDescription", "value": "thorax", "replacement": "chest"},
        ],
    )
    ingest_files(north, make_instance())
    settle(clock)
    settle(clock)
    study = Study.objects.get()
    assert (study.accession_number, study.study_description) == ("NA1", "CT chest")
    found = client_of("radiologist").get("/dicom-web/studies?AccessionNumber=NA1").json()
    assert len(found) == 1


def test_a_rule_that_deidentifies_sends_no_name(
    north: Site, pacs: Node, ingest_files: Any, clock: Any, tmp_path: Path
) -> None:
    rule(north, pacs, deidentify=True, deidentification={"clean_descriptors": True})
    ingest_files(north, make_instance(PatientName="Geheimnis^Eva"))
    settle(clock)
    with storescp(tmp_path / "in", port=pacs.port):
        queue.work_off(pacs.pk, "send")
    (path,) = (tmp_path / "in").iterdir()
    assert b"Geheimnis" not in path.read_bytes()
    assert pydicom.dcmread(path).StudyDescription == "CT thorax"


def test_a_dry_run_tells_and_does_nothing(north: Site, pacs: Node, ingest_files: Any) -> None:
    tried = rule(north, pacs, conditions=[condition("modality", "is", "MR")], is_active=False)
    ingest_files(north, make_instance(Modality="MR"), make_instance(Modality="CT"))
    (would,) = routing.dry_run(tried, Study.objects.all())
    assert (would.study.modalities_in_study, would.instances, would.nodes) == ("MR", 1, [pacs])
    assert not Transfer.objects.exists()


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ({"action": "set", "attribute": "PatientIdentifier", "value": "x"}, "no attribute"),
        ({"action": "set", "attribute": "StudyInstanceUID", "value": "1.2"}, "may not be coerced"),
        ({"action": "set", "attribute": "PixelData", "value": "x"}, "may not be coerced"),
        ({"action": "set", "attribute": "StudyDate", "value": "yesterday"}, "no value"),
        ({"action": "explode", "attribute": "PatientID", "value": "x"}, "no action"),
        ({"action": "prefix", "attribute": "PatientID", "value": ""}, "a value is needed"),
    ],
)
def test_coercions_that_cannot_be_done_are_refused(kept: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidCoercion, match=words):
        Coercion.of(kept)


def test_coercing_twice_prefixes_once() -> None:
    dataset = pydicom.Dataset()
    dataset.PatientID = "1"
    prefix = Coercion.of({"action": "prefix", "attribute": "PatientID", "value": "N"})
    for _ in range(2):
        coerce(dataset, [prefix], modifying_system="ATRIUM")
    assert dataset.PatientID == "N1"
    assert len(dataset.OriginalAttributesSequence) == 1
