"""Puts what lies durable in storage into the index: many instances, from many senders, in one transaction.

Threads that want to commit at the same time are taken together (a group commit): a disk makes a few hundred commits
a second durable, however little is in each.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from auditlog.context import disable_auditlog
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import Site
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from portal.middleware import request_id
from studies import events
from studies.archive import objects, rejection
from studies.archive.rejection import Reason
from studies.counting import count_study
from studies.ingest.attributes import Attributes
from studies.ingest.errors import PROCESSING_FAILURE
from studies.ingest.incoming import Incoming, Outcome, Source, Status
from studies.matching import remember_names
from studies.models import Instance, Patient, ReferringPhysician, Series, Study
from studies.person_names import searchable

logger = logging.getLogger("atrium.ingest")
COMMIT_ATTEMPTS = 4
MOST_IN_ONE_COMMIT = 200
# A series that still grows gets its metadata when it's been quiet for so long.
METADATA_QUIET = timedelta(seconds=3)


@dataclass(frozen=True)
class Version:
    """What is already kept under a SOP Instance UID."""

    number: int
    sha256: bytes
    dataset_sha256: bytes
    object_key: str
    dataset_begin: int
    dataset_length: int

    def holds(self, file: Incoming) -> bool:
        """Say whether this version's data set is the file's, whatever their file meta information says."""
        if self.sha256 == file.sha256:
            return True
        if self.dataset_length != file.staged.size - file.structure.dataset_offset:
            return False
        mine = self.dataset_sha256 or objects.digest(self.object_key, self.dataset_begin, self.dataset_length)
        return mine == file.dataset_digest()


@dataclass
class _Job:
    files: list[Incoming]
    source: Source
    request_id: str
    outcomes: list[Outcome] | None = None


@dataclass
class _Group:
    """The files of one study at one site, with where they come from and the outcomes to be set."""

    site: Site
    files: list[tuple[Incoming, Source, Outcome]] = field(default_factory=list)


_waiting: list[_Job] = []
_waiting_lock = threading.Lock()
_turn = threading.Lock()


def commit(files: Sequence[Incoming], source: Source) -> list[Outcome]:
    """Index the files and give their outcomes; on return they are committed, or FAILED."""
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
        if len(jobs) > 1 and isinstance(error, Exception) and not isinstance(error, OperationalError):
            for job in jobs:
                _run([job])
            return
        for job in jobs:
            job.outcomes = [
                f.outcome(Status.FAILED, reason="The database isn't available.", dicom_status=PROCESSING_FAILURE)
                for f in job.files
            ]
        if not isinstance(error, Exception):
            raise


def _commit(jobs: list[_Job]) -> None:
    for attempt in range(1, COMMIT_ATTEMPTS + 1):
        try:
            with transaction.atomic(), disable_auditlog():
                outcomes = _index(jobs)
        except (IntegrityError, OperationalError):
            # Two senders made the same patient, study or series at once; the second finds it on trying again.
            if attempt == COMMIT_ATTEMPTS:
                raise
        else:
            for job, those in zip(jobs, outcomes, strict=True):
                job.outcomes = those
            return


def _index(jobs: list[_Job]) -> list[list[Outcome]]:
    outcomes = [[f.outcome(Status.STORED) for f in job.files] for job in jobs]
    groups: dict[tuple[str, int], _Group] = {}
    for job, those in zip(jobs, outcomes, strict=True):
        for file, outcome in zip(job.files, those, strict=True):
            key = (file.attributes.study_instance_uid, job.source.site.pk)
            groups.setdefault(key, _Group(job.source.site)).files.append((file, job.source, outcome))
    # One order for all, so that two transactions never wait for each other.
    studies = {key: _index_study(groups[key]) for key in sorted(groups)}
    for job, those in zip(jobs, outcomes, strict=True):
        for file, outcome in zip(job.files, those, strict=True):
            # A note that's here already had its effect, which may have been taken back since.
            if file.note is not None and outcome.status is not Status.DUPLICATE:
                rejection.apply_note(file.note, site=job.source.site, principal=job.source.principal)
    for job, those in zip(jobs, outcomes, strict=True):
        _record(job, those, studies)
    return outcomes


def _index_study(group: _Group) -> Study:
    files = [file for file, _, _ in group.files]
    study, is_new = _study(files[0].attributes, group.files[0][1])
    series_of = _series(study, [file.attributes for file in files], is_new=is_new)
    versions = {} if is_new else versions_of(files, group.site, study.study_instance_uid)
    rejected = rejection.standing(group.site, (file.attributes.sop_instance_uid for file in files))
    rows: list[Instance] = []
    grown: dict[int, int] = {}
    for file, source, outcome in group.files:
        uid = file.attributes.sop_instance_uid
        reason = rejected.get(file.uids)
        if reason in rejection.WANTED_AGAIN:
            rejection.show_again(study, [uid], lifted_by=source.principal.name)
            reason = None
        known = versions.setdefault(uid, [])
        if any(version.holds(file) for version in known):
            outcome.status = Status.DUPLICATE
            continue
        series = series_of[file.attributes.series_instance_uid]
        row = _instance(file, series, version=max((v.number for v in known), default=0) + 1, rejected=reason)
        rows.append(row)
        if known:
            outcome.status = Status.CONFLICT
        elif row.is_current:
            grown[series.pk] = grown.get(series.pk, 0) + 1
        known.append(_version(row))
    Instance.objects.bulk_create(rows)
    for pk in sorted(grown):
        Series.objects.filter(pk=pk).update(
            number_of_instances=F("number_of_instances") + grown[pk],
            revision=F("revision") + 1,
            metadata_due_at=timezone.now() + METADATA_QUIET,
        )
    if rows:
        study.unsettled_since = study.unsettled_since or timezone.now()
        count_study(study, has_conflict=any(outcome.status is Status.CONFLICT for _, _, outcome in group.files))
    return study


def versions_of(files: Sequence[Incoming], site: Site, study_instance_uid: str = "") -> dict[str, list[Version]]:
    """Give what is already kept under the files' SOP Instance UIDs in their studies at the site."""
    rows = Instance.objects.filter(
        series__study__site=site, sop_instance_uid__in={f.attributes.sop_instance_uid for f in files}
    ).select_related("series__study")
    if study_instance_uid:
        rows = rows.filter(series__study__study_instance_uid=study_instance_uid)
    wanted = {(f.attributes.sop_instance_uid, f.attributes.study_instance_uid) for f in files}
    found: dict[str, list[Version]] = {}
    for row in rows:
        if (row.sop_instance_uid, row.series.study.study_instance_uid) in wanted:
            found.setdefault(row.sop_instance_uid, []).append(_version(row))
    return found


def _version(row: Instance) -> Version:
    return Version(
        row.version,
        bytes(row.sha256),
        bytes(row.dataset_sha256),
        row.object_key,
        row.object_offset + row.dataset_offset,
        row.object_length - row.dataset_offset,
    )


def _study(a: Attributes, source: Source) -> tuple[Study, bool]:
    """Find or make the patient and the study, the study locked until the commit; say whether it was made."""
    site = source.site
    study = Study.objects.select_for_update().filter(study_instance_uid=a.study_instance_uid, site=site).first()
    if study is not None:
        return study, False
    issuer, patient_id = a.patient["issuer_of_patient_id"], a.patient["patient_id"]
    identity = f"{issuer}|{patient_id}" if patient_id else f"study:{a.study_instance_uid}"
    patient, _ = Patient.objects.get_or_create(site=site, identity=identity, defaults=a.patient)
    physician = None
    name_search = searchable(a.referring_physician_name)
    if name_search:
        physician, _ = ReferringPhysician.objects.get_or_create(
            site=site, name_search=name_search, defaults={"name": a.referring_physician_name}
        )
    study, is_new = Study.objects.get_or_create(
        study_instance_uid=a.study_instance_uid,
        site=site,
        defaults={
            "patient": patient,
            "patient_id_value": patient_id,
            "patient_name": a.patient["patient_name"],
            "patient_name_search": searchable(a.patient["patient_name"]),
            "referring_physician": physician,
            "referring_physician_name": a.referring_physician_name,
            "source_ae_title": source.principal.ae_title[:16],
            **a.study,
        },
    )
    if is_new:
        remember_names([study.patient_name_search, name_search])
        events.emit("study.arrived", study=study.pk)
    return study, is_new


def _series(study: Study, attributes: list[Attributes], *, is_new: bool) -> dict[str, Series]:
    first_of = {a.series_instance_uid: a for a in reversed(attributes)}
    if is_new:
        # Nobody else has seen the study yet: what it needs is made without looking.
        made = [Series(study=study, series_instance_uid=uid, **first_of[uid].series) for uid in sorted(first_of)]
        return {series.series_instance_uid: series for series in Series.objects.bulk_create(made)}
    series_of = {
        series.series_instance_uid: series
        for series in Series.objects.filter(study=study, series_instance_uid__in=first_of)
    }
    for uid in sorted(first_of.keys() - series_of.keys()):
        series_of[uid], _ = Series.objects.get_or_create(
            study=study, series_instance_uid=uid, defaults=first_of[uid].series
        )
    return series_of


def _instance(file: Incoming, series: Series, *, version: int, rejected: Reason | None) -> Instance:
    a = file.attributes
    return Instance(
        series=series,
        sop_instance_uid=a.sop_instance_uid,
        sop_class_uid=a.sop_class_uid,
        version=version,
        is_current=version == 1 and rejected is None,
        rejection_code=rejected if rejected is not None and version == 1 else "",
        transfer_syntax_uid=file.structure.transfer_syntax_uid,
        object_key=file.object_key,
        object_length=file.staged.size,
        sha256=file.sha256,
        dataset_offset=file.structure.dataset_offset,
        dataset_sha256=file.staged.dataset_sha256,
        **a.instance,
        **file.placement,
    )


def _record(job: _Job, outcomes: list[Outcome], studies: dict[tuple[str, int], Study]) -> None:
    """Leave one event for each study that changed, and count what came."""
    sums: dict[str, list[int]] = {}
    for file, outcome in zip(job.files, outcomes, strict=True):
        if outcome.status is not Status.DUPLICATE:
            counts = sums.setdefault(file.attributes.study_instance_uid, [0, 0])
            counts[0] += 1
            counts[1] += file.staged.size
    token = request_id.set(job.request_id)
    try:
        for uid, (instances, octets) in sorted(sums.items()):
            study = studies[uid, job.source.site.pk]
            record_viewing(
                AuditEvent.Action.IMPORT,
                principal=job.source.principal,
                site_id=job.source.site.pk,
                patient_id=study.patient_id_value,
                patient_name=study.patient_name,
                study_instance_uid=uid,
                details={"way_in": job.source.way_in},
                instances=instances,
                octets=octets,
            )
    finally:
        request_id.reset(token)
