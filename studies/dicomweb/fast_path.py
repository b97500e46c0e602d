"""Frames, whole instances and series metadata as they are stored, ahead of Django's middleware and views.

Only the plain requests that viewers send are answered here, by one remembered authorisation, one query of the index and
one read of a byte range. For everything else, and for everything that isn't found or isn't allowed, the answer is None
and the views, which stay the reference, say what they have to.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import close_old_connections, connection

from accounts.credentials import Credential, Remembered, credential_of, principal_of_credential
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from portal.common_headers import common_headers
from portal.middleware import acceptable_request_id, request_id
from portal.threads import Answer, Scope
from studies.access import studies_visible_to
from studies.archive import objects
from studies.archive.recalls import want_by_id
from studies.dicomweb.framing import (
    DICOM,
    DICOM_JSON,
    IMMUTABLE,
    LARGEST_WHOLE,
    REVALIDATED,
    boundary_of,
    closing,
    etag_of,
    message_type,
    part_head,
    stored_frame_form,
)
from studies.dicomweb.media_types import ranges_of
from studies.models import Instance, Study

_UID = r"([0-9.]{1,64})"
_INSTANCE = re.compile(rf"/dicom-web/studies/{_UID}/series/{_UID}/instances/{_UID}(?:/frames/([0-9,]{{1,400}}))?")
_METADATA = re.compile(rf"/dicom-web/studies/{_UID}/series/{_UID}/metadata")
# What changes an answer in ways that only the views know.
_BEYOND = {"range", "if-match", "if-modified-since", "if-unmodified-since", "if-range", "te", "content-length"}

_FIND_INSTANCE = """
    SELECT i.sha256, i.transfer_syntax_uid, i.object_key, i.object_offset, i.object_length,
           i.number_of_frames, i.pixel_data_offset, i.frame_length, i.frame_offsets, i.frames_are_fragmented
    FROM studies_instance i JOIN studies_series s ON s.id = i.series_id
    WHERE i.sop_instance_uid = %s AND i.is_current AND s.study_id = %s AND s.series_instance_uid = %s
"""
_FIND_METADATA = """
    SELECT m.content, m.etag FROM studies_series s JOIN archive_seriesmetadata m ON m.series_id = s.id
    WHERE s.study_id = %s AND s.series_instance_uid = %s AND m.revision = s.revision
"""


@dataclass(frozen=True)
class _Grant:
    """That a principal may see a study, and what the trail says of it."""

    principal: Principal
    study: int
    study_instance_uid: str
    site_id: int
    patient_id: str
    patient_name: str
    is_corrected: bool


@dataclass(frozen=True)
class _Request:
    headers: dict[str, str]
    scope: Scope

    @property
    def accept(self) -> str:
        return self.headers.get("accept") or "*/*"


_grants: Remembered[_Grant] = Remembered()


def answer(scope: Scope) -> Answer | None:
    """Answer a plain retrieval, or give None. Called in a thread."""
    if scope["method"] != "GET" or scope.get("query_string"):
        return None
    path: str = scope["path"]
    match = _INSTANCE.fullmatch(path) or _METADATA.fullmatch(path)
    if match is None:
        return None
    request = _Request({n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}, scope)
    if not _BEYOND.isdisjoint(request.headers):
        return None
    close_old_connections()
    try:
        if match.re is _METADATA:
            return _series_metadata(request, match[1], match[2])
        if match[4] is not None:
            return _frames(request, match[1], match[2], match[3], match[4])
        return _whole_instance(request, match[1], match[2], match[3])
    finally:
        close_old_connections()


def _grant(request: _Request, study_instance_uid: str) -> _Grant | None:
    """Pass the gate, from memory when it was passed within the last seconds."""
    client = request.scope.get("client")
    credential = credential_of(request.headers, client[0] if client else None)
    if credential is None:
        return None
    grant = _grants.get((credential, study_instance_uid))
    return grant or _ask_gate(credential, study_instance_uid)


def _ask_gate(credential: Credential, study_instance_uid: str) -> _Grant | None:
    principal = principal_of_credential(credential)
    if principal is None:
        return None
    visible = studies_visible_to(principal).filter(study_instance_uid=study_instance_uid)
    rows = visible.values_list("pk", "site_id", "patient_id_value", "patient_name", "corrections", "tier")[:2]
    # Two sites may hold the study: which copy is meant is for the views to say.
    if len(rows) != 1:
        return None
    pk, site_id, patient_id, patient_name, corrections, tier = rows[0]
    if tier == Study.Tier.COLD:
        want_by_id(pk)
    grant = _Grant(principal, pk, study_instance_uid, site_id, patient_id, patient_name, bool(corrections))
    _grants.put((credential, study_instance_uid), grant)
    return grant


def _row(query: str, *parameters: Any) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        rows = cursor.fetchmany(2)
    return rows[0] if len(rows) == 1 else None


def _instance(grant: _Grant, series_instance_uid: str, sop_instance_uid: str) -> Instance | None:
    row = _row(_FIND_INSTANCE, sop_instance_uid, grant.study, series_instance_uid)
    if row is None:
        return None
    names = ("sha256", "transfer_syntax_uid", "object_key", "object_offset", "object_length", "number_of_frames")
    places = ("pixel_data_offset", "frame_length", "frame_offsets", "frames_are_fragmented")
    return Instance(sop_instance_uid=sop_instance_uid, **dict(zip((*names, *places), row, strict=True)))


def _frames(request: _Request, study: str, series: str, instance_uid: str, frames: str) -> Answer | None:
    grant = _grant(request, study)
    instance = _instance(grant, series, instance_uid) if grant is not None else None
    if grant is None or instance is None or instance.frames_are_fragmented:
        return None
    has_places = instance.pixel_data_offset is not None and instance.frame_length is not None
    content_type = stored_frame_form(instance.transfer_syntax_uid, request.accept, has_places)
    if content_type is None:
        return None
    try:
        spans = [instance.frame_span(int(number)) for number in frames.split(",")]
    except (IndexError, LookupError, ValueError):
        return None
    octets = sum(length for _, length in spans)
    if octets > LARGEST_WHOLE:
        return None
    etag = etag_of(bytes(instance.sha256), frames, content_type)
    boundary = boundary_of(etag)
    headers = {"Content-Type": message_type(content_type.split(";")[0], boundary), "ETag": etag, **IMMUTABLE}
    if _is_known(request, etag):
        return _answer(request, grant, "frames", {}, headers, b"")
    head = part_head(boundary, content_type)
    pieces: list[bytes] = []
    for offset, length in spans:
        pieces += (head, objects.read_range(instance, offset, length), b"\r\n")
    pieces.append(closing(boundary))
    return _answer(
        request, grant, "frames", {"frames": len(spans), "octets": octets}, headers, b"".join(pieces), status=200
    )


def _whole_instance(request: _Request, study: str, series: str, instance_uid: str) -> Answer | None:
    first = next(iter(ranges_of(request.accept)), None)
    if first is None or first.is_multipart or first.media_type != DICOM or first.transfer_syntax not in {"", "*"}:
        return None
    grant = _grant(request, study)
    if grant is None or grant.is_corrected:
        return None
    instance = _instance(grant, series, instance_uid)
    if instance is None or instance.object_length > LARGEST_WHOLE:
        return None
    etag = etag_of(bytes(instance.sha256))
    headers = {"Content-Type": DICOM, "ETag": etag, **REVALIDATED}
    if _is_known(request, etag):
        return _answer(request, grant, "wado", {}, headers, b"")
    content = objects.read_instance(instance)
    return _answer(
        request, grant, "wado", {"instances": 1, "octets": instance.object_length}, headers, content, status=200
    )


def _series_metadata(request: _Request, study: str, series: str) -> Answer | None:
    first = next(iter(ranges_of(request.accept)), None)
    if first is None or first.media_type not in {DICOM_JSON, "application/json", "*/*"} or first.is_multipart:
        return None
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return None
    grant = _grant(request, study)
    row = _row(_FIND_METADATA, grant.study, series) if grant is not None else None
    if grant is None or row is None:
        return None
    etag = f'"{row[1]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding, Cookie"}
    if _is_known(request, etag):
        return _answer(request, grant, "metadata", {}, headers, b"")
    headers |= {"Content-Type": DICOM_JSON, "Content-Encoding": "gzip"}
    return _answer(request, grant, "metadata", {}, headers, bytes(row[0]), status=200)


def _is_known(request: _Request, etag: str) -> bool:
    return request.headers.get("if-none-match") == etag


def _answer(
    request: _Request,
    grant: _Grant,
    way: str,
    counts: dict[str, int],
    headers: dict[str, str],
    body: bytes,
    *,
    status: int = 304,
) -> Answer:
    given = request.headers.get("x-request-id", "")
    current = given if acceptable_request_id(given) else uuid.uuid4().hex
    token = request_id.set(current)
    try:
        record_viewing(
            AuditEvent.Action.RETRIEVE,
            principal=grant.principal,
            site_id=grant.site_id,
            patient_id=grant.patient_id,
            patient_name=grant.patient_name,
            study_instance_uid=grant.study_instance_uid,
            details={"way": way},
            **counts,
        )
    finally:
        request_id.reset(token)
    if status == 304:
        headers.pop("Content-Type", None)
    else:
        headers["Content-Length"] = str(len(body))
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Answer(
        status, [*sent, *common_headers(request.scope, request.headers), (b"X-Request-ID", current.encode())], body
    )
