"""Studies move between the hot and the cold tier and are read in either; nothing is ever missing."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import LazySettings
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from accounts.models import Site
from portal.audit.models import AuditEvent
from portal.storage import DurableFileSystemStorage
from studies.archive import deletion, objects, tiers
from studies.archive.errors import MoveRefused, MoveUnderWay, NotAuthorised, ObjectMissing
from studies.archive.models import ObjectRemoval, TierMove
from studies.archive.rejection import Reason
from studies.ingest.rejection import reject_instances
from studies.models import Instance, Series, Study
from tests.archive.tiered import COLD, HOT, assert_all_is_there, cold_tier, lies, move, where
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture(params=["file", "s3"])
def cold(request: pytest.FixtureRequest, settings: LazySettings, tmp_path: Path) -> Iterator[str]:
    with cold_tier(settings, request.param, tmp_path):
        yield request.param


@pytest.fixture
def folders(settings: LazySettings, tmp_path: Path) -> Iterator[None]:
    with cold_tier(settings, "file", tmp_path):
        yield


@pytest.fixture
def study(north: Site, ingest_files: Any) -> Study:
    uid, series = generate_uid(), generate_uid()
    ingest_files(
        north,
        *(make_instance(StudyInstanceUID=uid, SeriesInstanceUID=series, InstanceNumber=n) for n in range(1, 6)),
    )
    return Study.objects.get()


def test_a_study_moves_there_and_back_and_is_read_alike_everywhere(cold: str, study: Study) -> None:
    frames = [objects.read_frame(i, 1) for i in Instance.objects.order_by("pk")]
    for tier in (COLD, HOT, COLD):
        done = move(study, tier)
        assert (done.status, done.error, study.tier) == ("done", "", tier)
        assert (done.objects_done, done.total_objects) == (5, 5)
        assert lies() == {tier}
        assert [objects.read_frame(i, 1) for i in Instance.objects.order_by("pk")] == frames
        assert_all_is_there()
        assert all(objects.is_whole(i, with_digest=True) for i in Instance.objects.all())


def test_one_event_in_the_trail_tells_of_a_move_and_whose_wish_it_was(
    folders: None, study: Study, people: dict[str, Any]
) -> None:
    tiers.to_cold(study, principal=principal_of(people["admin"]))
    tiers.work_off()
    event = AuditEvent.objects.get(details__what="moved to the cold tier")
    assert (event.username, event.study_instance_uid) == ("admin", study.study_instance_uid)
    assert event.details["objects"] == 5
    assert event.details["bytes"] == sum(Instance.objects.values_list("object_length", flat=True))


def test_without_a_cold_tier_nothing_moves(study: Study) -> None:
    with pytest.raises(MoveRefused):
        tiers.to_cold(study)
    with pytest.raises(ObjectMissing):
        objects.digest("nowhere", 0, 1)


def test_only_who_manages_storage_moves_by_hand(folders: None, study: Study, people: dict[str, Any]) -> None:
    for name in ("radiologist", "technologist", "southradiologist"):
        with pytest.raises(NotAuthorised):
            tiers.to_cold(study, principal=principal_of(people[name]))


def test_later_versions_and_rejected_instances_move_along(
    folders: None, study: Study, north: Site, ingest_files: Any, people: dict[str, Any]
) -> None:
    first = Instance.objects.order_by("pk").first()
    assert first is not None
    pixels = np.ones((64, 64), dtype=np.uint16)
    again = make_instance(
        pixels=pixels,
        StudyInstanceUID=study.study_instance_uid,
        SeriesInstanceUID=first.series.series_instance_uid,
        SOPInstanceUID=first.sop_instance_uid,
    )
    assert ingest_files(north, again)[0].status == "conflict"
    doomed = Instance.objects.filter(pk=Instance.objects.filter(is_current=True).latest("pk").pk)
    reject_instances(
        study=study, instances=doomed, reason=Reason.QUALITY, principal=principal_of(people["radiologist"])
    )
    assert Instance.objects.filter(is_current=False).count() == 2
    move(study, COLD)
    assert lies(study) == {"cold"}
    assert_all_is_there()


def test_what_arrives_during_a_move_moves_too(
    folders: None, study: Study, north: Site, ingest_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = make_instance(StudyInstanceUID=study.study_instance_uid, SeriesInstanceUID=generate_uid())
    commit = tiers._commit
    came: list[Any] = []

    def with_arrival(*arguments: Any) -> bool:
        if not came:
            came.extend(ingest_files(north, late))
        return commit(*arguments)

    monkeypatch.setattr(tiers, "_commit", with_arrival)
    assert move(study, COLD).objects_done == 6
    assert lies() == {"cold"}


def test_what_arrives_after_a_move_is_read_and_brings_the_study_back(
    folders: None, study: Study, north: Site, ingest_files: Any
) -> None:
    from studies import arrival, events

    Study.objects.update(unsettled_since=None)
    move(study, COLD)
    late = make_instance(StudyInstanceUID=study.study_instance_uid, SeriesInstanceUID=generate_uid())
    ingest_files(north, late)
    assert lies() == {"hot", "cold"}
    assert_all_is_there()
    Study.objects.update(updated_at=timezone.now() - timedelta(minutes=1))
    arrival.settle_studies()
    events.deliver_due()
    assert TierMove.objects.get(status="queued").origin == "arrival"
    tiers.work_off()
    assert lies() == {"hot"}
    assert Study.objects.get().tier == HOT


def test_what_is_sent_again_to_a_cold_study_is_a_duplicate_and_not_stored_twice(
    folders: None, study: Study, north: Site, ingest_files: Any
) -> None:
    contents = [objects.read_instance(i) for i in Instance.objects.all()]
    move(study, COLD)
    assert {o.status for o in ingest_files(north, *contents)} == {"duplicate"}
    assert lies() == {"cold"}


def test_a_read_finds_an_object_that_moves_under_it(folders: None, study: Study) -> None:
    instances = list(Instance.objects.all())
    problems: list[str] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            for one in instances:
                try:
                    if hashlib.sha256(objects.read_instance(one)).digest() != bytes(one.sha256):
                        problems.append("other bytes")
                except Exception as error:
                    problems.append(repr(error))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(6):
            move(study, COLD)
            move(study, HOT)
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert problems == []


def test_an_object_that_another_hot_study_names_stays_there_for_it(
    folders: None, study: Study, south: Site, ingest_files: Any
) -> None:
    first = Instance.objects.order_by("pk").first()
    assert first is not None
    ingest_files(south, make_instance(SOPInstanceUID=first.sop_instance_uid))
    theirs = Instance.objects.get(series__study__site=south)
    Instance.objects.filter(pk=theirs.pk).update(
        object_key=first.object_key, object_length=first.object_length, sha256=first.sha256
    )
    move(study, COLD)
    assert where(first) == {"hot", "cold"}
    assert lies(study) == {"both", "cold"}
    other = Study.objects.get(site=south)
    move(other, COLD)
    assert lies(study) == {"cold"}
    move(study, HOT)
    assert where(first) == {"hot", "cold"}
    move(other, HOT)
    assert lies(other) == lies(study) == {"hot"}
    assert_all_is_there()


def test_deleting_removes_from_both_tiers(folders: None, study: Study, tmp_path: Path, people: dict[str, Any]) -> None:
    move(study, COLD)
    (extra,) = Instance.objects.order_by("pk")[:1]
    staged = tmp_path / "copy"
    staged.write_bytes(objects.read_instance(extra))
    objects.place(extra.object_key, staged)
    deletion.delete_instances(study=study, instances=Instance.objects.all(), principal=principal_of(people["admin"]))
    deletion.remove_objects(now=timezone.now() + deletion.GRACE)
    assert not [p for folder in ("objects", "cold") for p in (tmp_path / folder).rglob("*.dcm")]


def test_what_is_deleted_is_removed_once_the_cold_folder_is_mounted_again(
    folders: None, study: Study, tmp_path: Path, people: dict[str, Any]
) -> None:
    move(study, COLD)
    (tmp_path / "cold").rename(tmp_path / "away")
    deletion.delete_instances(study=study, instances=Instance.objects.all(), principal=principal_of(people["admin"]))
    with pytest.raises(objects.TierUnavailable):
        deletion.remove_objects(now=timezone.now() + deletion.GRACE)
    (tmp_path / "away").rename(tmp_path / "cold")
    assert deletion.remove_objects(now=timezone.now() + deletion.GRACE) == 5
    assert not list((tmp_path / "cold").rglob("*.dcm"))


def test_a_study_deleted_during_its_move_leaves_nothing_behind(
    folders: None, study: Study, tmp_path: Path, people: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = tiers._commit

    def deleted_meanwhile(*arguments: Any) -> bool:
        every = Instance.objects.all()
        deletion.delete_instances(study=study, instances=every, principal=principal_of(people["admin"]))
        # The removal came before the last copy was made.
        ObjectRemoval.objects.all().delete()
        return commit(*arguments)

    monkeypatch.setattr(tiers, "_commit", deleted_meanwhile)
    tiers.to_cold(study)
    tiers.work_off()
    assert not TierMove.objects.exists()
    deletion.remove_objects(now=timezone.now() + deletion.GRACE)
    assert not [p for folder in ("objects", "cold") for p in (tmp_path / folder).rglob("*.dcm")]


def test_a_full_tier_fails_the_move_and_nothing_else_and_it_is_tried_again(
    folders: None, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    real, placed = DurableFileSystemStorage.place_all, []

    def full(self: DurableFileSystemStorage, staged: Any) -> None:
        placed.extend(staged)
        real(self, staged[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as context:
        context.setattr(DurableFileSystemStorage, "place_all", full)
        failed = move(study, COLD)
    assert placed
    assert (failed.status, failed.attempts) == ("queued", 1)
    assert "no room" in failed.error
    assert failed.due_at > timezone.now()
    assert study.tier == HOT
    assert lies() == {"hot", "both"}
    assert not list(Path(settings.STAGING_ROOT).iterdir())
    TierMove.objects.update(due_at=timezone.now())
    tiers.work_off()
    failed.refresh_from_db()
    assert (failed.status, failed.error) == ("done", "")
    assert lies() == {"cold"}


def test_a_bucket_that_is_gone_fails_the_move_with_a_reason(
    settings: LazySettings, tmp_path: Path, study: Study
) -> None:
    with cold_tier(settings, "s3", tmp_path):
        options = settings.STORAGES["cold"]["OPTIONS"]
        options["bucket_name"] = "gone"
        settings.STORAGES = {**settings.STORAGES}
        failed = move(study, COLD)
        assert (failed.status, study.tier, failed.error != "") == ("queued", HOT, True)
        assert {objects.reaches(i.object_key, i.object_length, HOT) for i in Instance.objects.all()} == {True}


def test_a_folder_that_is_not_mounted_is_not_made(folders: None, study: Study, tmp_path: Path) -> None:
    (tmp_path / "cold").rmdir()
    failed = move(study, COLD)
    assert "can't be reached" in failed.error
    assert not (tmp_path / "cold").exists()
    assert lies() == {"hot"}


def test_what_is_brought_back_leaves_room_for_what_arrives(
    folders: None, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(study, COLD)
    with monkeypatch.context() as context:
        context.setattr(objects, "LEAST_FREE", 1.0)
        failed = move(study, HOT)
    assert (failed.status, study.tier) == ("queued", COLD)
    assert "no room" in failed.error
    assert lies() == {"cold"}
    assert_all_is_there()


def test_a_move_that_its_workers_die_of_is_given_up(folders: None, study: Study) -> None:
    asked = tiers.to_cold(study)
    assert asked is not None
    dead = {"status": "running", "lease": "elsewhere:1:x", "leased_until": timezone.now() - timedelta(seconds=1)}
    TierMove.objects.update(attempts=tiers.MOST_ATTEMPTS, **dead)
    assert not tiers.work_off()
    asked.refresh_from_db()
    assert (asked.status, lies()) == ("failed", {"hot"})


def test_a_rotten_object_is_not_moved_and_the_failure_is_final(folders: None, study: Study, tmp_path: Path) -> None:
    rotten = sorted((tmp_path / "objects").rglob("*.dcm"))[0]
    content = bytearray(rotten.read_bytes())
    content[-1] ^= 1
    rotten.write_bytes(content)
    failed = move(study, COLD)
    assert (failed.status, study.tier) == ("failed", HOT)
    assert "Nothing was moved" in failed.error
    assert rotten.exists()


def test_a_copy_that_was_written_wrong_is_found_before_the_source_is_removed(
    folders: None, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DurableFileSystemStorage.place_all

    def wrong(self: DurableFileSystemStorage, staged: Any) -> None:
        _key, path = staged[0]
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        real(self, staged)

    monkeypatch.setattr(DurableFileSystemStorage, "place_all", wrong)
    assert move(study, COLD).status == "failed"
    assert study.tier == HOT
    assert {objects.reaches(i.object_key, i.object_length, HOT) for i in Instance.objects.all()} == {True}
    assert_all_is_there()


def test_one_move_of_a_study_at_a_time_and_the_other_way_only_when_it_has_ended(folders: None, study: Study) -> None:
    asked = tiers.to_cold(study)
    assert tiers.to_cold(study) == asked
    # It hadn't begun: that it's wanted now takes it back.
    assert tiers.to_hot(study) is None
    assert not TierMove.objects.exists()
    assert not tiers.work_off()
    assert lies() == {"hot"}
    tiers.to_cold(study)
    TierMove.objects.update(status="running", lease="elsewhere:1:x", leased_until=timezone.now() + tiers.LEASE)
    with pytest.raises(MoveUnderWay):
        tiers.to_hot(study)
    assert not tiers.work_off()
    TierMove.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    tiers.work_off()
    assert lies() == {"cold"}


def test_who_lost_the_lease_commits_and_removes_nothing(
    folders: None, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing = tiers._remove_sources

    def overtaken(*arguments: Any) -> None:
        TierMove.objects.update(lease="elsewhere:1:y")
        removing(*arguments)

    with monkeypatch.context() as context:
        context.setattr(tiers, "_remove_sources", overtaken)
        assert move(study, COLD).status == "running"
    assert lies() == {"both"}
    TierMove.objects.update(leased_until=timezone.now())
    tiers.work_off()
    assert lies() == {"cold"}


def test_a_large_object_moves_in_little_memory(folders: None, north: Site, ingest_files: Any, tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "large.dcm"
    path.write_bytes(make_instance(pixels=np.zeros((60, 1024, 1024), dtype=np.uint16)))
    ingest_files(north, path)
    study = Study.objects.get()
    tracemalloc.start()
    try:
        assert move(study, COLD).status == "done"
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert_all_is_there()


STEPS = st.lists(st.sampled_from(["cold", "hot", "arrive", "again", "delete", "read", "fail", "clean"]), max_size=12)


@given(steps=STEPS)
@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_happens_in_whatever_order_no_byte_is_lost(
    steps: list[str], folders: None, north: Site, ingest_files: Any, people: dict[str, Any]
) -> None:
    uid, series = generate_uid(), generate_uid()
    sent: dict[str, bytes] = {}

    def arrive() -> None:
        name = generate_uid()
        sent[name] = make_instance(StudyInstanceUID=uid, SOPInstanceUID=name, SeriesInstanceUID=series)
        assert ingest_files(north, sent[name])[0].status == "stored"

    arrive()
    for step in steps:
        study = Study.objects.get(study_instance_uid=uid) if sent else None
        if step == "arrive":
            arrive()
        elif study is None:
            continue
        elif step in {"cold", "hot"} and study.tier != step:
            move(study, Study.Tier(step))
        elif step == "again":
            assert ingest_files(north, *sent.values())[0].status == "duplicate"
        elif step == "delete":
            name = next(iter(sent))
            doomed = Instance.objects.filter(sop_instance_uid=name)
            deletion.delete_instances(study=study, instances=doomed, principal=principal_of(people["admin"]))
            del sent[name]
        elif step == "clean":
            deletion.remove_objects(now=timezone.now() + deletion.GRACE)
        elif step == "fail":
            _interrupted(study)
        for name, content in sent.items():
            assert objects.read_instance(Instance.objects.get(sop_instance_uid=name)) == content
    Series.objects.filter(study__study_instance_uid=uid).delete()
    Study.objects.filter(study_instance_uid=uid).delete()


def _interrupted(study: Study) -> None:
    """Begin a move to the other tier and have it end as a killed process' does: in the middle of removing."""
    removed = []

    def dies(tier: Study.Tier, key: str) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(key)
        real(tier, key)

    real = objects.remove_from
    objects.remove_from = dies
    try:
        move(study, COLD if study.tier == HOT else HOT)
    except KeyboardInterrupt:
        TierMove.objects.filter(status="running").update(leased_until=timezone.now())
    finally:
        objects.remove_from = real
    tiers.work_off()
