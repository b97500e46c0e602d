"""Deleting: what goes, what stays, who may, and what a crash leaves."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.test import Client
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.management.commands import serve
from studies.archive import deletion
from studies.archive.models import ObjectRemoval
from studies.archive.tasks import remove_objects
from studies.models import Instance, Study
from studies.reports.models import Report
from tests.factories import PEOPLE, make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY, ONE, TWO = "1.2.826.1", "1.2.826.1.1", "1.2.826.1.2"
ADDRESS = f"/dicom-web/studies/{STUDY}"


def ct(number: int, series: str = ONE, **keywords: Any) -> bytes:
    return make_instance(
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=series,
        SOPInstanceUID=f"{series}.{number}",
        InstanceNumber=number,
        **keywords,
    )


@pytest.fixture
def study(north: Any, ingest_files: Any) -> Study:
    ingest_files(north, ct(1), ct(2), ct(1, TWO, Modality="MR"))
    return Study.objects.get()


@pytest.fixture
def admin(client_of: Any) -> Client:
    browser: Client = client_of("admin")
    return browser


def later() -> Any:
    return timezone.now() + deletion.GRACE + timedelta(seconds=1)


def stored(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "objects").rglob("*.dcm"))


@pytest.mark.parametrize(
    ("below", "left", "objects"),
    [
        ("", [], 0),
        (f"/series/{ONE}", [f"{TWO}.1"], 1),
        (f"/series/{ONE}/instances/{ONE}.1", [f"{ONE}.2", f"{TWO}.1"], 2),
    ],
)
def test_what_is_named_goes_with_its_objects_and_nothing_else(
    below: str, left: list[str], objects: int, study: Study, admin: Client, tmp_path: Path
) -> None:
    assert admin.delete(ADDRESS + below).status_code == 204
    assert admin.get(ADDRESS + below).status_code == 404
    assert list(Instance.objects.order_by("sop_instance_uid").values_list("sop_instance_uid", flat=True)) == left
    assert len(stored(tmp_path)) == 3
    assert deletion.remove_objects() == 0
    assert deletion.remove_objects(now=later()) == 3 - objects
    assert len(stored(tmp_path)) == objects
    assert not ObjectRemoval.objects.exists()
    if left:
        kept = Study.objects.get()
        assert kept.number_of_instances == len(left)
        assert kept.number_of_series == len({uid.rpartition(".")[0] for uid in left})
    else:
        assert not Study.objects.exists()


def test_every_version_goes(study: Study, north: Any, ingest_files: Any, admin: Client, tmp_path: Path) -> None:
    ingest_files(north, ct(1, StudyDescription="changed"))
    admin.delete(f"{ADDRESS}/series/{ONE}/instances/{ONE}.1")
    assert deletion.remove_objects(now=later()) == 2
    assert len(stored(tmp_path)) == 2


def test_what_comes_again_meanwhile_keeps_its_object(
    study: Study, north: Any, ingest_files: Any, admin: Client, tmp_path: Path
) -> None:
    admin.delete(ADDRESS)
    ingest_files(north, ct(1))
    assert deletion.remove_objects(now=later()) == 2
    assert len(stored(tmp_path)) == 1
    assert admin.get(f"{ADDRESS}/series/{ONE}/instances/{ONE}.1/frames/1").status_code == 200


def test_an_object_that_an_instance_names_is_never_removed(study: Study) -> None:
    one = Instance.objects.all()[0]
    ObjectRemoval.objects.create(
        object_key=one.object_key, sop_instance_uid=one.sop_instance_uid, due_at=timezone.now()
    )
    assert deletion.remove_objects() == 0
    assert not ObjectRemoval.objects.exists()


def test_storage_that_fails_is_tried_again(study: Study, admin: Client, monkeypatch: Any, tmp_path: Path) -> None:
    admin.delete(ADDRESS)

    def fail(key: str) -> None:
        raise OSError("storage is away")

    with monkeypatch.context() as broken:
        broken.setattr("studies.archive.objects.remove", fail)
        with pytest.raises(OSError, match="away"):
            deletion.remove_objects(now=later())
    assert ObjectRemoval.objects.count() == 3
    assert deletion.remove_objects(now=later()) == 3
    assert stored(tmp_path) == []


@pytest.mark.parametrize("status", ["preliminary", "final", "addended"])
def test_what_a_signed_report_rests_on_stays(status: str, study: Study, admin: Client) -> None:
    Study.objects.update(status=status)
    for below in ("", f"/series/{ONE}", f"/series/{ONE}/instances/{ONE}.1"):
        answer = admin.delete(ADDRESS + below)
        assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
        assert "report" in answer.json()["title"]
    assert Instance.objects.count() == 3


def test_a_study_with_a_draft_stays_whole(study: Study, admin: Client) -> None:
    Report.objects.create(study=study)
    assert admin.delete(ADDRESS).status_code == 409
    assert Instance.objects.count() == 3
    assert not ObjectRemoval.objects.exists()


def test_it_is_in_the_trail_with_counts(study: Study, admin: Client) -> None:
    admin.delete(ADDRESS)
    event = AuditEvent.objects.filter(study_instance_uid=STUDY, action="change").latest("sequence")
    assert (event.username, event.patient_id) == ("admin", "P1")
    assert event.details == {"what": "study deleted", "instances": 3, "series": 2}


def test_what_is_not_there(study: Study, admin: Client) -> None:
    for below in ("9", f"/series/{ONE}9", f"/series/{ONE}/instances/{TWO}.1"):
        assert admin.delete(ADDRESS + below).status_code == 404
    assert Instance.objects.count() == 3


@pytest.mark.parametrize("person", sorted({*PEOPLE, "stranger"} - {"admin"}))
def test_nobody_else_deletes(person: str, study: Study, client_of: Any) -> None:
    browser = Client() if person == "stranger" else client_of(person)
    for below in ("", f"/series/{ONE}", f"/series/{ONE}/instances/{ONE}.1"):
        assert browser.delete(ADDRESS + below).status_code in {401, 403, 404}
    assert Instance.objects.count() == 3


def test_only_the_worker_removes_objects_so_that_a_backup_can_do_without_it() -> None:
    queue = current_app.amqp.router.route({}, remove_objects.name)["queue"].name
    network = serve._network()
    assert queue not in network[network.index("--queues") + 1].split(",")
    assert queue == current_app.conf.task_default_queue
