"""Moving studies between the hot and the cold tier, so that killed at any instant nothing is missing.

A move copies each object to the other tier durably, reads it back and compares its SHA-256, commits ``Study.tier`` and
only then removes what it left. Until then the source is whole; from then on the copy is. A run that died is done again
from the beginning: what it copied is found, read and kept. One move of a study at a time, held by a lease: who lost it
removes nothing any more.

All versions of an instance move, rejected ones too, and the files stay as they were received. What arrives for a cold
study lies in the hot tier, is read from there, and brings the study back.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO

from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from portal.connections import release_connections
from studies import events
from studies.archive import objects
from studies.archive.deletion import remove_later
from studies.archive.errors import MoveRefused, MoveUnderWay, NotAuthorised, ObjectMissing
from studies.archive.models import TierMove
from studies.archive.packs import is_pack
from studies.leases import has_died, new_lease
from studies.models import Instance, Study
from studies.trail import subject_of

logger = logging.getLogger("atrium.tiers")
Status, Origin = TierMove.Status, TierMove.Origin
OPEN = (Status.QUEUED, Status.RUNNING)
WORK_OFF = "studies.archive.tasks.work_off_moves"
LEASE = timedelta(minutes=10)
RENEW_SECONDS = 60.0
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)
MOST_ATTEMPTS = 8
# So many at a time: moving must leave the disks to those who read and store.
MOST_AT_ONCE = 2
SLICE_SECONDS = 120.0
# Copied together, so that a folder is synced once for all: how many, and how many bytes in all.
BATCH_OBJECTS, BATCH_BYTES = 32, 64 << 20
REMOVED_AT_ONCE = 20
# Statuses in which somebody is at work with the images.
IN_USE = (Study.Status.ACQUIRING, Study.Status.IN_READING, Study.Status.PRELIMINARY)

KeepsHot = Callable[[Sequence[int]], set[int]]
_keepers: list[KeepsHot] = []


class _Stopped(Exception):
    """Another worker has the move, or its study is gone."""


class _Damaged(Exception):
    """Storage doesn't hold what was received."""


@dataclass
class _Object:
    """An object of a study and the instances in it: (offset, length, SHA-256) of each."""

    key: str
    length: int
    parts: list[tuple[int, int, bytes]]
    sop_instance_uids: set[str]


def keeps_hot(keeper: KeepsHot) -> KeepsHot:
    """Register who knows of studies that are in use: given studies' ids it gives those that must stay hot."""
    _keepers.append(keeper)
    return keeper


def in_use(studies: Sequence[Study]) -> set[int]:
    """Give the ids of those of the studies that somebody works with, so that they stay in the hot tier."""
    now = timezone.now()
    held = {
        s.pk
        for s in studies
        if s.status in IN_USE
        or (s.claimed_until is not None and s.claimed_until > now)
        or (s.assigned_to_id is not None and s.status == Study.Status.ARRIVED)
    }
    ids = [s.pk for s in studies]
    return held.union(*(keeper(ids) for keeper in _keepers))


def to_cold(study: Study, *, origin: str = Origin.PERSON, principal: Principal | None = None) -> TierMove | None:
    """Ask for a study to be moved to the cold tier. Raises as :func:`request_move`."""
    return request_move(study=study, tier=Study.Tier.COLD, origin=origin, principal=principal)


def to_hot(study: Study, *, origin: str = Origin.PERSON, principal: Principal | None = None) -> TierMove | None:
    """Ask for a study to be brought back to the hot tier. Raises as :func:`request_move`."""
    return request_move(study=study, tier=Study.Tier.HOT, origin=origin, principal=principal)


@transaction.atomic
def request_move(*, study: Study, tier: str, origin: str, principal: Principal | None = None) -> TierMove | None:
    """Ask for a move and give it; one that is asked for already is given as it is.

    None where the study is of that tier already; a move away from it that hasn't begun is taken back. A person needs
    the capability storage.manage; the archive asks for itself without a principal. Raises NotAuthorised, MoveRefused
    (no cold tier, in use), MoveUnderWay while the study moves the other way.
    """
    if principal is not None and not principal.may(Capability.STORAGE_MANAGE, study.site_id):
        raise NotAuthorised
    if not objects.has_cold_tier():
        raise MoveRefused(_("No cold tier is configured."))
    study = Study.objects.select_for_update(of=("self",)).get(pk=study.pk)
    open_move = TierMove.objects.select_for_update().filter(study=study, status__in=OPEN).first()
    if open_move is not None and open_move.tier == tier:
        return open_move
    if open_move is not None:
        if open_move.status == Status.RUNNING or open_move.attempts:
            raise MoveUnderWay(_("The study is on its way to the other tier. Try again in a few minutes."))
        open_move.delete()
    if study.tier == tier:
        return None
    if tier == Study.Tier.COLD and in_use([study]):
        raise MoveRefused(_("The study is in use: being read, ordered or discussed."))
    TierMove.objects.filter(study=study, status=Status.FAILED).delete()
    move = TierMove.objects.create(
        study=study,
        tier=tier,
        origin=origin,
        requested_by=principal.user if principal is not None else None,
        due_at=timezone.now(),
    )
    transaction.on_commit(partial(current_app.send_task, WORK_OFF), robust=True)
    return move


def open_move_of(study: Study) -> TierMove | None:
    """Give the move that the study waits for or is on, if there's one."""
    return TierMove.objects.filter(study=study, status__in=OPEN).first()


@transaction.atomic
def run_again(*, move: TierMove, principal: Principal) -> None:
    """Try a move that failed, or waits for its next attempt, once more at once. Raises NotAuthorised, MoveRefused."""
    if not principal.may(Capability.STORAGE_MANAGE, move.study.site_id):
        raise NotAuthorised
    waiting = TierMove.objects.filter(pk=move.pk, status__in=(Status.FAILED, Status.QUEUED))
    try:
        with transaction.atomic():
            started = waiting.update(status=Status.QUEUED, attempts=0, due_at=timezone.now(), ended_at=None)
    except IntegrityError as error:
        raise MoveRefused(_("The study is being moved already.")) from error
    if started:
        transaction.on_commit(partial(current_app.send_task, WORK_OFF), robust=True)


def work_off() -> bool:
    """Run moves that are due, those back to the hot tier first, for a while; say whether more wait."""
    until = time.monotonic() + SLICE_SECONDS
    while (move := _take()) is not None:
        run(move)
        if time.monotonic() > until:
            return True
    return False


@transaction.atomic
def _take() -> TierMove | None:
    """Lease the next move that is due; None when there's none or as many run as may."""
    now = timezone.now()
    running = list(TierMove.objects.select_for_update().filter(status=Status.RUNNING).order_by("pk"))
    alive = [m for m in running if m.leased_until and m.leased_until > now and not has_died(m.lease)]
    if len(alive) >= MOST_AT_ONCE:
        return None
    dead = [m for m in running if m not in alive]
    for one in dead:
        if one.attempts >= MOST_ATTEMPTS:  # it may be what its workers die of
            _note_failure(one, _("The worker died in the middle of it, again and again."), is_final=True)
    dead = [m for m in dead if m.attempts < MOST_ATTEMPTS]
    waiting = TierMove.objects.select_for_update(skip_locked=True).filter(status=Status.QUEUED, due_at__lte=now)
    # In descending order "hot" comes first: somebody waits for what is brought back.
    move = dead[0] if dead else waiting.order_by("-tier", "due_at", "pk").first()
    if move is None:
        return None
    move.status, move.lease, move.leased_until = Status.RUNNING, new_lease(), now + LEASE
    move.attempts += 1
    move.save(update_fields=["status", "lease", "leased_until", "attempts"])
    return move


def run(move: TierMove) -> None:
    """Carry out a move that this process has leased; what goes wrong is noted in it, and tried again later."""
    copied: dict[str, _Object] = {}
    try:
        _move(move, copied)
    except _Stopped:
        logger.warning("a move was given up", extra={"study": move.study_id, "tier": move.tier})
    except (ObjectMissing, _Damaged):
        logger.exception("a study can't be moved")
        _note_failure(move, _("Storage doesn't hold what was received. Nothing was moved."), is_final=True)
    except Exception as error:  # each storage has errors of its own
        logger.exception("a study can't be moved now")
        _note_failure(move, _in_words(error))
    finally:
        _have_strays_removed(copied.values())


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _("There's no room left to copy to: in the tier itself or in the staging folder.")
    if isinstance(error, objects.TierUnavailable):
        return _("The cold tier can't be reached.")
    return _("The storage can't be read or written (%(error)s).") % {"error": type(error).__name__}


def _note_failure(move: TierMove, reason: str, *, is_final: bool = False) -> None:
    is_final = is_final or move.attempts >= MOST_ATTEMPTS
    now = timezone.now()
    TierMove.objects.filter(pk=move.pk, lease=move.lease).update(
        status=Status.FAILED if is_final else Status.QUEUED,
        due_at=now + min(FIRST_WAIT * 2 ** (move.attempts - 1), LONGEST_WAIT),
        ended_at=now if is_final else None,
        error=reason[:200],
        lease="",
        leased_until=None,
    )


def _move(move: TierMove, copied: dict[str, _Object]) -> None:
    target = Study.Tier(move.tier)
    source = Study.Tier.HOT if target == Study.Tier.COLD else Study.Tier.COLD
    lease = _Lease(move)
    octets = 0
    objects.require_cold_tier()
    while True:
        waiting = [one for one in _objects_of(move.study_id) if one.key not in copied]
        lease.note(total_objects=len(copied) + len(waiting))
        if target == Study.Tier.HOT:
            objects.require_room(target, sum(one.length for one in waiting))
        for batch in _batches(waiting):
            lease.renew()
            try:
                _copy(batch, source, target, lease)
            except ObjectMissing:
                if _are_named(batch):
                    raise
                # A pack among them was taken apart since they were listed.
                break
            copied.update((one.key, one) for one in batch)
            octets += sum(one.length for one in batch)
            lease.note(objects_done=len(copied), bytes_done=octets)
        if _commit(move, copied, octets):
            break
    _remove_sources(move, copied, source)
    TierMove.objects.filter(pk=move.pk, lease=move.lease).update(
        status=Status.DONE, ended_at=timezone.now(), error="", lease="", leased_until=None
    )


class _Lease:
    """The hold on a move, renewed while it's worked at."""

    def __init__(self, move: TierMove) -> None:
        self.move = move
        self.renew_at = time.monotonic() + RENEW_SECONDS

    def note(self, **columns: int) -> None:
        """Note how far it is. Raises _Stopped."""
        held = TierMove.objects.filter(pk=self.move.pk, lease=self.move.lease)
        if not held.update(leased_until=timezone.now() + LEASE, **columns):
            raise _Stopped
        # Copying takes as long as the storages like: meanwhile others need the connection to the database.
        release_connections()

    def renew(self) -> None:
        """Hold on to the move when it's time to. Raises _Stopped."""
        if time.monotonic() > self.renew_at:
            self.renew_at = time.monotonic() + RENEW_SECONDS
            self.note()


def _objects_of(study_id: int) -> list[_Object]:
    rows = Instance.objects.filter(series__study=study_id).order_by("pk")
    found: dict[str, _Object] = {}
    for key, offset, length, sha256, uid in rows.values_list(
        "object_key", "object_offset", "object_length", "sha256", "sop_instance_uid"
    ):
        one = found.setdefault(key, _Object(key, 0, [], set()))
        one.length = max(one.length, offset + length)
        one.parts.append((offset, length, bytes(sha256)))
        one.sop_instance_uids.add(uid)
    return list(found.values())


def _batches(waiting: Sequence[_Object]) -> Iterator[list[_Object]]:
    batch: list[_Object] = []
    octets = 0
    for one in waiting:
        if batch and (len(batch) == BATCH_OBJECTS or octets + one.length > BATCH_BYTES):
            yield batch
            batch, octets = [], 0
        batch.append(one)
        octets += one.length
    if batch:
        yield batch


def _copy(batch: Sequence[_Object], source: Study.Tier, target: Study.Tier, lease: _Lease) -> None:
    """Make the objects lie in the target durably and whole. Raises ObjectMissing, _Damaged, or the storage's error."""
    staged: list[tuple[str, Path]] = []
    try:
        for one in batch:
            if _is_whole(one, target, lease):
                continue
            if is_pack(one.key):
                # All of it: some that lie in it may be indexed only now, and others be deleted.
                one.length = objects.length_of(one.key, source)
            path = objects.new_staging_path()
            staged.append((one.key, path))
            hashed = hashlib.sha256()
            with path.open("xb") as file:
                for chunk in objects.stream_object(one.key, one.length, tier=source):
                    file.write(chunk)
                    hashed.update(chunk)
                    lease.renew()
            with path.open("rb") as file:
                if not _holds(one, partial(_parts, file)):
                    raise _Damaged(one.key)
            # From here on all of it has to be there.
            one.parts = [(0, one.length, hashed.digest())]
        objects.place_all(staged, target)
        written = {key for key, _ in staged}
        # Who copied those that were there may have been killed before they were durable.
        objects.sync_all([one.key for one in batch if one.key not in written], target)
        for one in batch:
            if one.key in written and not _is_whole(one, target, lease):
                raise _Damaged(one.key)
    finally:
        for _key, path in staged:
            path.unlink(missing_ok=True)


def _is_whole(one: _Object, tier: Study.Tier, lease: _Lease) -> bool:
    """Say whether the tier holds every byte of the object as it came."""

    def read(offset: int, length: int) -> Iterator[bytes]:
        for chunk in objects.stream_object(one.key, length, offset=offset, tier=tier):
            lease.renew()
            yield chunk

    return objects.reaches(one.key, one.length, tier) and _holds(one, read)


def _holds(one: _Object, read: Callable[[int, int], Iterator[bytes]]) -> bool:
    for offset, length, sha256 in one.parts:
        hashed = hashlib.sha256()
        for chunk in read(offset, length):
            hashed.update(chunk)
        if hashed.digest() != sha256:
            return False
    return True


def _parts(file: IO[bytes], offset: int, length: int) -> Iterator[bytes]:
    file.seek(offset)
    while length and (chunk := file.read(min(length, objects.HASHED))):
        length -= len(chunk)
        yield chunk


@transaction.atomic
def _commit(move: TierMove, copied: Mapping[str, _Object], octets: int) -> bool:
    """Let the study be of its new tier, unless instances came that aren't copied yet. Raises _Stopped."""
    study = Study.objects.select_for_update(of=("self",)).filter(pk=move.study_id).first()
    held = TierMove.objects.select_for_update().filter(pk=move.pk, lease=move.lease)
    if study is None or not held.exists():
        raise _Stopped
    # Who stores into the study waits for its row, and is seen here or comes to a study that has moved.
    if set(Instance.objects.filter(series__study=study).values_list("object_key", flat=True)) - copied.keys():
        return False
    if study.tier == move.tier:  # an earlier run came so far
        return True
    Study.objects.filter(pk=study.pk).update(tier=move.tier, used_at=timezone.now())
    events.emit("study.changed", study=study.pk)
    record(
        AuditEvent.Action.CHANGE,
        principal=Principal(user=move.requested_by),
        **subject_of(study),
        details={
            "what": "moved to the cold tier" if move.tier == Study.Tier.COLD else "brought back to the hot tier",
            "why": move.origin,
            "objects": len(copied),
            "bytes": octets,
        },
    )
    return True


def _remove_sources(move: TierMove, copied: Mapping[str, _Object], source: Study.Tier) -> None:
    """Remove what was left behind, but nothing that another study, which is of that tier, names. Raises _Stopped."""
    # What was deleted meanwhile has removals of its own, from both tiers.
    done = [one for one in _objects_of(move.study_id) if one.key in copied]
    for start in range(0, len(done), REMOVED_AT_ONCE):
        some = done[start : start + REMOVED_AT_ONCE]
        with transaction.atomic():
            # Held until these are removed: whoever takes the move over comes before them or after them.
            if not TierMove.objects.select_for_update().filter(pk=move.pk, lease=move.lease).exists():
                raise _Stopped
            others = _naming(some).filter(series__study__tier=source).exclude(series__study=move.study_id)
            for key in {one.key for one in some} - set(others.values_list("object_key", flat=True)):
                objects.remove_from(source, key)


def _naming(some: Collection[_Object]) -> QuerySet[Instance]:
    """Give the instances of whatever study that lie in the objects."""
    # By the UIDs, which are indexed: an object's key holds its instance's.
    uids = set[str]().union(*(one.sop_instance_uids for one in some))
    return Instance.objects.filter(sop_instance_uid__in=uids, object_key__in=[one.key for one in some])


def _are_named(some: Collection[_Object]) -> bool:
    """Say whether each of the objects is still an instance's."""
    return {one.key for one in some} <= set(_naming(some).values_list("object_key", flat=True))


def _have_strays_removed(copied: Collection[_Object]) -> None:
    """Have removed what was copied while its instance was deleted: its removal may have come before the copy."""
    every = list(copied)
    for start in range(0, len(every), 500):
        some = every[start : start + 500]
        named = set(_naming(some).values_list("object_key", flat=True))
        remove_later({one.key: min(one.sop_instance_uids) for one in some if one.key not in named})
