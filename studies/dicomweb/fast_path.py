"""Frames, files and series metadata as they are stored, ahead of Django's middleware and views.

Only the plain requests that viewers send are answered here, by one remembered authorisation, one query of the index and
one read of a byte range. For everything else, and for everything that isn't found or isn't allowed, the answer is None
and the views, which stay the reference, say what they have to.

Who is sent one frame of a series is about to ask for the others: where they lie is remembered for some seconds, and a
frame that the machine's memory holds is then answered on the event loop, without a thread or a query. Its file is
opened there; the first that isn't in memory leaves the series to threads for as long as it's remembered.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import close_old_connections, connection

from accounts.credentials import Credential, Remembered, credential_of, principal_of_credential
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import count_viewing, record_viewing
from portal.bodies import BrokenOff, PagedResponse
from portal.common_headers import common_headers, put_headers, single_headers
from portal.middleware import acceptable_request_id, request_id
from portal.threads import Answer, Scope
from studies.access import studies_visible_to
from studies.archive import objects
from studies.archive.errors import ObjectMissing
from studies.archive.metadata import FORM
from studies.archive.objects import StoredFile
from studies.archive.recalls import want_by_id
from studies.dicomweb.as_stored import as_stored
from studies.dicomweb.framing import (
    AS_STORED,
    DICOM,
    DICOM_JSON,
    IMMUTABLE,
    LARGEST_WHOLE,
    REVALIDATED,
    boundary_of,
    closing,
    etag_of,
    file_syntax,
    file_type,
    message_type,
    names,
    part_head,
    stored_frame_form,
)
from studies.dicomweb.media_types import ranges_of, takes_gzip
from studies.dicomweb.retrieval import study_etag
from studies.dicomweb.wado_metadata import gzipped
from studies.models import Instance, Study

_UID = r"([0-9.]{1,64})"
_INSTANCE = re.compile(rf"/dicom-web/studies/{_UID}/series/{_UID}/instances/{_UID}(?:/frames/([0-9,]{{1,400}}))?")
_FILES = re.compile(rf"/dicom-web/studies/{_UID}(?:/series/{_UID})?")
_METADATA = re.compile(rf"/dicom-web/studies/{_UID}/series/{_UID}/metadata")
# In bytes and frames: what is copied on the event loop while all others wait.
LARGEST_AT_ONCE, MOST_AT_ONCE = 1 << 20, 8
# The kernel moves what it holds about, so that a file or two of a series in memory can't be read at times. From so many
# on it lies on a disk, where even a file's name may have to be read.
MANY_MISSES = 3
# Of a study, what is read from the index at once.
MOST_FILES = 2_000
# What changes an answer in ways that only the views know.
_BEYOND = {"range", "if-match", "if-modified-since", "if-unmodified-since", "if-range", "te", "content-length"}

_COLUMNS = (
    *("sop_instance_uid", "sha256", "transfer_syntax_uid", "object_key", "object_offset", "object_length"),
    *("number_of_frames", "pixel_data_offset", "frame_length", "frame_offsets", "frames_are_fragmented"),
)
_SELECT = f"""
    SELECT {", ".join(f"i.{column}" for column in _COLUMNS)}
    FROM studies_instance i JOIN studies_series s ON s.id = i.series_id
    WHERE i.is_current AND s.study_id = %s AND s.series_instance_uid = %s
"""  # noqa: S608  column names only
_FIND_INSTANCE = f"{_SELECT} AND i.sop_instance_uid = %s"
_FIND_CORRECTIONS = "SELECT corrections FROM studies_study WHERE id = %s"
_FIND_NEIGHBOURS = f"""
    {_SELECT} AND NOT i.frames_are_fragmented AND (i.frame_offsets IS NULL OR i.number_of_frames < 100) LIMIT 1000
"""
_FILE_COLUMNS = ("id", "sop_instance_uid", "transfer_syntax_uid", "object_key", "object_offset", "object_length")
# In the order of retrieval.instances_of.
_FIND_FILES = f"""
    SELECT i.series_id, s.revision, {", ".join(f"i.{column}" for column in _FILE_COLUMNS)}
    FROM studies_instance i JOIN studies_series s ON s.id = i.series_id
    WHERE i.is_current AND s.study_id = %s AND (%s = '' OR s.series_instance_uid = %s)
    ORDER BY s.series_number, i.series_id, i.instance_number, i.id LIMIT {MOST_FILES + 1}
"""  # noqa: S608  column names only
_FIND_METADATA = """
    SELECT m.content, m.etag FROM studies_series s JOIN archive_seriesmetadata m ON m.series_id = s.id
    WHERE s.study_id = %s AND s.series_instance_uid = %s AND m.revision = s.revision AND m.form = %s
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


@dataclass(frozen=True)
class _Request:
    headers: dict[str, str]
    scope: Scope

    @property
    def accept(self) -> str:
        return self.headers.get("accept") or "*/*"

    @cached_property
    def id(self) -> str:
        given = self.headers.get("x-request-id", "")
        return given if acceptable_request_id(given) else uuid.uuid4().hex

    @property
    def credential(self) -> Credential | None:
        client = self.scope.get("client")
        return credential_of(self.headers, client[0] if client else None)


@dataclass(frozen=True)
class _Frames:
    """Frames of an instance as they are sent: where each lies in its file, and the message's form."""

    instance: Instance
    spans: list[tuple[int, int]]
    content_type: str
    boundary: str
    headers: dict[str, str]

    @property
    def octets(self) -> int:
        return sum(length for _, length in self.spans)

    @property
    def are_few(self) -> bool:
        """Say whether they may be sent at once."""
        return self.octets <= LARGEST_AT_ONCE and len(self.spans) <= MOST_AT_ONCE

    def message(self) -> bytes:
        """Give the message. Raises ObjectMissing."""
        head = part_head(self.boundary, self.content_type)
        parts = (head + objects.read_range(self.instance, *span) + b"\r\n" for span in self.spans)
        return b"".join((*parts, closing(self.boundary)))

    def message_at_once(self) -> bytearray | None:
        """Give the message, its pixels read to where they are sent from; None where memory doesn't hold them."""
        head, end = part_head(self.boundary, self.content_type), closing(self.boundary)
        message = bytearray(self.octets + len(self.spans) * (len(head) + 2) + len(end))
        place = 0
        with memoryview(message) as view:
            for offset, length in self.spans:
                view[place : place + len(head)] = head
                place += len(head)
                if not objects.read_at_once(self.instance, offset, view[place : place + length]):
                    return None
                place += length
                view[place : place + 2] = b"\r\n"
                place += 2
            view[place:] = end
        return message


@dataclass
class _Neighbours:
    """The rows of a series' instances by SOP Instance UID, and how many files memory didn't hold when asked for."""

    rows: dict[str, tuple[Any, ...]]
    misses: int = 0


_grants: Remembered[_Grant] = Remembered()
# By study and series: which were looked for, and the last few that were found.
_sought: Remembered[bool] = Remembered()
_neighbours: Remembered[_Neighbours] = Remembered(30)


def answer_at_once(scope: Scope) -> Answer | None:
    """Answer for frames that are in memory, with all that they need, or give None. Called on the event loop."""
    match = _INSTANCE.fullmatch(scope["path"])
    request = _plain_request(scope) if match is not None and match[4] is not None else None
    if match is None or request is None:
        return None
    study, series, instance_uid, numbers = match.groups()
    grant = _grants.get((request.credential, study))
    neighbours = _neighbours.get((grant.study, series)) if grant is not None else None
    row = neighbours.rows.get(instance_uid) if neighbours is not None else None
    if grant is None or neighbours is None or row is None:
        return None
    frames = _find_frames(request, _instance_of(row), numbers)
    if frames is None or not frames.are_few or _is_known(request, frames.headers["ETag"]):
        return None
    body = frames.message_at_once()
    if body is None:
        neighbours.misses += 1
        if neighbours.misses == MANY_MISSES:
            _neighbours.forget((grant.study, series))
        return None
    answer = _answer(request, frames.headers, body)
    is_counted = count_viewing(
        AuditEvent.Action.RETRIEVE,
        principal=grant.principal,
        site_id=grant.site_id,
        study_instance_uid=study,
        frames=len(frames.spans),
        octets=frames.octets,
    )
    return answer if is_counted else None


def answer(scope: Scope) -> Answer | PagedResponse | None:
    """Answer a plain retrieval, or give None. Called in a thread."""
    path: str = scope["path"]
    match = _INSTANCE.fullmatch(path) or _FILES.fullmatch(path) or _METADATA.fullmatch(path)
    request = _plain_request(scope) if match is not None else None
    if match is None or request is None:
        return None
    close_old_connections()
    try:
        if match.re is _METADATA:
            return _series_metadata(request, match[1], match[2])
        if match.re is _FILES:
            return _files(request, match[1], match[2] or "")
        if match[4] is not None:
            return _frames(request, match[1], match[2], match[3], match[4])
        return _whole_instance(request, match[1], match[2], match[3])
    except SuspiciousOperation:
        # Such as for a host that isn't ours.
        return None
    finally:
        close_old_connections()


def _plain_request(scope: Scope) -> _Request | None:
    if scope["method"] != "GET" or scope.get("query_string"):
        return None
    headers = single_headers(scope)
    return _Request(headers, scope) if headers is not None and _BEYOND.isdisjoint(headers) else None


def _grant(request: _Request, study_instance_uid: str) -> _Grant | None:
    """Pass the gate, from memory when it was passed within the last seconds."""
    credential = request.credential
    if credential is None:
        return None
    grant = _grants.get((credential, study_instance_uid))
    return grant or _ask_gate(credential, study_instance_uid)


def _ask_gate(credential: Credential, study_instance_uid: str) -> _Grant | None:
    since = _grants.generation
    principal = principal_of_credential(credential)
    if principal is None:
        return None
    visible = studies_visible_to(principal).filter(study_instance_uid=study_instance_uid)
    rows = visible.values_list("pk", "site_id", "patient_id_value", "patient_name", "tier")[:2]
    # Two sites may hold the study: which copy is meant is for the views to say.
    if len(rows) != 1:
        return None
    pk, site_id, patient_id, patient_name, tier = rows[0]
    if tier == Study.Tier.COLD:
        want_by_id(pk)
    grant = _Grant(principal, pk, study_instance_uid, site_id, patient_id, patient_name)
    _grants.put((credential, study_instance_uid), grant, since=since)
    return grant


def _rows(query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _instance_of(row: tuple[Any, ...]) -> Instance:
    return Instance(**dict(zip(_COLUMNS, row, strict=True)))


def _instance(grant: _Grant, series_instance_uid: str, sop_instance_uid: str) -> Instance | None:
    rows = _rows(_FIND_INSTANCE, grant.study, series_instance_uid, sop_instance_uid)
    return _instance_of(rows[0]) if len(rows) == 1 else None


def _is_corrected(grant: _Grant) -> bool:
    """Say whether files leave otherwise than they're stored: from the commit of a correction on, in every process."""
    return _rows(_FIND_CORRECTIONS, grant.study) not in ([("{}",)], [({},)])


def _seek_neighbours(grant: _Grant, series_instance_uid: str) -> None:
    """Remember where a series' frames lie, at most once in some seconds, where they may be read at once."""
    key = grant.study, series_instance_uid
    if _sought.get(key) or not objects.may_read_at_once():
        return
    _sought.put(key, True)
    since = _neighbours.generation
    _neighbours.put(key, _Neighbours({row[0]: row for row in _rows(_FIND_NEIGHBOURS, *key)}), since=since)


def _find_frames(request: _Request, instance: Instance, numbers: str) -> _Frames | None:
    """Say where frames lie and in what form they go, if as stored."""
    has_places = instance.pixel_data_offset is not None and instance.frame_length is not None
    content_type = stored_frame_form(instance.transfer_syntax_uid, request.accept, has_places)
    if content_type is None or instance.frames_are_fragmented:
        return None
    try:
        spans = [instance.frame_span(int(number)) for number in numbers.split(",")]
    except (IndexError, LookupError, ValueError):
        return None
    etag = etag_of(bytes(instance.sha256), numbers, content_type)
    boundary = boundary_of(etag)
    headers = {"Content-Type": message_type(content_type.split(";")[0], boundary), "ETag": etag, **IMMUTABLE}
    return _Frames(instance, spans, content_type, boundary, headers)


def _frames(request: _Request, study: str, series: str, instance_uid: str, numbers: str) -> Answer | None:
    grant = _grant(request, study)
    instance = _instance(grant, series, instance_uid) if grant is not None else None
    frames = _find_frames(request, instance, numbers) if instance is not None else None
    if grant is None or frames is None or frames.octets > LARGEST_WHOLE:
        return None
    if _is_known(request, frames.headers["ETag"]):
        return _recorded(request, grant, "frames", {}, frames.headers)
    body = frames.message()
    if frames.are_few:
        _seek_neighbours(grant, series)
    counts = {"frames": len(frames.spans), "octets": frames.octets}
    return _recorded(request, grant, "frames", counts, frames.headers, body)


def _whole_instance(request: _Request, study: str, series: str, instance_uid: str) -> Answer | None:
    first = next(iter(ranges_of(request.accept)), None)
    if first is None or first.is_multipart or first.media_type != DICOM or first.transfer_syntax not in AS_STORED:
        return None
    grant = _grant(request, study)
    if grant is None or _is_corrected(grant):
        return None
    instance = _instance(grant, series, instance_uid)
    if instance is None or instance.object_length > LARGEST_WHOLE:
        return None
    stored, asked = instance.transfer_syntax_uid, first.transfer_syntax
    if file_syntax(stored, asked, has_frames=bool(instance.number_of_frames)) != stored:
        return None
    etag = etag_of(bytes(instance.sha256))
    headers = {"Content-Type": file_type(stored, asked), "ETag": etag, **REVALIDATED}
    if _is_known(request, etag):
        return _recorded(request, grant, "wado", {}, headers)
    content = objects.read_instance(instance)
    return _recorded(request, grant, "wado", {"instances": 1, "octets": instance.object_length}, headers, content)


def _files(request: _Request, study: str, series: str) -> Answer | PagedResponse | None:
    """Give the files of a study, or of one of its series, in one message."""
    first = next(iter(ranges_of(request.accept)), None)
    if first is None or not first.matches(DICOM) or first.transfer_syntax not in AS_STORED:
        return None
    grant = _grant(request, study)
    if grant is None or _is_corrected(grant):
        return None
    rows = _rows(_FIND_FILES, grant.study, series, series)
    files = [StoredFile(*row[2:]) for row in rows]
    syntaxes = {file.transfer_syntax_uid for file in files}
    if not 0 < len(files) <= MOST_FILES or any(
        file_syntax(stored, first.transfer_syntax, has_frames=True) != stored for stored in syntaxes
    ):
        return None
    etag = study_etag(grant.study, {row[:2] for row in rows}, {}, DICOM, first.transfer_syntax or "by default")
    headers = {"ETag": etag, **REVALIDATED}
    if _is_known(request, etag):
        return _recorded(request, grant, "wado", {}, headers)
    common = common_headers(request.scope, request.headers)
    try:
        response = as_stored(files, files, boundary_of(etag))
    except (BrokenOff, ObjectMissing):
        return None
    _record(request, grant, "wado", {"instances": len(files), "octets": sum(file.object_length for file in files)})
    for name, value in headers.items():
        response[name] = value
    response["X-Request-ID"] = request.id
    put_headers(response, common)
    return response


def _series_metadata(request: _Request, study: str, series: str) -> Answer | None:
    first = next(iter(ranges_of(request.accept)), None)
    if first is None or first.is_multipart or not (first.matches(DICOM_JSON) or first.media_type == "application/json"):
        return None
    if not takes_gzip(request.headers.get("accept-encoding", "")):
        return None
    grant = _grant(request, study)
    rows = _rows(_FIND_METADATA, grant.study, series, FORM) if grant is not None else []
    if grant is None or len(rows) != 1:
        return None
    content, revision = rows[0]
    etag = gzipped(f'"{revision}"')
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding, Cookie"}
    if _is_known(request, etag):
        return _recorded(request, grant, "metadata", {}, headers)
    headers |= {"Content-Type": DICOM_JSON, "Content-Encoding": "gzip"}
    return _recorded(request, grant, "metadata", {}, headers, bytes(content))


def _is_known(request: _Request, etag: str) -> bool:
    return names(request.headers.get("if-none-match") or "", etag)


def _recorded(
    request: _Request,
    grant: _Grant,
    way: str,
    counts: dict[str, int],
    headers: dict[str, str],
    body: bytes | None = None,
) -> Answer:
    """Give the answer, once the trail says who looks."""
    answer = _answer(request, headers, body)
    _record(request, grant, way, counts)
    return answer


def _record(request: _Request, grant: _Grant, way: str, counts: dict[str, int]) -> None:
    token = request_id.set(request.id)
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


def _answer(request: _Request, headers: dict[str, str], body: bytes | bytearray | None) -> Answer:
    """Give 200 with the body, or 304 without one."""
    headers = {**headers, "X-Request-ID": request.id}
    if body is None:
        headers.pop("Content-Type", None)
    else:
        headers["Content-Length"] = str(len(body))
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    status = 304 if body is None else 200
    return Answer(status, [*sent, *common_headers(request.scope, request.headers)], body or b"")
