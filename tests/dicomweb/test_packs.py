"""Instances that come together lie in one object: it's an open format, and nothing else is different."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.storage import storages
from django.test import Client
from django.utils import timezone

from portal.environment import object_storage
from portal.storage import DurableFileSystemStorage
from studies.archive import deletion, objects, tiers
from studies.archive.models import ObjectRemoval
from studies.archive.packs import is_pack
from studies.ingest import index
from studies.ingest.incoming import Pack, stage, take_out
from studies.ingest.models import QuarantinedFile
from studies.models import Instance, Study
from tests.archive.tiered import COLD, HOT, assert_all_is_there, cold_tier, lies, move
from tests.factories import make_instance
from tests.services.s3 import s3_bucket

pytestmark = [pytest.mark.django_db, pytest.mark.database]
DICOM = 'multipart/related; type="application/dicom"; boundary=frontier'
STUDY, SERIES = "1.2.826.5", "1.2.826.5.1"


def ct(number: int, study: str = STUDY, **keywords: Any) -> bytes:
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": f"{study}.1.{number}"}
    return make_instance(InstanceNumber=number, **(uids | keywords))


def message(*files: bytes) -> bytes:
    parts = [b"--frontier\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files]
    return b"".join(parts) + b"--frontier--\r\n"


@pytest.fixture(params=["file", "s3"])
def hot(request: pytest.FixtureRequest, settings: LazySettings) -> Iterator[str]:
    """Let objects lie in a folder, or in a bucket of a server over real HTTP."""
    if request.param == "file":
        yield "file"
        return
    with s3_bucket() as url:
        settings.STORAGES = {**settings.STORAGES, "objects": object_storage(url)}
        yield "s3"


@pytest.fixture
def send(token_of: Any) -> Any:
    header = {"HTTP_AUTHORIZATION": f"Bearer {token_of('technologist')}"}

    def post(*files: bytes) -> Any:
        return Client().post("/dicom-web/studies", message(*files), content_type=DICOM, **header)

    return post


def keys() -> list[str]:
    return list(Instance.objects.order_by("instance_number", "pk").values_list("object_key", flat=True))


def staged(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "staging").glob("*"))


def delete(client_of: Any, number: int) -> None:
    path = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{number}"
    assert client_of("admin").delete(path).status_code == 204


def later() -> Any:
    return timezone.now() + deletion.GRACE + timedelta(seconds=1)


def test_the_first_lies_alone_and_those_that_follow_in_one_tar(
    hot: str, send: Any, client_of: Any, tmp_path: Path
) -> None:
    # Odd lengths, so that members don't happen to end where the next may begin.
    files = [ct(n, ImageComments="x" * 33 * n) for n in range(1, 5)]
    assert send(*files).status_code == 200
    first, *others = keys()
    assert not is_pack(first)
    assert len(set(others)) == 1
    assert is_pack(others[0])
    assert staged(tmp_path) == []
    with storages["objects"].open_object(others[0]) as opened, tarfile.open(fileobj=opened, mode="r|") as tar:
        members = {m.name: (tar.extractfile(m) or opened).read() for m in tar}
    assert members == {f"{SERIES}.{n}.dcm": files[n - 1] for n in (2, 3, 4)}
    assert_all_is_there()
    radiologist = client_of("radiologist")
    for number, file in enumerate(files, 1):
        address = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{number}"
        whole = radiologist.get(address, HTTP_ACCEPT="application/dicom; transfer-syntax=*")
        assert b"".join(whole) == file
        frame = radiologist.get(f"{address}/frames/1", HTTP_ACCEPT="application/octet-stream; transfer-syntax=*")
        assert frame.content in file
        assert len(frame.content) > 100


def test_a_pack_is_whole_and_durable_before_it_is_indexed(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, fdatasync = index.commit, os.fdatasync
    content_synced: dict[int, bytes] = {}
    is_committed = []

    def syncing(descriptor: int) -> None:
        status = os.fstat(descriptor)
        content = os.pread(descriptor, status.st_size, 0)
        fdatasync(descriptor)
        content_synced[status.st_ino] = content

    def committing(files: Any, source: Any) -> Any:
        for path in {Path(storages["objects"].path(f.object_key)) for f in files}:
            assert content_synced[path.stat().st_ino] == path.read_bytes()
            assert path.suffix == ".dcm" or tarfile.is_tarfile(path)
        is_committed.append(True)
        return commit(files, source)

    monkeypatch.setattr(os, "fdatasync", syncing)
    monkeypatch.setattr(index, "commit", committing)
    assert send(*(ct(n) for n in range(1, 9))).status_code == 200
    assert is_committed


def test_the_same_request_again_changes_nothing(send: Any, tmp_path: Path) -> None:
    files = [ct(n) for n in range(1, 4)]
    send(*files)
    before = keys()
    assert send(*files).status_code == 200
    assert keys() == before
    assert len([p for p in (tmp_path / "objects").rglob("*") if p.is_file()]) == 2
    assert staged(tmp_path) == []


def test_what_is_new_among_what_is_known_lies_alone(send: Any) -> None:
    send(ct(1), ct(2))
    assert send(ct(1), ct(2), ct(3), ct(4, PatientName="A^B")).status_code == 200
    assert [is_pack(key) for key in keys()] == [False, True, False, False]
    assert_all_is_there()


def test_other_bytes_under_a_known_uid_are_kept_as_a_second_version(send: Any) -> None:
    send(ct(1), ct(2), ct(3))
    assert send(ct(1), ct(2, StudyDescription="other")).status_code == 202
    assert Instance.objects.filter(sop_instance_uid=f"{SERIES}.2").count() == 2
    assert_all_is_there()


def test_the_same_instance_twice_in_a_request_is_one(send: Any) -> None:
    assert send(ct(1), ct(2), ct(2), ct(3)).status_code == 200
    assert Instance.objects.count() == 3
    assert_all_is_there()


def test_what_is_sent_twice_leaves_nothing_in_a_pack_that_its_deletion_would_not_find(send: Any) -> None:
    assert send(ct(1), ct(1), ct(2)).status_code == 200
    assert Instance.objects.count() == 2
    assert not any(map(is_pack, keys()))


def test_several_studies_share_no_pack(send: Any) -> None:
    assert send(ct(1), ct(2), ct(3, "1.2.826.6")).status_code == 200
    assert not any(map(is_pack, keys()))
    assert_all_is_there()


def test_a_broken_file_among_good_ones_goes_to_quarantine_alone(send: Any, tmp_path: Path) -> None:
    broken = ct(3)[:-500]
    assert send(ct(1), ct(2), broken, ct(4)).status_code == 202
    assert Instance.objects.count() == 3
    assert not any(map(is_pack, keys()))
    assert_all_is_there()
    with objects.open_quarantined(QuarantinedFile.objects.get().object_key) as file:
        assert file.read() == broken
    assert staged(tmp_path) == []


def test_a_broken_file_that_cant_be_quarantined_fails_alone_and_its_sender_keeps_it(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(objects, "quarantine", full)
    answer = send(ct(1), ct(2), ct(3)[:-500], ct(4))
    assert answer.status_code == 202
    (failure,) = answer.json()["00081198"]["Value"]
    assert failure["00081197"]["Value"] == [0xA700]
    assert Instance.objects.count() == 3
    assert not QuarantinedFile.objects.exists()
    assert_all_is_there()


def test_what_the_staging_folder_gives_back_changed_is_not_taken_for_what_came(tmp_path: Path) -> None:
    with closing(Pack()) as pack:
        file = stage([ct(1)], pack=pack)
        os.pwrite(pack.descriptor, b"?", file.offset + 1000)
        with pytest.raises(OSError, match="other bytes"):
            take_out(file)
        assert staged(tmp_path) == [pack.path]


@pytest.mark.parametrize("cut", [10, 300, 700])
def test_a_body_cut_short_loses_no_whole_part(send: Any, token_of: Any, cut: int, tmp_path: Path) -> None:
    body = message(ct(1), ct(2), ct(3), ct(4))[:-cut]
    header = {"HTTP_AUTHORIZATION": f"Bearer {token_of('technologist')}"}
    answer = Client().post("/dicom-web/studies", body, content_type=DICOM, **header)
    assert answer.status_code == 202
    assert Instance.objects.count() >= 3
    assert_all_is_there()
    assert staged(tmp_path) == []


def test_a_disk_that_is_full_for_one_keeps_those_before(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def full(descriptor: int, data: Any, offset: int) -> int:
        if offset > len(ct(2)):
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr("studies.ingest.incoming.os.pwrite", full)
    assert send(ct(1), ct(2), ct(3)).status_code == 202
    assert Instance.objects.count() == 2
    assert_all_is_there()


def test_where_no_pack_can_be_begun_the_sender_is_told_and_what_came_is_kept(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("studies.dicomweb.store_body.Pack", full)
    assert send(ct(1), ct(2), ct(3)).status_code == 202
    assert Instance.objects.count() == 1
    assert_all_is_there()


def test_what_is_deleted_of_a_pack_is_gone_and_the_others_stay(
    hot: str, send: Any, client_of: Any, tmp_path: Path
) -> None:
    secret = "Erased^Patient"
    send(ct(1), ct(2), ct(3, PatientName=secret), ct(4))
    (pack,) = {key for key in keys() if is_pack(key)}
    delete(client_of, 3)
    assert deletion.remove_objects() == 0
    assert deletion.remove_objects(now=later()) == 0
    # Who found an instance in the pack a moment ago still reads it there.
    assert objects.reaches(pack, 1)
    assert not any(map(is_pack, keys()))
    assert_all_is_there()
    assert deletion.remove_objects(now=later() + deletion.GRACE) >= 1
    assert not objects.reaches(pack, 1)
    assert_all_is_there()
    assert not ObjectRemoval.objects.exists()
    if hot == "file":
        left = [p for p in (tmp_path / "objects").rglob("*") if p.is_file()]
        assert len(left) == 3
        assert not any(secret.encode() in p.read_bytes() for p in left)


def test_a_pack_goes_with_the_last_that_lies_in_it(send: Any, client_of: Any, tmp_path: Path) -> None:
    send(ct(1), ct(2), ct(3))
    for number in (1, 2, 3):
        delete(client_of, number)
    assert not Study.objects.exists()
    assert deletion.remove_objects(now=later()) == 2
    assert not [p for p in (tmp_path / "objects").rglob("*") if p.is_file()]


def test_what_comes_again_while_its_pack_waits_to_be_removed_is_kept(send: Any, client_of: Any) -> None:
    files = [ct(1), ct(2), ct(3)]
    send(*files)
    for number in (1, 2, 3):
        delete(client_of, number)
    assert send(*files).status_code == 200
    deletion.remove_objects(now=later())
    deletion.remove_objects(now=later() + deletion.GRACE)
    assert Instance.objects.count() == 3
    assert_all_is_there()


def test_a_pack_that_cant_be_read_keeps_no_other_removal_waiting(send: Any, client_of: Any, tmp_path: Path) -> None:
    send(ct(1), ct(2), ct(3))
    send(ct(7))
    (pack,) = {key for key in keys() if is_pack(key)}
    Path(storages["objects"].path(pack)).write_bytes(b"broken")
    delete(client_of, 3)
    delete(client_of, 7)
    assert deletion.remove_objects(now=later()) == 1
    # The index says where its bytes should be; it's tried again.
    assert Instance.objects.get(sop_instance_uid=f"{SERIES}.2").object_key == pack
    assert ObjectRemoval.objects.filter(object_key=pack).exists()


def test_what_a_lost_pack_held_is_whole_again_when_it_is_sent_again(send: Any) -> None:
    files = [ct(1), ct(2), ct(3)]
    send(*files)
    (pack,) = {key for key in keys() if is_pack(key)}
    Path(storages["objects"].path(pack)).unlink()
    assert send(files[2]).status_code == 200
    assert send(*files).status_code == 200
    assert Instance.objects.count() == 3
    assert_all_is_there()


@pytest.mark.parametrize("numbers", [[2, 2], [1, 2, 2], [2, 2, 3]])
def test_what_a_lost_pack_held_is_whole_again_when_it_is_sent_twice_at_once(send: Any, numbers: list[int]) -> None:
    send(ct(1), ct(2), ct(3))
    (pack,) = {key for key in keys() if is_pack(key)}
    Path(storages["objects"].path(pack)).unlink()
    assert send(*map(ct, numbers)).status_code == 200
    assert objects.is_whole(Instance.objects.get(sop_instance_uid=f"{SERIES}.2"), with_digest=True)


def test_a_lost_pack_that_comes_back_when_nobody_needs_it_is_removed(send: Any) -> None:
    files = [ct(1), ct(2), ct(3)]
    send(*files)
    (pack,) = {key for key in keys() if is_pack(key)}
    path = Path(storages["objects"].path(pack))
    content = path.read_bytes()
    path.unlink()
    assert send(*files[1:]).status_code == 200
    path.write_bytes(content)
    deletion.remove_objects(now=later())
    assert not path.exists()
    assert_all_is_there()


@pytest.mark.parametrize("others", [[2, 3], [3], [1]])
def test_another_sender_that_was_faster_leaves_nothing_behind(
    send: Any, north: Any, ingest_files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, others: list[int]
) -> None:
    place = objects.place_all
    is_first = [True]

    def after_the_other(*args: Any, **more: Any) -> None:
        place(*args, **more)
        if is_first:
            is_first.clear()
            ingest_files(north, *map(ct, others))

    monkeypatch.setattr(objects, "place_all", after_the_other)
    assert send(ct(1), ct(2), ct(3)).status_code == 200
    assert Instance.objects.count() == 3
    # Others are moved out of the pack first.
    deletion.remove_objects(now=later())
    deletion.remove_objects(now=later() + deletion.GRACE)
    assert not ObjectRemoval.objects.exists()
    assert_all_is_there()
    lying = sum(p.stat().st_size for p in (tmp_path / "objects").rglob("*") if p.is_file())
    members = Instance.objects.filter(object_key__endswith=".tar").count()
    assert lying - sum(Instance.objects.values_list("object_length", flat=True)) <= 1536 * (members + 1)


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_packs_move_between_the_tiers(
    kind: str, send: Any, client_of: Any, settings: LazySettings, tmp_path: Path
) -> None:
    with cold_tier(settings, kind, tmp_path):
        send(ct(1), ct(2), ct(3), ct(4))
        study = Study.objects.get()
        move(study, COLD)
        assert lies() == {"cold"}
        assert_all_is_there()
        (pack,) = {key for key in keys() if is_pack(key)}
        with (
            storages["cold"].open_object(pack) as opened,
            tarfile.open(fileobj=opened, mode="r|") as tar,
        ):
            assert len(tar.getnames()) == 3
        # Taken apart where it lies.
        delete(client_of, 2)
        deletion.remove_objects(now=later())
        deletion.remove_objects(now=later() + deletion.GRACE)
        assert lies() == {"cold"}
        assert not objects.reaches(pack, 1)
        move(study, HOT)
        assert lies() == {"hot"}
        assert_all_is_there()


def content(tier: str, pack: str) -> bytes:
    with storages[tier].open_object(pack) as opened:
        return opened.read()


@pytest.mark.parametrize("kind", ["file", "s3"])
@pytest.mark.parametrize("step", ["_commit", "_remove_sources"])
def test_a_pack_moves_whole_while_the_last_in_it_is_still_to_be_indexed(
    step: str, kind: str, send: Any, settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cold_tier(settings, kind, tmp_path):
        send(ct(1), ct(2), ct(3), ct(4))
        late = Instance.objects.get(sop_instance_uid=f"{SERIES}.4")
        before = content("objects", late.object_key)
        Instance.objects.filter(pk=late.pk).delete()
        goes_on = getattr(tiers, step)

        def indexed_meanwhile(*arguments: Any) -> Any:
            Instance.objects.bulk_create([late])
            return goes_on(*arguments)

        monkeypatch.setattr(tiers, step, indexed_meanwhile)
        assert move(Study.objects.get(), COLD).status == "done"
        assert lies() == {"cold"}
        assert content("cold", late.object_key) == before
        assert_all_is_there()


def test_a_pack_whose_copy_is_wrong_where_nothing_is_indexed_stays(
    send: Any, settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DurableFileSystemStorage.place_all

    def wrong(self: DurableFileSystemStorage, staged: Any) -> None:
        for key, path in staged:
            if is_pack(key):
                path.write_bytes(path.read_bytes()[:-1] + b"?")
        real(self, staged)

    with cold_tier(settings, "file", tmp_path):
        send(ct(1), ct(2), ct(3))
        monkeypatch.setattr(DurableFileSystemStorage, "place_all", wrong)
        assert move(Study.objects.get(), COLD).status == "failed"
        assert Study.objects.get().tier == HOT


def test_a_pack_of_a_cold_study_is_not_taken_apart_while_the_cold_folder_is_not_mounted(
    send: Any, client_of: Any, settings: LazySettings, tmp_path: Path
) -> None:
    with cold_tier(settings, "file", tmp_path):
        send(ct(1))
        move(Study.objects.get(), COLD)
        send(ct(2), ct(3), ct(4))
        pack = keys()[-1]
        (tmp_path / "cold").rename(tmp_path / "away")
        delete(client_of, 3)
        deletion.remove_objects(now=later())
        assert not (tmp_path / "cold").exists()
        assert keys()[-1] == pack
        (tmp_path / "away").rename(tmp_path / "cold")
        deletion.remove_objects(now=later() + deletion.GRACE)
        deletion.remove_objects(now=later() + 2 * deletion.GRACE)
        assert not objects.reaches(pack, 1)
        assert_all_is_there()


def test_what_was_written_wrong_when_it_left_its_pack_is_still_read_there(
    send: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(ct(1), ct(2), ct(3))
    delete(client_of, 3)
    real = DurableFileSystemStorage.place_all

    def wrong(self: DurableFileSystemStorage, staged: Any) -> None:
        for _key, path in staged:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        real(self, staged)

    monkeypatch.setattr(DurableFileSystemStorage, "place_all", wrong)
    deletion.remove_objects(now=later())
    deletion.remove_objects(now=later() + deletion.GRACE)
    assert_all_is_there()


def all_are_due() -> None:
    ObjectRemoval.objects.update(due_at=timezone.now())


def test_two_runs_take_no_pack_apart_twice_and_remove_none_at_once(
    send: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(ct(1), ct(2), ct(3))
    send(ct(4), ct(5), ct(6))
    _, one, _, _, other, _ = keys()
    delete(client_of, 3)
    delete(client_of, 6)
    all_are_due()
    copy, copied = deletion._copy, []

    def another_run_meanwhile(row: Instance, key: str) -> None:
        copied.append(row.instance_number)
        if len(copied) == 1:
            deletion.remove_objects()
        copy(row, key)

    monkeypatch.setattr(deletion, "_copy", another_run_meanwhile)
    assert deletion.remove_objects() == 0
    assert sorted(copied) == [2, 5]
    assert objects.reaches(one, 1)
    assert objects.reaches(other, 1)
    assert_all_is_there()


def test_one_that_is_damaged_keeps_only_itself_in_its_pack_and_an_administrator_is_told(
    send: Any, client_of: Any
) -> None:
    send(ct(1), ct(2), ct(3), ct(4))
    damaged = Instance.objects.get(sop_instance_uid=f"{SERIES}.2")
    pack = damaged.object_key
    path = Path(storages["objects"].path(pack))
    whole = path.read_bytes()
    at = damaged.object_offset + damaged.object_length - 1
    path.write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    delete(client_of, 3)
    deletion.remove_objects(now=later())
    assert [key == pack for key in keys()] == [False, True, False]
    admin = client_of("admin")
    assert any("damaged" in text for text in admin.get("/readyz").json()["warnings"])
    path.write_bytes(whole)
    deletion.remove_objects(now=later() + deletion.GRACE)
    assert not any("damaged" in text for text in admin.get("/readyz").json()["warnings"])
    deletion.remove_objects(now=later() + 2 * deletion.GRACE)
    assert not objects.reaches(pack, 1)
    assert_all_is_there()


def test_a_copy_that_was_removed_before_it_was_named_leaves_the_instance_in_its_pack(
    send: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(ct(1), ct(2), ct(3))
    pack = keys()[-1]
    delete(client_of, 3)
    all_are_due()
    copy = deletion._copy

    def hangs(row: Instance, key: str) -> None:
        copy(row, key)
        all_are_due()
        ObjectRemoval.objects.filter(object_key=pack).update(due_at=later())
        assert deletion.remove_objects() == 1

    with monkeypatch.context() as context:
        context.setattr(deletion, "_copy", hangs)
        deletion.remove_objects()
    assert keys()[-1] == pack
    deletion.remove_objects(now=later() + deletion.GRACE)
    deletion.remove_objects(now=later() + 2 * deletion.GRACE)
    assert not objects.reaches(pack, 1)
    assert_all_is_there()


def test_what_is_deleted_soon_after_it_left_its_pack_is_kept_as_long_as_any(send: Any, client_of: Any) -> None:
    send(ct(1), ct(2), ct(3))
    delete(client_of, 3)
    deletion.remove_objects(now=later())
    left = keys()[-1]
    all_are_due()
    delete(client_of, 2)
    deletion.remove_objects()
    assert objects.reaches(left, 1)
    deletion.remove_objects(now=later())
    assert not objects.reaches(left, 1)


def take_apart() -> None:
    """Let as much time pass as it takes until packs of which some was deleted are gone."""
    for rounds in range(3):
        deletion.remove_objects(now=later() + rounds * deletion.GRACE)


def test_a_retrieval_that_takes_longer_than_a_pack_stays_is_complete(send: Any, client_of: Any) -> None:
    files = [ct(n) for n in range(1, 5)]
    send(*files, ct(9, SeriesInstanceUID=f"{STUDY}.2"))
    (pack,) = {key for key in keys() if is_pack(key)}
    found = list(Instance.objects.filter(series__series_instance_uid=SERIES))
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    answer = client_of("radiologist").get(f"/dicom-web/studies/{STUDY}/series/{SERIES}", HTTP_ACCEPT=accept)
    chunks = iter(answer)
    body = next(chunks)
    path = f"/dicom-web/studies/{STUDY}/series/{STUDY}.2/instances/{SERIES}.9"
    assert client_of("admin").delete(path).status_code == 204
    take_apart()
    assert not objects.reaches(pack, 1)
    body += b"".join(chunks)
    assert all(file in body for file in files)
    assert all(objects.is_whole(instance, with_digest=True) for instance in found)


def test_a_move_that_was_listed_before_a_pack_was_taken_apart_moves_what_it_held(
    send: Any, client_of: Any, settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, listings = tiers._objects_of, []

    def listed_long_ago(study: int) -> Any:
        listings.append(listing(study))
        if len(listings) == 1:
            delete(client_of, 3)
            take_apart()
        return listings[-1]

    with cold_tier(settings, "file", tmp_path):
        send(ct(1), ct(2), ct(3), ct(4))
        monkeypatch.setattr(tiers, "_objects_of", listed_long_ago)
        assert move(Study.objects.get(), COLD).status == "done"
        assert lies() == {"cold"}
        assert_all_is_there()
