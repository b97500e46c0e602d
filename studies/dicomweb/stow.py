"""STOW-RS: store (PS3.18 §10.5)."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.gates import principal_of, program_capability_required
from studies.archive.native_model import to_native_xml
from studies.dicomweb.errors import DicomWebError, answers_errors
from studies.dicomweb.framing import DICOM_JSON
from studies.dicomweb.media_types import accepted
from studies.dicomweb.multipart import BrokenBody
from studies.dicomweb.sites import site_for
from studies.dicomweb.store_body import Packing, TooLarge, received
from studies.dicomweb.store_metadata import DICOM_XML
from studies.ingest.errors import CANNOT_UNDERSTAND, COERCED, OUT_OF_RESOURCES, PROCESSING_FAILURE
from studies.ingest.services import Outcome, Source, StagedFile, Status, WayIn, begin_writing, ingest

BATCH_FILES = 20
BATCH_BYTES = 64 << 20
WRITTEN_FILES = 5
# A body with more bad parts than this isn't read on: it would be told of part by part for ever.
MOST_REFUSED = 1000
may_store = program_capability_required(Capability.STUDY_UPLOAD)
WARNINGS = {
    0xB000: "Kept as a second version",
    0xB006: "Elements that don't belong there were left out",
    0xB007: "The file meta information names another instance or class",
}


class TooManyRefused(Exception):
    """So many parts were refused that the rest of the body isn't read."""


End = BrokenBody | TooLarge | TooManyRefused


@may_store
@answers_errors
def store(request: HttpRequest, study_instance_uid: str = "") -> HttpResponseBase:
    """Store the instances of the body; give the store instances response (PS3.18 §10.5.3)."""
    as_xml = _wants_xml(request)
    source = Source(WayIn.STOW, site_for(request, Capability.STUDY_UPLOAD), principal_of(request))
    outcomes, end = _store(request, source, study_instance_uid)
    if isinstance(end, TooLarge) and not any(o.is_in for o in outcomes):
        raise DicomWebError(413, str(end))
    if end is not None:
        status = CANNOT_UNDERSTAND if isinstance(end, BrokenBody) else OUT_OF_RESOURCES
        broken = Outcome(Status.FAILED, reason=str(end), dicom_status=status)
        if not outcomes:
            raise DicomWebError(400, str(end))
        outcomes.append(broken)
    if not outcomes:
        raise DicomWebError(400, "The body has no part.")
    if all(o.dicom_status == OUT_OF_RESOURCES and not o.sop_instance_uid for o in outcomes):
        raise DicomWebError(503, "The archive has no room to take this now; try again later.")
    return _answer(request, outcomes, as_xml=as_xml)


def _store(request: HttpRequest, source: Source, study_instance_uid: str) -> tuple[list[Outcome], End | None]:
    """Store what comes, in batches; give the outcomes in order, and what ended the body before its end."""
    outcomes: list[Outcome] = []
    batch: list[StagedFile] = []
    unwritten: list[StagedFile] = []
    packing = Packing()
    refused = 0

    def add(more: list[Outcome]) -> None:
        nonlocal refused
        outcomes.extend(more)
        refused += sum(not outcome.is_in for outcome in more)

    def write() -> None:
        if unwritten:
            begin_writing(unwritten)
            unwritten.clear()

    def ingest_batch() -> None:
        if batch:
            write()
            add(ingest(batch, source, only_study=study_instance_uid))
            batch.clear()
            packing.close()

    with closing(packing), closing(received(request, packing)) as incoming:
        try:
            for one in incoming:
                if refused >= MOST_REFUSED:
                    # Nothing waits: what is counted has just been ingested.
                    if isinstance(one, StagedFile):
                        one.path.unlink(missing_ok=True)
                    return outcomes, TooManyRefused(f"After {refused} refused parts the rest wasn't read.")
                if isinstance(one, Outcome):
                    ingest_batch()
                    add([one])
                    continue
                batch.append(one)
                unwritten.append(one)
                if len(unwritten) >= WRITTEN_FILES:
                    write()
                if len(batch) >= BATCH_FILES or sum(f.size for f in batch) >= BATCH_BYTES:
                    ingest_batch()
        except (BrokenBody, TooLarge) as error:
            ingest_batch()
            return outcomes, error
        except BaseException:
            for file in batch:
                file.path.unlink(missing_ok=True)
            raise
        ingest_batch()
    return outcomes, None


def _wants_xml(request: HttpRequest) -> bool:
    """Say in which form the answer is wanted, before anything is stored. Raises DicomWebError."""
    for wanted in accepted(request):
        if wanted.matches(DICOM_JSON) or wanted.media_type == "application/json":
            return False
        if wanted.matches(DICOM_XML):
            return True
    raise DicomWebError(406, "The answer can be given as DICOM JSON or XML.", available=[DICOM_JSON, DICOM_XML])


def _answer(request: HttpRequest, outcomes: list[Outcome], *, as_xml: bool) -> HttpResponseBase:
    stored = [o for o in outcomes if o.is_in]
    failed = [o for o in outcomes if not o.is_in and o.sop_instance_uid]
    # What can't even be named is told of apart (PS3.18 §10.5.3, Other Failures Sequence).
    nameless = [o for o in outcomes if not o.is_in and not o.sop_instance_uid]
    content: dict[str, Any] = {}
    if stored:
        content["00081199"] = {"vr": "SQ", "Value": [_stored_item(request, o) for o in stored]}
    if failed:
        content["00081198"] = {"vr": "SQ", "Value": [_identity(o) | _failure(o) for o in failed]}
    if nameless:
        content["0008119A"] = {"vr": "SQ", "Value": [_failure(o) for o in nameless]}
    studies = {o.study_instance_uid for o in stored}
    if len(studies) == 1:
        content["00081190"] = {"vr": "UR", "Value": [_url(request, f"studies/{studies.pop()}")]}
    if not stored:
        status = 409
    elif failed or nameless or any(_warning(o) for o in stored):
        status = 202
    else:
        status = 200
    content = dict(sorted(content.items()))
    if as_xml:
        return HttpResponse(to_native_xml(content), status=status, content_type=DICOM_XML)
    return JsonResponse(content, status=status, content_type=DICOM_JSON)


def _identity(outcome: Outcome) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [outcome.sop_class_uid]} if outcome.sop_class_uid else {"vr": "UI"},
        "00081155": {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _warning(outcome: Outcome) -> int:
    return COERCED if outcome.status is Status.CONFLICT else outcome.warning


def _stored_item(request: HttpRequest, outcome: Outcome) -> dict[str, Any]:
    path = (
        f"studies/{outcome.study_instance_uid}/series/{outcome.series_instance_uid}"
        f"/instances/{outcome.sop_instance_uid}"
    )
    item = _identity(outcome) | {"00081190": {"vr": "UR", "Value": [_url(request, path)]}}
    warning = _warning(outcome)
    if warning:
        item["00000902"] = {"vr": "LO", "Value": [WARNINGS[warning][:64]]}
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return item


def _failure(outcome: Outcome) -> dict[str, Any]:
    return {
        "00000902": {"vr": "LO", "Value": [outcome.reason[:64]]},
        "00081197": {"vr": "US", "Value": [outcome.dicom_status or PROCESSING_FAILURE]},
    }


def _url(request: HttpRequest, path: str) -> str:
    return request.build_absolute_uri(f"/dicom-web/{path}")
