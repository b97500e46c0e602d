"""WADO-RS: metadata and bulk data (PS3.18 §10.4.1.1.2, §10.4.1.1.5)."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from pydicom.uid import ExplicitVRLittleEndian

from studies.archive import metadata as archive_metadata
from studies.archive import native_model, objects
from studies.archive.bulk import BulkValue, bulk_value
from studies.archive.metadata import FORM
from studies.dicomweb.errors import DicomWebError, answers_errors, empty, not_found
from studies.dicomweb.framing import AS_STORED, DICOM_JSON, OCTETS, boundary_of
from studies.dicomweb.media_types import accepted, takes_gzip
from studies.dicomweb.retrieval import (
    Part,
    content_etag,
    instance_for,
    knows,
    leave_trace,
    may_retrieve,
    multipart,
    require_wanted,
    study_for,
    validated,
)
from studies.models import Series

SMALL = 1 << 20
XML = native_model.MEDIA_TYPE
METADATA_FORMS = [DICOM_JSON, f'multipart/related; type="{XML}"']


@may_retrieve
@answers_errors
def retrieve_study_metadata(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Retrieve the metadata of all series of a study."""
    study = study_for(request, study_instance_uid, "metadata")
    kept = []
    for series in study.series.filter(number_of_instances__gt=0).order_by("series_number", "pk"):
        series.study = study
        kept.append(archive_metadata.series_metadata(series))
    if not kept:
        raise not_found()
    etag = f'"{hashlib.sha256(" ".join(k.etag for k in kept).encode()).hexdigest()}"'
    return _metadata(request, [bytes(k.content) for k in kept], etag)


@may_retrieve
@answers_errors
def retrieve_series_metadata(
    request: HttpRequest, study_instance_uid: str, series_instance_uid: str
) -> HttpResponseBase:
    """Retrieve a series' metadata, compressed as it is kept."""
    study = study_for(request, study_instance_uid, "metadata")
    series = Series.objects.filter(
        study=study, series_instance_uid=series_instance_uid, number_of_instances__gt=0
    ).first()
    if series is None:
        raise not_found()
    series.study = study
    kept = archive_metadata.series_metadata(series)
    return _metadata(request, [bytes(kept.content)], f'"{kept.etag}"')


@may_retrieve
@answers_errors
def retrieve_instance_metadata(request: HttpRequest, **uids: str) -> HttpResponseBase:
    """Retrieve one instance's metadata."""
    instance = instance_for(request, uids, "metadata")
    content = archive_metadata.instance_metadata(instance, objects.read_dataset(instance))
    plain = json.dumps([content], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    etag = content_etag(instance, "metadata", str(archive_metadata.FORM))
    return _metadata(request, [gzip.compress(plain, 1)], etag)


def _metadata(request: HttpRequest, compressed: list[bytes], etag: str) -> HttpResponseBase:
    """Give gzipped JSON arrays, each of a series' instances, as one array or as XML parts."""
    for wanted in accepted(request):
        if not wanted.is_multipart and (wanted.matches(DICOM_JSON) or wanted.media_type == "application/json"):
            etag = gzipped(etag) if _takes_gzip(request) else etag
            return _with_headers(request, _as_json(request, compressed, etag), etag)
        if wanted.matches(XML):
            etag = f'{etag[:-1]}-xml"'
            if knows(request, etag):
                return _with_headers(request, empty(304), etag)
            message = multipart(XML, _xml_parts(compressed), boundary=boundary_of(etag))
            return _with_headers(request, message, etag)
    raise DicomWebError(406, "Metadata can be given as DICOM JSON or as XML.", available=METADATA_FORMS)


def gzipped(etag: str) -> str:
    """Give the validator of the same in gzip's coding, which are other bytes (RFC 9110 §8.8.3.3)."""
    return f'{etag[:-1]}-gzip"'


def _takes_gzip(request: HttpRequest) -> bool:
    return takes_gzip(request.headers.get("Accept-Encoding", ""))


def _as_json(request: HttpRequest, compressed: list[bytes], etag: str) -> HttpResponseBase:
    if knows(request, etag):
        return empty(304)
    is_gzip = _takes_gzip(request)
    if is_gzip and len(compressed) == 1:
        response = HttpResponse(compressed[0], content_type=DICOM_JSON)
    else:
        arrays = (gzip.decompress(part)[1:-1] for part in compressed)
        plain = b"[" + b",".join(inner for inner in arrays if inner) + b"]"
        response = HttpResponse(gzip.compress(plain, 1) if is_gzip else plain, content_type=DICOM_JSON)
    if is_gzip:
        response["Content-Encoding"] = "gzip"
    return response


def _xml_parts(compressed: list[bytes]) -> Iterator[Part]:
    for part in compressed:
        for content in json.loads(gzip.decompress(part)):
            yield Part(XML, [native_model.to_native_xml(content)])


def _with_headers(request: HttpRequest, response: HttpResponseBase, etag: str) -> HttpResponseBase:
    require_wanted(request, etag)
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    response["Vary"] = "Accept, Accept-Encoding, Cookie"
    return response


@may_retrieve
@answers_errors
def retrieve_bulkdata(request: HttpRequest, path: str, **uids: str) -> HttpResponseBase:
    """Retrieve the value of one binary element by its path, or a range of it (PS3.18 §10.4.1.5, RFC 9110 §14)."""
    instance = instance_for(request, uids, "bulkdata")
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(\.[0-9]{1,6}\.[0-9A-Fa-f]{8}){0,16}", path):
        raise not_found()
    try:
        value = bulk_value(instance, path.upper())
    except LookupError as error:
        raise not_found() from error
    leave_trace(request, instance.series.study, "bulkdata", octets=value.length)
    # As it is: a video's stream in its own transfer syntax, pixels uncompressed, anything else in none.
    syntaxes = {*AS_STORED, ExplicitVRLittleEndian if value.media_type == OCTETS else instance.transfer_syntax_uid}
    for wanted in accepted(request):
        if wanted.transfer_syntax not in syntaxes:
            continue
        if wanted.matches(value.media_type) or wanted.matches(OCTETS):
            content_type = value.media_type if wanted.matches(value.media_type) else OCTETS
            etag = content_etag(instance, "bulk", str(FORM), path, content_type, str(wanted.is_multipart))
            require_wanted(request, etag)
            response = _bulk(request, value, content_type, etag, is_multipart=wanted.is_multipart)
            return validated(request, response, etag, is_immutable=True)
    alone = sorted({value.media_type, OCTETS})
    messages = [f'multipart/related; type="{media_type}"' for media_type in alone]
    raise DicomWebError(406, "Bulk data can be given as it is.", available=[*alone, *messages])


def _bulk(
    request: HttpRequest, value: BulkValue, content_type: str, etag: str, *, is_multipart: bool
) -> HttpResponseBase:
    span = None
    # A range is one of GET alone (RFC 9110 §14.2).
    if request.method == "GET" and request.headers.get("If-Range", etag) == etag:
        span = _range(request.headers.get("Range", ""), value.length)
    first, last = span or (0, value.length - 1)
    content = value.read(first, last - first + 1)
    response: HttpResponseBase
    if is_multipart:
        # The range is one of the value, not of the message around it.
        response = multipart(content_type, [Part(content_type, content)], boundary=boundary_of(etag))
        if span:
            response.status_code = 206
            response["Content-Range"] = f"bytes {first}-{last}/{value.length}"
        return response
    if last - first < SMALL:
        response = HttpResponse(b"".join(content), content_type=content_type, status=206 if span else 200)
    else:
        response = StreamingHttpResponse(content, content_type=content_type, status=206 if span else 200)
    response["Content-Length"] = str(last - first + 1)
    response["Accept-Ranges"] = "bytes"
    if span:
        response["Content-Range"] = f"bytes {first}-{last}/{value.length}"
    return response


def _range(header: str, length: int) -> tuple[int, int] | None:
    """Read one byte range; None for none, and for several, which may be ignored. Raises DicomWebError 416."""
    match = re.fullmatch(r"bytes=([0-9]{0,1000})-([0-9]{0,1000})", header.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first = int(match[1]) if match[1] else max(length - int(match[2]), 0)
    last = min(int(match[2]), length - 1) if match[1] and match[2] else length - 1
    if first >= length or (not match[1] and int(match[2]) == 0):
        raise DicomWebError(416, "The range lies beyond the end.", headers={"Content-Range": f"bytes */{length}"})
    return (first, last) if first <= last else None
