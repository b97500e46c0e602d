"""The one way in. Bytes are kept as they came, durable before success is said, and visible only when indexed.

The order is: stage, check, place (durable), commit the index, answer. An object's key holds its content's hash, so
that a crash between placing and committing leaves at most an object that nobody names, which a later sending reuses.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pydicom
from auditlog.context import disable_auditlog
from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import F
from django.utils import timezone
from pydicom.uid import KeyObjectSelectionDocumentStorage

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record, record_viewing
from studies import events
from studies.archive import deletion, objects, rejection
from studies.archive.rejection import Reason, RejectionNote
from studies.counting import count_study
from studies.ingest.attributes import Attributes, read_attributes
from studies.ingest.errors import (
    DATASET_DOES_NOT_MATCH,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    WAS_REJECTED,
    Refusal,
)
from studies.ingest.models import QuarantinedFile
from studies.ingest.part10 import Structure, frame_spans, read_structure
from studies.matching import remember_names
from studies.models import Instance, Patient, ReferringPhysician, Series, Study
from studies.person_names import searchable

logger = logging.getLogger("atrium.ingest")
COMMIT_ATTEMPTS = 4


class WayIn(StrEnum):
    """By which door a file came."""

    DIMSE = "dimse"
    STOW = "stow"
    UPLOAD = "upload"
    IMPORT = "import"
    REPORT = "report"
    RETRIEVE = "retrieve"
    REJECTION = "rejection"


class Status(StrEnum):
    """What became of a file."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Source:
    """Where files come from and to which site they go."""

    way_in: WayIn
    site: Site
    principal: Principal


@dataclass
class StagedFile:
    """A file on its way in, whole but not yet anyone's."""

    path: Path
    size: int
    file_name: str = ""


@dataclass
class Outcome:
    """What became of one file. ``reason`` and ``dicom_status`` are set for those refused or failed."""

    status: Status
    file_name: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    reason: str = ""
    dicom_status: int = 0x0000

    @property
    def is_in(self) -> bool:
        return self.status in {Status.STORED, Status.DUPLICATE, Status.CONFLICT}


@dataclass
class _Parsed:
    staged: StagedFile
    attributes: Attributes
    structure: Structure
    sha256: bytes
    dataset_sha256: bytes
    placement: dict[str, Any] = field(default_factory=dict)
    object_key: str = ""
    note: RejectionNote | None = None

    @property
    def uids(self) -> tuple[str, str]:
        return self.attributes.study_instance_uid, self.attributes.sop_instance_uid


def stage(chunks: Iterable[bytes], *, file_name: str = "") -> StagedFile:
    """Write a stream to the staging folder. Raises OSError (a full disk), leaving nothing behind."""
    path = new_staging_path()
    size = 0
    try:
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                size += len(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return StagedFile(path, size, file_name[-300:])


def new_staging_path() -> Path:
    """Give an unused path in the staging folder, on the same file system as embedded storage."""
    folder: Path = settings.STAGING_ROOT
    folder.mkdir(parents=True, exist_ok=True)
    return folder / uuid.uuid4().hex


def ingest(files: Sequence[StagedFile], source: Source, *, only_study: str = "") -> list[Outcome]:
    """Archive staged files and give each one's outcome, in order. The staged files are consumed.

    With ``only_study``, an instance of any other study is refused (PS3.18 §10.5.1).

    Never raises for a bad file: it's refused and quarantined. When storage or the database fails, the outcome is
    FAILED and the sender keeps its copy.
    """
    outcomes: list[Outcome] = []
    parsed: list[tuple[int, _Parsed]] = []
    for number, file in enumerate(files):
        try:
            one = _parse(file)
            if only_study and one.attributes.study_instance_uid != only_study:
                raise Refusal("The instance belongs to another study.", DATASET_DOES_NOT_MATCH)
            if one.note is not None and not _may_reject(source):
                raise Refusal("This account may not reject instances.", NOT_AUTHORISED)
        except Refusal as refusal:
            outcomes.append(_refuse(file, refusal, source))
            continue
        outcomes.append(_outcome(Status.FAILED, one, reason="Not stored.", dicom_status=PROCESSING_FAILURE))
        parsed.append((number, one))
    for number, outcome in zip((n for n, _ in parsed), _archive([p for _, p in parsed], source), strict=True):
        outcomes[number] = outcome
    for file in files:
        file.path.unlink(missing_ok=True)
    return outcomes


def _may_reject(source: Source) -> bool:
    """A modality or another archive that may store may also reject (IHE IOCM); a person needs the capability."""
    return source.principal.user is None or source.principal.may(Capability.STUDY_REJECT, source.site.pk)


def _parse(file: StagedFile) -> _Parsed:
    if file.size == 0:
        raise Refusal("The file is empty.")
    with (
        file.path.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
    ):
        structure = read_structure(data)
        attributes = read_attributes(file.path)
        with data[structure.dataset_offset :] as dataset:
            dataset_sha256 = hashlib.sha256(dataset).digest()
        return _Parsed(
            staged=file,
            attributes=attributes,
            structure=structure,
            sha256=hashlib.sha256(data).digest(),
            dataset_sha256=dataset_sha256,
            placement=_placement(structure, attributes, data),
            note=_note(file.path) if attributes.sop_class_uid == KeyObjectSelectionDocumentStorage else None,
        )


def _note(path: Path) -> RejectionNote | None:
    try:
        return rejection.read_note(pydicom.dcmread(path))
    except Exception as error:  # pydicom raises what it will on hostile values
        raise Refusal("The key object selection can't be read.") from error


def _placement(structure: Structure, attributes: Attributes, data: memoryview) -> dict[str, Any]:
    """Find where the frames lie. Raises Refusal when there is less pixel data than announced."""
    pixel_data = structure.pixel_data
    if pixel_data is None:
        # A deflated data set's pixels are found by decoding; without rows there are none.
        return {
            "number_of_frames": attributes.announced_frames if structure.is_deflated and attributes.frame_length else 0
        }
    frames = attributes.announced_frames
    if pixel_data.is_undefined:
        spans, fragmented = frame_spans(structure, data, frames)
        return {
            "number_of_frames": frames,
            "pixel_data_offset": pixel_data.offset,
            "frame_offsets": spans,
            "frames_are_fragmented": fragmented,
        }
    if attributes.frame_length is None:
        return {"number_of_frames": 0, "pixel_data_offset": pixel_data.offset}
    bits_needed = attributes.frame_length if attributes.has_even_frames else attributes.frame_length - 1
    if pixel_data.length < bits_needed * frames:
        raise Refusal(f"The pixel data are cut short: {pixel_data.length} bytes for {frames} frames.")
    return {
        "number_of_frames": frames,
        "pixel_data_offset": pixel_data.offset,
        "frame_length": attributes.frame_length if attributes.has_even_frames or frames == 1 else None,
    }


def _outcome(status: Status, parsed: _Parsed, *, reason: str = "", dicom_status: int = 0) -> Outcome:
    return Outcome(
        status,
        parsed.staged.file_name,
        parsed.attributes.study_instance_uid,
        parsed.attributes.series_instance_uid,
        parsed.attributes.sop_class_uid,
        parsed.attributes.sop_instance_uid,
        reason,
        dicom_status,
    )


def _refuse(file: StagedFile, refusal: Refusal, source: Source) -> Outcome:
    digest = hashlib.sha256(file.path.read_bytes()).digest() if file.size < 1 << 26 else _sha256(file.path)
    key = f"{source.site.slug}/{timezone.now():%Y/%m/%d}/{digest.hex()}"
    objects.quarantine(key, file.path)
    with transaction.atomic():
        QuarantinedFile.objects.create(
            site=source.site,
            object_key=key,
            sha256=digest,
            size=file.size,
            reason=refusal.reason[:300],
            file_name=file.file_name,
            received_by=source.way_in,
            received_from=source.principal.name,
        )
        record(
            AuditEvent.Action.QUARANTINE,
            principal=source.principal,
            outcome=AuditEvent.Outcome.FAILURE,
            site_id=source.site.pk,
            details={"reason": refusal.reason, "way_in": source.way_in, "sha256": digest.hex()},
        )
    logger.warning("file refused: %s", refusal.reason)
    return Outcome(Status.REFUSED, file.file_name, reason=refusal.reason, dicom_status=refusal.status)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _archive(files: list[_Parsed], source: Source) -> list[Outcome]:
    if not files:
        return []
    rejected = rejection.standing(source.site, (f.attributes.sop_instance_uid for f in files))
    refused = {n for n, f in enumerate(files) if rejected.get(f.uids) in rejection.REFUSED_AGAIN}
    taken = iter(_archive_wanted([f for n, f in enumerate(files) if n not in refused], source))
    return [_rejected_again(f, source) if n in refused else next(taken) for n, f in enumerate(files)]


def _rejected_again(file: _Parsed, source: Source) -> Outcome:
    """Refuse what was rejected for good; its bytes are in the archive already."""
    logger.info("rejected instance sent again", extra={"site": source.site.slug})
    return _outcome(Status.REFUSED, file, reason="This instance was rejected here.", dicom_status=WAS_REJECTED)


def _archive_wanted(files: list[_Parsed], source: Source) -> list[Outcome]:
    if not files:
        return []
    known = _known_datasets(files, source.site)
    try:
        for file in files:
            file.object_key = _object_key(file, source.site)
        deletion.keep_objects([f.object_key for f in files])
        for file in files:
            if (file.attributes.sop_instance_uid, file.dataset_sha256) not in known:
                objects.place(file.object_key, file.staged.path)
    except Exception:  # any storage's error: the sender must keep its copy
        logger.exception("storage failed")
        return [
            _outcome(Status.FAILED, f, reason="Storage isn't available.", dicom_status=OUT_OF_RESOURCES) for f in files
        ]
    for attempt in range(1, COMMIT_ATTEMPTS + 1):
        try:
            with transaction.atomic(), disable_auditlog():
                return _index(files, source)
        except (IntegrityError, OperationalError):
            # Two senders made the same patient, study or series at once; the second finds it on trying again.
            if attempt == COMMIT_ATTEMPTS:
                logger.exception("index failed")
    return [
        _outcome(Status.FAILED, f, reason="The database isn't available.", dicom_status=PROCESSING_FAILURE)
        for f in files
    ]


def _known_datasets(files: list[_Parsed], site: Site) -> set[tuple[str, bytes]]:
    rows = Instance.objects.filter(
        series__study__site=site, sop_instance_uid__in={f.attributes.sop_instance_uid for f in files}
    ).values_list("sop_instance_uid", "dataset_sha256", "series__study__study_instance_uid")
    wanted = {(f.attributes.sop_instance_uid, f.attributes.study_instance_uid) for f in files}
    return {(uid, bytes(digest)) for uid, digest, study in rows if (uid, study) in wanted}


def _object_key(file: _Parsed, site: Site) -> str:
    a = file.attributes
    return (
        f"{site.slug}/{a.study_instance_uid}/{a.series_instance_uid}/{a.sop_instance_uid}-{file.sha256.hex()[:16]}.dcm"
    )


def _index(files: list[_Parsed], source: Source) -> list[Outcome]:
    outcomes: list[Outcome] = [_outcome(Status.STORED, f) for f in files]
    changed: dict[int, Study] = {}
    rejected = rejection.standing(source.site, (f.attributes.sop_instance_uid for f in files))
    by_study: dict[str, list[int]] = {}
    for number, file in enumerate(files):
        by_study.setdefault(file.attributes.study_instance_uid, []).append(number)
    # One order for all, so that two transactions never wait for each other.
    for uid in sorted(by_study):
        study = _study(files[by_study[uid][0]].attributes, source)
        for number in by_study[uid]:
            outcomes[number].status = _index_instance(files[number], study, rejected.get(files[number].uids), source)
        if any(outcomes[n].status is not Status.DUPLICATE for n in by_study[uid]):
            changed[study.pk] = study
            study.unsettled_since = study.unsettled_since or timezone.now()
            count_study(study, has_conflict=any(outcomes[n].status is Status.CONFLICT for n in by_study[uid]))
    for file, outcome in zip(files, outcomes, strict=True):
        # A note that's here already had its effect, which may have been taken back since.
        if file.note is not None and outcome.status is not Status.DUPLICATE:
            rejection.apply_note(file.note, site=source.site, principal=source.principal)
    for study in changed.values():
        record_viewing(
            AuditEvent.Action.IMPORT,
            principal=source.principal,
            site_id=source.site.pk,
            patient_id=study.patient_id_value,
            patient_name=study.patient_name,
            study_instance_uid=study.study_instance_uid,
            details={"way_in": source.way_in},
        )
    return outcomes


def _study(a: Attributes, source: Source) -> Study:
    """Find or make the patient and the study, the study locked until the commit."""
    site = source.site
    study = Study.objects.select_for_update().filter(study_instance_uid=a.study_instance_uid, site=site).first()
    if study is not None:
        return study
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
    return study


def _index_instance(file: _Parsed, study: Study, rejected: Reason | None, source: Source) -> Status:
    a = file.attributes
    series, _ = Series.objects.get_or_create(study=study, series_instance_uid=a.series_instance_uid, defaults=a.series)
    versions = list(
        Instance.objects.filter(series__study=study, sop_instance_uid=a.sop_instance_uid).values_list(
            "dataset_sha256", "version"
        )
    )
    if rejected in rejection.WANTED_AGAIN:
        rejection.show_again(study, [a.sop_instance_uid], lifted_by=source.principal.name)
        rejected = None
    if any(bytes(digest) == file.dataset_sha256 for digest, _ in versions):
        return Status.DUPLICATE
    Instance.objects.create(
        series=series,
        sop_instance_uid=a.sop_instance_uid,
        sop_class_uid=a.sop_class_uid,
        version=max((version for _, version in versions), default=0) + 1,
        is_current=not versions and rejected is None,
        rejection_code=rejected if rejected is not None and not versions else "",
        transfer_syntax_uid=file.structure.transfer_syntax_uid,
        object_key=file.object_key,
        object_length=file.staged.size,
        sha256=file.sha256,
        dataset_offset=file.structure.dataset_offset,
        dataset_sha256=file.dataset_sha256,
        **a.instance,
        **file.placement,
    )
    if versions:
        return Status.CONFLICT
    if rejected is not None:
        return Status.STORED
    Series.objects.filter(pk=series.pk).update(
        number_of_instances=F("number_of_instances") + 1, revision=F("revision") + 1
    )
    return Status.STORED
