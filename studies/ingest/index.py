"""Puts what lies durable in storage into the index: many instances, from many senders, in one transaction.

Threads that want to commit at the same time are taken together (a group commit): a disk makes a few hundred commits
a second durable, however little is in each.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from auditlog.context import disable_auditlog
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from portal.middleware import request_id
from studies.archive import deletion, rejection
from studies.archive.packs import is_pack, naming
from studies.archive.rejection import Reason
from studies.counting import summary
from studies.ingest import statements
from studies.ingest.errors import PROCESSING_FAILURE
from studies.ingest.incoming import Incoming, Outcome, Source, Status
from studies.ingest.rows import make_series, make_studies
from studies.ingest.statements import KnownStudy, StudyKey
from studies.ingest.versions import Place, Version, version_to_be, versions_at
from studies.models import Instance, Study

logger = logging.getLogger("atrium.ingest")
COMMIT_ATTEMPTS = 4
# Seconds after which a database that can't be used isn't tried again: the sender waits, and is told before it goes.
COMMIT_PATIENCE = 15.0
MOST_IN_ONE_COMMIT = 200
# A series that still grows gets its metadata when it's been quiet for so long.
METADATA_QUIET = timedelta(seconds=3)


class Vanished(Exception):
    """What a file was the same as, and wasn't placed for, was deleted before the commit: the sender must keep it."""


@dataclass
class _Job:
    files: list[Incoming]
    source: Source
    request_id: str
    outcomes: list[Outcome] | None = None


@dataclass
class _Arrival:
    """A file, where it comes from, and what becomes of it."""

    file: Incoming
    source: Source
    outcome: Outcome
    version: int = 1
    rejected: Reason | None = None

    @property
    def study(self) -> StudyKey:
        return self.file.attributes.study_instance_uid, self.source.site.pk

    @property
    def series(self) -> tuple[StudyKey, str]:
        return self.study, self.file.attributes.series_instance_uid

    @property
    def place(self) -> Place:
        return *self.file.uids, self.source.site.pk

    @property
    def is_new(self) -> bool:
        return self.outcome.status is not Status.DUPLICATE

    @property
    def is_current(self) -> bool:
        return self.version == 1 and self.rejected is None


_waiting: list[_Job] = []
_waiting_lock = threading.Lock()
_turn = threading.Lock()


def commit(files: Sequence[Incoming], source: Source) -> list[Outcome]:
    """Index the files and give their outcomes; on return they are committed, or FAILED."""
    if not files:
        return []
    job = _Job(list(files), source, request_id.get())
    if connection.in_atomic_block:
        # Others' success must not hang on the caller's transaction.
        _run([job])
    else:
        with _waiting_lock:
            _waiting.append(job)
        # Whoever's turn it is takes along all that wait; those find theirs done when their turn comes.
        while job.outcomes is None:
            with _turn:
                if job.outcomes is None:
                    _run(_taken())
    assert job.outcomes is not None
    return job.outcomes


def _taken() -> list[_Job]:
    with _waiting_lock:
        count = 0
        jobs: list[_Job] = []
        while _waiting and (not jobs or count + len(_waiting[0].files) <= MOST_IN_ONE_COMMIT):
            jobs.append(_waiting.pop(0))
            count += len(jobs[-1].files)
        return jobs


def _run(jobs: list[_Job]) -> None:
    try:
        _commit(jobs)
    except BaseException as error:  # none may wait for ever, whatever went wrong
        logger.exception("index failed")
        if isinstance(error, Exception) and not isinstance(error, OperationalError):
            # One sender, or one file, that can't be indexed takes no other along.
            if len(jobs) > 1:
                for job in jobs:
                    _run([job])
                return
            if len(jobs[0].files) > 1:
                jobs[0].outcomes = _one_by_one(jobs[0])
                return
        for job in jobs:
            job.outcomes = [
                f.outcome(Status.FAILED, reason="The database isn't available.", dicom_status=PROCESSING_FAILURE)
                for f in job.files
            ]
        if not isinstance(error, Exception):
            raise


def _one_by_one(job: _Job) -> list[Outcome]:
    alone = [_Job([file], job.source, job.request_id) for file in job.files]
    for one in alone:
        _run([one])
    return [outcome for one in alone for outcome in one.outcomes or ()]


def _commit(jobs: list[_Job]) -> None:
    begun_at = monotonic()
    for attempt in range(1, COMMIT_ATTEMPTS + 1):
        try:
            with transaction.atomic(), disable_auditlog():
                outcomes = _index(jobs)
        except (IntegrityError, OperationalError) as error:
            # Two senders made the same patient, study or series at once; the second finds it on trying again.
            is_too_late = isinstance(error, OperationalError) and monotonic() - begun_at > COMMIT_PATIENCE
            if attempt == COMMIT_ATTEMPTS or is_too_late:
                raise
        else:
            for job, those in zip(jobs, outcomes, strict=True):
                job.outcomes = those
            return


def _index(jobs: list[_Job]) -> list[list[Outcome]]:
    by_job = [[_Arrival(file, job.source, file.outcome(Status.STORED)) for file in job.files] for job in jobs]
    arrivals = [arrival for those in by_job for arrival in those]
    studies = statements.lock_studies({a.study for a in arrivals})
    wanted_again = _decide(arrivals)
    _show_again([a for a in wanted_again if a.study in studies], studies)
    made = _keep([a for a in arrivals if a.is_new], studies)
    _show_again([a for a in wanted_again if a.study in made], made)
    for job, those in zip(jobs, by_job, strict=True):
        with _asked_by(job):
            _apply_notes(those)
    for job, those in zip(jobs, by_job, strict=True):
        with _asked_by(job):
            _record(job, those, studies | made)
    return [[a.outcome for a in those] for those in by_job]


@contextmanager
def _asked_by(job: _Job) -> Iterator[None]:
    """Let what is recorded name the job's request: the thread that has the turn serves another."""
    token = request_id.set(job.request_id)
    try:
        yield
    finally:
        request_id.reset(token)


def _apply_notes(arrivals: list[_Arrival]) -> None:
    for a in arrivals:
        # A note that's here already had its effect, which may have been taken back since.
        if a.file.note is not None and a.is_new:
            rejection.apply_note(a.file.note, site=a.source.site, principal=a.source.principal)


def _decide(arrivals: list[_Arrival]) -> list[_Arrival]:
    """Set status, version and rejection of each by what is known of it; give those whose rejection ends with this.

    Raises Vanished.
    """
    versions: dict[Place, list[Version]] = {}
    rejected: dict[Place, Reason] = {}
    uids = {a.file.attributes.sop_instance_uid for a in arrivals}
    if statements.is_anything_known(uids):
        versions = versions_at({a.place for a in arrivals})
        for site in {a.source.site for a in arrivals}:
            rejected |= {(*where, site.pk): reason for where, reason in rejection.standing(site, uids).items()}
    wanted_again = []
    for a in arrivals:
        a.rejected = rejected.get(a.place)
        if a.rejected in rejection.WANTED_AGAIN:
            wanted_again.append(a)
            a.rejected = None
        known = versions.setdefault(a.place, [])
        if any(version.holds(a.file) for version in known):
            a.outcome.status = Status.DUPLICATE
            _heal(a.file, known)
            continue
        if not a.file.is_placed:
            raise Vanished(a.file.object_key)
        if known:
            a.outcome.status = Status.CONFLICT
            a.version = max(version.number for version in known) + 1
        known.append(version_to_be(a.file, a.version))
    return wanted_again


def _heal(file: Incoming, known: list[Version]) -> None:
    """Let the index name what was placed in the place of the same bytes in a pack that storage has lost."""
    for version in known:
        is_same = version.sha256 == file.sha256 and version.object_key != file.object_key
        if version.pk is not None and file.is_placed and is_same and not version.is_there():
            place = {"object_key": file.object_key, "object_offset": file.staged.offset}
            Instance.objects.filter(pk=version.pk).update(**place)
            if is_pack(version.object_key) and not naming(version.object_key).exists():
                # Should it come back, as a folder that's mounted again does, nobody needs it.
                deletion.remove_later({version.object_key: file.attributes.sop_instance_uid})


def _show_again(arrivals: list[_Arrival], studies: dict[StudyKey, KnownStudy]) -> None:
    for a in arrivals:
        study = Study.objects.get(pk=studies[a.study].pk)
        rejection.show_again(study, [a.file.attributes.sop_instance_uid], lifted_by=a.source.principal.name)


def _keep(new: list[_Arrival], known: dict[StudyKey, KnownStudy]) -> dict[StudyKey, KnownStudy]:
    """Insert the rows of what is new and count it; give the studies that were made."""
    if not new:
        return {}
    now = timezone.now()
    series = statements.series_of({known[key].pk: key for key in {a.study for a in new} & known.keys()})
    grown = Counter(a.series for a in new if a.is_current)
    first = {a.series: a for a in reversed(new)}
    content: dict[StudyKey, list[tuple[str, str, int]]] = {a.study: [] for a in new}
    for place, there in series.items():
        content[place[0]].append((there.modality, there.body_part_examined, there.number_of_instances + grown[place]))
    for place in first.keys() - series.keys():
        values = first[place].file.attributes.series
        content[place[0]].append((values["modality"], values["body_part_examined"], grown[place]))
    summaries = {key: summary(rows) for key, rows in content.items()}
    conflicts = {a.study for a in new if a.outcome.status is Status.CONFLICT}

    origins = {a.study: (a.file.attributes, a.source) for a in reversed(new) if a.study not in known}
    made = make_studies(origins, summaries, conflicts=conflicts, now=now) if origins else {}
    pk_of = {place: there.pk for place, there in series.items()}
    unknown = {place: first[place].file.attributes for place in first.keys() - series.keys()}
    if unknown:
        pk_of |= make_series(unknown, known | made, grown, metadata_due_at=now + METADATA_QUIET)
    statements.insert_instances.many([_instance(a, pk_of[a.series], now) for a in new])
    statements.grow_series(
        {pk_of[place]: count for place, count in grown.items() if place in series},
        metadata_due_at=now + METADATA_QUIET,
    )
    statements.sum_up_studies(
        {known[key].pk: one for key, one in summaries.items() if key in known},
        conflicts={known[key].pk for key in conflicts & known.keys()},
        now=now,
    )
    return made


def _instance(arrival: _Arrival, series: int, received_at: datetime) -> dict[str, Any]:
    file, a = arrival.file, arrival.file.attributes
    return {
        "series_id": series,
        "sop_instance_uid": a.sop_instance_uid,
        "sop_class_uid": a.sop_class_uid,
        "version": arrival.version,
        "is_current": arrival.is_current,
        "rejection_code": str(arrival.rejected) if arrival.rejected is not None and arrival.version == 1 else "",
        "transfer_syntax_uid": file.structure.transfer_syntax_uid,
        "object_key": file.object_key,
        "object_offset": file.staged.offset,
        "object_length": file.staged.size,
        "sha256": file.sha256,
        "dataset_offset": file.structure.dataset_offset,
        "dataset_sha256": file.staged.dataset_sha256,
        "received_at": received_at,
        **a.instance,
        **file.placement,
    }


def _record(job: _Job, arrivals: list[_Arrival], studies: dict[StudyKey, KnownStudy]) -> None:
    """Leave one event for each study that changed, and count what came."""
    sums: dict[StudyKey, list[int]] = {}
    for a in arrivals:
        if a.is_new:
            counts = sums.setdefault(a.study, [0, 0])
            counts[0] += 1
            counts[1] += a.file.staged.size
    for key, (instances, octets) in sorted(sums.items()):
        record_viewing(
            AuditEvent.Action.IMPORT,
            principal=job.source.principal,
            site_id=job.source.site.pk,
            patient_id=studies[key].patient_id,
            patient_name=studies[key].patient_name,
            study_instance_uid=key[0],
            details={"way_in": job.source.way_in},
            instances=instances,
            octets=octets,
        )
