"""STOW-RS: store (PS3.18 §10.5)."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.gates import program_capability_required
from accounts.models import Site
from studies.access import sites_where
from studies.dicomweb.errors import DicomWebError, answers_errors
from studies.dicomweb.multipart import CHUNK, BrokenBody, Multipart, Part
from studies.ingest.errors import PROCESSING_FAILURE
from studies.ingest.services import Outcome, Source, StagedFile, Status, WayIn, ingest, stage

BATCH_FILES = 20
BATCH_BYTES = 64 << 20
DICOM = "application/dicom"
COERCED = 0xB000
may_store = program_capability_required(Capability.STUDY_UPLOAD)


@may_store
@answers_errors
def store(request: HttpRequest, study_instance_uid: str = "") -> HttpResponseBase:
    """Store the instances of the body; give the store instances response (PS3.18 §10.5.3)."""
    source = Source(WayIn.STOW, _site(request), request.principal)  # type: ignore[attr-defined]
    outcomes: list[Outcome] = []
    broken = ""
    batch: list[StagedFile] = []
    try:
        for file in _files(request):
            batch.append(file)
            if len(batch) >= BATCH_FILES or sum(f.size for f in batch) >= BATCH_BYTES:
                outcomes += _ingest(batch, source, study_instance_uid)
                batch = []
    except BrokenBody as error:
        broken = str(error)
    except OSError as error:
        for file in batch:
            file.path.unlink(missing_ok=True)
        raise DicomWebError(503, "The archive has no room to take this now; try again later.") from error
    outcomes += _ingest(batch, source, study_instance_uid)
    if not outcomes:
        raise DicomWebError(400, broken or "The body has no part.")
    return _answer(request, outcomes, is_broken=bool(broken))


def _site(request: HttpRequest) -> Site:
    """Give the site to store at: named by ``?site=`` or ``X-Atrium-Site``, else the first where one may upload."""
    sites = sites_where(request.principal, Capability.STUDY_UPLOAD).order_by("pk")  # type: ignore[attr-defined]
    slug = request.GET.get("site") or request.headers.get("X-Atrium-Site")
    site = sites.filter(slug=slug).first() if slug else sites.first()
    if site is None:
        raise DicomWebError(403, "This account may not store at that site.")
    return site


def _files(request: HttpRequest) -> Iterator[StagedFile]:
    """Stage each part as it comes. Raises BrokenBody after the parts that were whole, DicomWebError, OSError."""
    content_type = Message()
    content_type["Content-Type"] = request.headers.get("Content-Type", "")
    kind = content_type.get_content_type()
    if kind == DICOM:
        yield stage(iter(lambda: request.read(CHUNK), b""))
        return
    part_type = str(content_type.get_param("type") or DICOM).lower()
    boundary = str(content_type.get_param("boundary") or "")
    if kind != "multipart/related" or part_type != DICOM:
        raise DicomWebError(
            415, "Send multipart/related; type=application/dicom, or one application/dicom.", available=[DICOM]
        )
    if not 0 < len(boundary) <= 200:
        raise DicomWebError(400, "The Content-Type has no boundary.")
    for part in Multipart(request, boundary.encode("latin-1", "replace")):
        yield _staged(part)


def _staged(part: Part) -> StagedFile:
    return stage(part.chunks, file_name=part.headers.get("content-location", ""))


def _ingest(batch: list[StagedFile], source: Source, study_instance_uid: str) -> list[Outcome]:
    if not batch:
        return []
    return ingest(batch, source, only_study=study_instance_uid)


def _answer(request: HttpRequest, outcomes: list[Outcome], *, is_broken: bool) -> HttpResponseBase:
    stored = [o for o in outcomes if o.is_in]
    failed = [o for o in outcomes if not o.is_in]
    content: dict[str, Any] = {}
    if stored:
        content["00081199"] = {"vr": "SQ", "Value": [_stored_item(request, o) for o in stored]}
    if failed:
        content["00081198"] = {"vr": "SQ", "Value": [_failed_item(o) for o in failed]}
    studies = {o.study_instance_uid for o in stored}
    if len(studies) == 1:
        content["00081190"] = {"vr": "UR", "Value": [_url(request, f"studies/{studies.pop()}")]}
    if stored and not failed and not is_broken:
        has_warning = any(o.status is Status.CONFLICT for o in stored)
        status = 202 if has_warning else 200
    elif stored:
        status = 202
    else:
        status = 409
    return JsonResponse(dict(sorted(content.items())), status=status, content_type="application/dicom+json")


def _identity(outcome: Outcome) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [outcome.sop_class_uid]} if outcome.sop_class_uid else {"vr": "UI"},
        "00081155": {"vr": "UI", "Value": [outcome.sop_instance_uid]} if outcome.sop_instance_uid else {"vr": "UI"},
    }


def _stored_item(request: HttpRequest, outcome: Outcome) -> dict[str, Any]:
    path = (
        f"studies/{outcome.study_instance_uid}/series/{outcome.series_instance_uid}"
        f"/instances/{outcome.sop_instance_uid}"
    )
    item = _identity(outcome) | {"00081190": {"vr": "UR", "Value": [_url(request, path)]}}
    if outcome.status is Status.CONFLICT:
        item["00081196"] = {"vr": "US", "Value": [COERCED]}
        item["00000902"] = {"vr": "LO", "Value": ["Kept as a second version"]}
    return item


def _failed_item(outcome: Outcome) -> dict[str, Any]:
    return _identity(outcome) | {
        "00081197": {"vr": "US", "Value": [outcome.dicom_status or PROCESSING_FAILURE]},
        "00000902": {"vr": "LO", "Value": [outcome.reason[:64]]},
    }


def _url(request: HttpRequest, path: str) -> str:
    return request.build_absolute_uri(f"/dicom-web/{path}")
