"""The one way in. Bytes are kept as they came, durable before success is said, and visible only when indexed.

The order is: stage, check, place (durable), commit the index, answer. An object's key holds its content's hash, so
that a crash between placing and committing leaves at most an object that nobody names, which a later sending reuses
or a sweep removes (:mod:`studies.ingest.leftovers`).

:func:`ingest` may be called by many threads and processes at once.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from django.db import DatabaseError, transaction
from django.db.models import Count, Sum
from django.utils import timezone

from accounts.capabilities import Capability
from accounts.models import Site
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.archive import deletion, objects, rejection
from studies.archive.errors import ObjectMissing
from studies.archive.packs import pack_key
from studies.ingest import index
from studies.ingest.errors import (
    DATASET_DOES_NOT_MATCH,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    WAS_REJECTED,
    Refusal,
)
from studies.ingest.incoming import (
    Incoming,
    Outcome,
    Pack,
    Source,
    StagedFile,
    Status,
    WayIn,
    begin_writing,
    check,
    stage,
    take_out,
)
from studies.ingest.leftovers import Note
from studies.ingest.models import QuarantinedFile
from studies.ingest.statements import is_anything_known
from studies.ingest.versions import Place, Version, versions_at

__all__ = [
    "Outcome",
    "Pack",
    "Source",
    "StagedFile",
    "Status",
    "WayIn",
    "begin_writing",
    "ingest",
    "stage",
]
logger = logging.getLogger("atrium.ingest")
NO_STORAGE = "Storage isn't available."
# What one program may leave in a site's quarantine by STOW-RS within a day: nonsense without end fills no disk. What
# comes by any other way is from a peer or a person whom the site has let in, and is always kept.
KEPT_FILES = 1000
KEPT_BYTES = 20 << 30


def ingest(files: Sequence[StagedFile], source: Source, *, only_study: str = "") -> list[Outcome]:
    """Archive staged files and give each one's outcome, in order. The staged files are consumed.

    With ``only_study``, an instance of any other study is refused (PS3.18 §10.5.1).

    Never raises for a bad file: it's refused and quarantined; by STOW-RS, while the sender's share of the quarantine
    lasts. When storage or the database fails, the outcome is FAILED and the sender keeps its copy.
    """
    outcomes: list[Outcome] = []
    not_kept: list[Refusal] = []
    parsed: list[tuple[int, Incoming]] = []
    paths = {file.path for file in files}
    for number, file in enumerate(files):
        one: Incoming | None = None
        try:
            one = check(file)
            if only_study and one.attributes.study_instance_uid != only_study:
                raise Refusal("The instance belongs to another study.", DATASET_DOES_NOT_MATCH)
            if one.note is not None and not _may_reject(source):
                raise Refusal("This account may not reject instances.", NOT_AUTHORISED)
        except Refusal as refusal:
            outcomes.append(_refuse(file, refusal, source, one, not_kept))
            continue
        except (OSError, MemoryError):
            logger.exception("a staged file can't be read")
            outcomes.append(file.outcome(Status.FAILED, reason=NO_STORAGE, dicom_status=OUT_OF_RESOURCES))
            continue
        except Exception:  # a file that nobody thought of takes no other along
            logger.exception("a staged file can't be checked")
            outcomes.append(_refuse(file, Refusal("The file can't be understood."), source, one, not_kept))
            continue
        outcomes.append(one.outcome(Status.FAILED, reason="Not stored.", dicom_status=PROCESSING_FAILURE))
        parsed.append((number, one))
    with Note() as note:
        archived = _archive([p for _, p in parsed], source, note)
        note.is_settled = all(outcome.status is not Status.FAILED for outcome in archived)
    for number, outcome in zip((n for n, _ in parsed), archived, strict=True):
        outcomes[number] = outcome
    for path in paths | {file.path for file in files}:
        path.unlink(missing_ok=True)
    if not_kept:
        _record_refusal(source, not_kept[0], not_kept=len(not_kept))
    return outcomes


def _may_reject(source: Source) -> bool:
    """A modality or another archive that may store may also reject (IHE IOCM); a person needs the capability."""
    return source.principal.user is None or source.principal.may(Capability.STUDY_REJECT, source.site.pk)


def _refuse(
    file: StagedFile, refusal: Refusal, source: Source, checked: Incoming | None, not_kept: list[Refusal]
) -> Outcome:
    outcome = (checked or file).outcome(Status.REFUSED, reason=refusal.reason, dicom_status=refusal.status)
    try:
        take_out(file)
        if source.way_in is not WayIn.STOW or _has_room_in_quarantine(source, file.size):
            _quarantine(file, refusal, source)
        else:
            not_kept.append(refusal)
    except Exception:  # any storage's error: the sender must keep its copy, and the others are taken in
        logger.exception("a refused file can't be quarantined")
        return replace(outcome, status=Status.FAILED, reason=NO_STORAGE, dicom_status=OUT_OF_RESOURCES)
    logger.warning("file refused: %s", refusal.reason)
    return outcome


def _has_room_in_quarantine(source: Source, size: int) -> bool:
    lately = QuarantinedFile.objects.filter(
        site=source.site,
        received_from=source.principal.name,
        received_at__gte=timezone.now() - timedelta(days=1),
    ).aggregate(files=Count("pk"), bytes=Sum("size", default=0))
    return bool(lately["files"] < KEPT_FILES and lately["bytes"] + size <= KEPT_BYTES)


def _quarantine(file: StagedFile, refusal: Refusal, source: Source) -> None:
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
        _record_refusal(source, refusal, sha256=digest.hex())


def _record_refusal(source: Source, refusal: Refusal, **details: str | int) -> None:
    record(
        AuditEvent.Action.QUARANTINE,
        principal=source.principal,
        outcome=AuditEvent.Outcome.FAILURE,
        site_id=source.site.pk,
        details={"reason": refusal.reason, "way_in": source.way_in, **details},
    )


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _archive(files: list[Incoming], source: Source, note: Note) -> list[Outcome]:
    if not files:
        return []
    try:
        refused = _place(files, source.site, note)
    except DatabaseError:
        logger.exception("the database failed")
        return [
            f.outcome(Status.FAILED, reason="The database isn't available.", dicom_status=PROCESSING_FAILURE)
            for f in files
        ]
    except Exception:  # any storage's error: the sender must keep its copy
        logger.exception("storage failed")
        return [f.outcome(Status.FAILED, reason=NO_STORAGE, dicom_status=OUT_OF_RESOURCES) for f in files]
    taken_in = [f for f in files if f.uids not in refused]
    committed = index.commit(taken_in, source)
    _remove_overtaken(taken_in, committed)
    taken = iter(committed)
    return [_rejected_again(f, source) if f.uids in refused else next(taken) for f in files]


def _remove_overtaken(files: list[Incoming], outcomes: list[Outcome]) -> None:
    """Have removed what another sender of the same instances was faster with: of a pack that others lie in, its part.

    What is named all the same, as the same bytes in one request are, stays.
    """
    overtaken = {
        f.object_key: f.attributes.sop_instance_uid
        for f, outcome in zip(files, outcomes, strict=True)
        if f.is_placed and outcome.status is Status.DUPLICATE
    }
    if overtaken:
        try:
            deletion.remove_later(overtaken)
        except DatabaseError:
            logger.exception("what another sender was faster with can't be listed for removal")


def _rejected_again(file: Incoming, source: Source) -> Outcome:
    """Refuse what was rejected for good; its bytes are in the archive already."""
    logger.info("rejected instance sent again", extra={"site": source.site.slug})
    return file.outcome(Status.REFUSED, reason="This instance was rejected here.", dicom_status=WAS_REJECTED)


def _place(files: list[Incoming], site: Site, note: Note) -> set[tuple[str, str]]:
    """Make all durable that isn't kept already; give the UIDs of those that were rejected for good.

    What storage has lost is placed again by the same bytes. Raises DatabaseError, or the storage's error.
    """
    for file in files:
        if file.staged.failure is not None:
            raise file.staged.failure
        file.object_key = _object_key(file, site)
    packs = _packed(files, site)
    versions: dict[Place, list[Version]] = {}
    refused: set[tuple[str, str]] = set()
    if is_anything_known({f.attributes.sop_instance_uid for f in files}, {f.object_key for f in files}):
        # Some of it may not be wanted: what is lies alone.
        packs = {}
        for file in files:
            file.object_key = _object_key(file, site)
        rejected = rejection.standing(site, (f.attributes.sop_instance_uid for f in files))
        refused = {uids for uids, reason in rejected.items() if reason in rejection.REFUSED_AGAIN}
        versions = versions_at({(*f.uids, site.pk) for f in files})
        deletion.keep_objects([f.object_key for f in files])
    new: dict[str, Incoming] = {}
    for file in files:
        same = [version for version in versions.get((*file.uids, site.pk), []) if version.holds(file)]
        if file.uids in refused or any(version.is_there() for version in same):
            continue
        if same and all(version.sha256 != file.sha256 for version in same):
            # Other file meta information: these bytes can't stand in for those that the index names.
            raise ObjectMissing(same[0].object_key)
        first = new.setdefault(file.object_key, file)
        if file.staged.pack not in packs:
            if first is file:
                take_out(file.staged)
            else:
                # The same bytes once more: they lie where the first ones do.
                file.staged.path, file.staged.offset, file.staged.pack = first.staged.path, 0, None
    for pack, members in packs.items():
        pack.finish([(f.attributes.sop_instance_uid, f.staged.offset, f.staged.size) for f in members])
    note.write([(f.object_key, f.attributes.sop_instance_uid) for f in files if f.object_key in new])
    objects.place_all([(key, file.staged.path) for key, file in new.items()])
    for file in files:
        file.is_placed = file.object_key in new
    return refused


def _packed(files: list[Incoming], site: Site) -> dict[Pack, list[Incoming]]:
    """Give the packs that may become objects, with their members: all good, of one study, and none sent twice."""
    packs: dict[Pack, list[Incoming]] = {}
    sent = Counter(f.attributes.sop_instance_uid for f in files)
    for file in files:
        if file.staged.pack is not None:
            packs.setdefault(file.staged.pack, []).append(file)
    for pack, members in list(packs.items()):
        is_whole = len(members) == pack.count and all(sent[f.attributes.sop_instance_uid] == 1 for f in members)
        if not is_whole or len({f.attributes.study_instance_uid for f in members}) > 1:
            del packs[pack]
            continue
        key = pack_key(site.slug, members[0].attributes.study_instance_uid, (f.sha256 for f in members))
        for file in members:
            file.object_key = key
    return packs


def _object_key(file: Incoming, site: Site) -> str:
    a = file.attributes
    return objects.key_of(site.slug, a.study_instance_uid, a.series_instance_uid, a.sop_instance_uid, file.sha256)
