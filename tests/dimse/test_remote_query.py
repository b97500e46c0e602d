"""Remote archives: asked, and fetched from through our own ingest; priors that come by themselves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.urls import reverse
from pydicom.uid import generate_uid

from accounts.models import Site
from portal.audit.models import AuditEvent
from studies import events
from studies.dimse import queue
from studies.dimse.client import Query
from studies.dimse.clients import client_of
from studies.dimse.models import AssociationLog, Node, PrefetchRule, Transfer
from studies.dimse.transfers import queue_retrieval
from studies.models import DomainEvent, Instance, Study
from studies.orders.patients import PatientIdentity
from studies.orders.services import OrderDetails, place_order
from tests.dimse.test_routing import clock, settle  # noqa: F401  the fixture
from tests.factories import make_instance, principal_of
from tests.services.dicom_peers import Orthanc, dcmqrscp, orthanc, tool
from tests.services.ports import free_port

pytestmark = pytest.mark.django_db
RETRIEVE = Transfer.Kind.RETRIEVE


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture(params=["dimse", "dicomweb"])
def node(request: pytest.FixtureRequest, north: Site, archive: Orthanc) -> Node:
    return make_node(north, archive, request.param)


def make_node(site: Site, archive: Orthanc, kind: str = "dimse", **fields: Any) -> Node:
    return Node.objects.create(
        ae_title="ORTHANC",
        kind=kind,
        site=site,
        host="127.0.0.1",
        port=archive.dicom_port,
        base_url=archive.dicomweb,
        may_be_queried=True,
        **fields,
    )


def put(archive: Orthanc, *, count: int = 1, **keywords: Any) -> str:
    study, series = generate_uid(), generate_uid()
    for number in range(count):
        archive.put(
            make_instance(StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=number + 1, **keywords)
        )
    return study


def test_a_patients_studies_are_found_and_fetched_whole(node: Node, archive: Orthanc, client_of: Any) -> None:
    patient = f"FOUND{node.kind}"
    wanted = put(archive, count=3, PatientID=patient, PatientName="Müller^Änne")
    put(archive, PatientID="ELSE")
    browser = client_of("technologist")
    answer = browser.post(reverse("remote_query"), {"node": node.pk, "patient_id": patient})
    assert answer.status_code == 200
    assert wanted in answer.content.decode()
    assert "MÜLLER, Änne" in answer.content.decode()
    assert "ELSE" not in answer.content.decode()
    sent = browser.post(reverse("remote_retrieve"), {"node": node.pk, "study": wanted})
    transfer = Transfer.objects.get()
    assert sent.headers["Location"] == reverse("transfer", args=[transfer.pk])
    queue.work_off(node.pk, RETRIEVE)
    transfer.refresh_from_db()
    assert (transfer.status, transfer.completed, transfer.total, transfer.failed) == ("done", 3, 3, 0), (
        transfer.last_error
    )
    study = Study.objects.get(study_instance_uid=wanted)
    assert (study.site, study.number_of_instances, study.patient_name) == (node.site, 3, "Müller^Änne")
    assert transfer.study == study
    asked = AuditEvent.objects.get(action=AuditEvent.Action.SEARCH)
    assert (asked.username, asked.details["node"], asked.details["results"]) == ("technologist", "ORTHANC", 1)


def test_names_dates_and_modalities_narrow_the_search(node: Node, archive: Orthanc) -> None:
    patient = f"NARROW{node.kind}"
    old = put(archive, PatientID=patient, StudyDate="20200101", Modality="MR", PatientName="Anders^A")
    new = put(archive, PatientID=patient, StudyDate="20250101", Modality="CT", PatientName="Anders^A")
    client = client_of(node)

    def uids(**keys: str) -> set[str]:
        return {found.study_instance_uid for found in client.find(Query(patient_id=patient, **keys), at_most=50)}

    assert uids() == {old, new}
    assert uids(study_date="20240101-20251231") == {new}
    assert uids(modality="MR") == {old}
    assert uids(patient_name="Anders*") == {old, new}
    assert uids(patient_name="Nobody*") == set()
    if not node.is_dicomweb:  # Debian's Orthanc doesn't decode %C3%BC in addresses
        umlaut = put(archive, PatientID=patient, PatientName="Müller^Änne")
        assert uids(patient_name="Müller*") == {umlaut}


def test_a_search_without_words_and_an_archive_that_is_away_are_explained(
    north: Site, archive: Orthanc, client_of: Any
) -> None:
    node = make_node(north, archive)
    browser = client_of("radiologist")
    empty = browser.post(reverse("remote_query"), {"node": node.pk})
    assert empty.status_code == 422
    assert "at least one thing" in empty.content.decode()
    node.port = free_port()
    node.save()
    away = browser.post(reverse("remote_query"), {"node": node.pk, "patient_id": "X"})
    assert "can&#x27;t be reached" in away.content.decode()


def test_a_study_that_the_archive_lost_fails_with_a_reason(north: Site, archive: Orthanc, people: Any) -> None:
    from studies.dimse import transfers
    from tests.factories import principal_of

    node = make_node(north, archive)
    transfer = transfers.retrieve_study(
        node=node, study_instance_uid="1.2.3.4.5", principal=principal_of(people["radiologist"])
    )
    queue.work_off(node.pk, RETRIEVE)
    transfer.refresh_from_db()
    assert transfer.status == "failed"
    assert transfer.last_error


def test_other_sites_archives_cannot_be_asked(north: Site, archive: Orthanc, client_of: Any) -> None:
    node = make_node(north, archive)
    browser = client_of("southradiologist")
    assert browser.post(reverse("remote_query"), {"node": node.pk, "patient_id": "X"}).status_code == 422
    browser.post(reverse("remote_retrieve"), {"node": node.pk, "study": "1.2.3"})
    assert not Transfer.objects.exists()


def test_dcmtks_archive_is_asked_and_fetched_from_by_c_get(north: Site, people: Any, tmp_path: Path) -> None:
    file = tmp_path / "one.dcm"
    file.write_bytes(make_instance(PatientID="AT_DCMTK", StudyInstanceUID="1.2.826.0.1.99"))
    with dcmqrscp(tmp_path / "qr", free_port()) as port:
        subprocess.run([tool("storescu"), "-aec", "QRSCP", "127.0.0.1", str(port), str(file)], check=True)
        node = Node.objects.create(
            ae_title="QRSCP", site=north, host="127.0.0.1", port=port, may_be_queried=True, retrieve_by="get"
        )
        (found,) = client_of(node).find(Query(patient_id="AT_DCMTK"), at_most=10)
        queue_retrieval(node=node, study_instance_uid=found.study_instance_uid)
        queue.work_off(node.pk, RETRIEVE)
    assert Transfer.objects.get().status == "done", Transfer.objects.get().last_error
    assert Instance.objects.get().series.study.patient_id_value == "AT_DCMTK"
    log = AssociationLog.objects.latest("pk")
    assert (log.is_outgoing, log.stored, log.outcome) == (True, 1, "released")
    assert log.received_bytes > Instance.objects.get().object_length - 1000
    assert not list(settings.STAGING_ROOT.iterdir()), "nothing is left of what came"


def test_priors_come_when_a_study_has_arrived_and_bring_no_others(
    north: Site,
    archive: Orthanc,
    ingest_files: Any,
    clock: Any,  # noqa: F811
) -> None:
    node = make_node(north, archive)
    rule = PrefetchRule.objects.create(site=north, name="priors", at_most=2)
    rule.nodes.set([node])
    mine = [put(archive, PatientID="PRIOR", StudyDate=f"202{y}0301") for y in range(1, 5)]
    put(archive, PatientID="PRIOR", StudyDate="20240401", Modality="MR")
    put(archive, PatientID="PRIOR", StudyDate="20000101")
    put(archive, PatientID="PRIOR2", StudyDate="20240501")
    ingest_files(north, make_instance(PatientID="PRIOR", StudyDate="20260901"))
    settle(clock)
    assert {t.study_instance_uid for t in Transfer.objects.all()} == set(mine[-2:])
    assert {t.origin for t in Transfer.objects.all()} == {"prefetch"}
    queue.work_off(node.pk, RETRIEVE)
    settle(clock)
    assert Transfer.objects.count() == 2
    assert Study.objects.count() == 3


def test_priors_held_here_are_not_fetched_and_count(
    north: Site,
    archive: Orthanc,
    ingest_files: Any,
    clock: Any,  # noqa: F811
) -> None:
    node = make_node(north, archive)
    far = [put(archive, PatientID="HELD", StudyDate=f"202{y}0301") for y in (3, 4)]
    ingest_files(north, make_instance(PatientID="HELD", StudyDate="20250101", BodyPartExamined="CHEST"))
    settle(clock)
    PrefetchRule.objects.create(site=north, name="priors", at_most=2, same_body_part=True).nodes.set([node])
    ingest_files(north, make_instance(PatientID="HELD", StudyDate="20260101", BodyPartExamined="CHEST"))
    settle(clock)
    assert {t.study_instance_uid for t in Transfer.objects.all()} == {far[1]}, "one is here, so one is fetched"


def test_priors_come_when_an_order_is_placed_before_any_image(
    north: Site, archive: Orthanc, people: dict[str, Any]
) -> None:
    node = make_node(north, archive)
    PrefetchRule.objects.create(site=north, name="priors", at_most=2, on_study=False).nodes.set([node])
    mine = [put(archive, count=2, PatientID="ORDERED", StudyDate=f"202{y}0301") for y in range(2, 5)]
    put(archive, PatientID="ORDERED", StudyDate="20240401", Modality="MR")
    order = place_order(
        site=north,
        patient=PatientIdentity("ORDERED", "Doe^Jane"),
        details=OrderDetails("CT thorax", "CT", datetime(2026, 9, 1, 9, tzinfo=UTC)),
        principal=principal_of(people["admin"]),
    )
    events.deliver_due()
    assert {t.study_instance_uid for t in Transfer.objects.all()} == set(mine[-2:])
    queue.work_off(node.pk, RETRIEVE)
    events.deliver_due()
    fetched = Study.objects.filter(patient=order.patient)
    assert sorted(fetched.values_list("study_instance_uid", "number_of_instances")) == sorted(
        (uid, 2) for uid in mine[-2:]
    )
    assert Transfer.objects.filter(status="done", origin="prefetch").count() == 2
    order.refresh_from_db()
    assert order.study is None, "a prior answers no order"


def test_a_rule_for_studies_alone_fetches_nothing_for_an_order(
    north: Site, archive: Orthanc, people: dict[str, Any]
) -> None:
    PrefetchRule.objects.create(site=north, name="priors", on_order=False).nodes.set([make_node(north, archive)])
    put(archive, PatientID="ORDERED2", StudyDate="20240301")
    place_order(
        site=north,
        patient=PatientIdentity("ORDERED2", "Doe^Jane"),
        details=OrderDetails("CT thorax", "CT", datetime(2026, 9, 1, 9, tzinfo=UTC)),
        principal=principal_of(people["admin"]),
    )
    events.deliver_due()
    assert not Transfer.objects.exists()


def test_an_archive_that_is_away_holds_up_no_arrival(
    north: Site,
    archive: Orthanc,
    ingest_files: Any,
    clock: Any,  # noqa: F811
) -> None:
    node = make_node(north, archive)
    node.port = free_port()
    node.save()
    PrefetchRule.objects.create(site=north, name="priors").nodes.set([node])
    ingest_files(north, make_instance())
    settle(clock)
    assert not Transfer.objects.exists()
    assert not DomainEvent.objects.filter(name="study.settled", delivered_at=None).exists()
