"""Data sets in requests and answers, as DICOM JSON or XML (PS3.18 §8.7.3, Annex F, PS3.19 A.1)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.http import HttpRequest, HttpResponse, UnreadablePostError
from pydicom import Dataset

from studies.archive.native_model import MEDIA_TYPE as DICOM_XML
from studies.archive.native_model import InvalidNativeModel, from_native_xml, to_native_xml
from studies.dicomweb.announced import announced_length
from studies.dicomweb.errors import DicomWebError, is_silent
from studies.dicomweb.framing import boundary_of, closing, etag_of, message_type, part_head
from studies.dicomweb.json_values import InvalidValue, dataset_of
from studies.dicomweb.media_types import accepted

DICOM_JSON = "application/dicom+json"
LARGEST_BODY = 8 << 20


def dataset_from(request: HttpRequest, *, may_be_empty: bool = False) -> Dataset:
    """Give the data set in the request's body. Raises DicomWebError."""
    if announced_length(request) > LARGEST_BODY:
        raise DicomWebError(413, "The body is too large for a data set.")
    body = _read(request)
    if not body and may_be_empty:
        return Dataset()
    kind = request.headers.get("Content-Type", DICOM_JSON).split(";")[0].strip().lower()
    if kind in {DICOM_XML, "application/xml", "text/xml"}:
        try:
            return _dataset(from_native_xml(body))
        except InvalidNativeModel as error:
            raise DicomWebError(400, str(error)) from error
    if kind not in {DICOM_JSON, "application/json"}:
        raise DicomWebError(415, "Send DICOM JSON or XML.", available=[DICOM_JSON, DICOM_XML])
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DicomWebError(400, "The body is no JSON.") from error
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise DicomWebError(400, "The body holds one data set.")
    return _dataset(content)


def _read(request: HttpRequest) -> bytes:
    """Give the whole body, which comes in pieces. Raises DicomWebError."""
    pieces: list[bytes] = []
    left = LARGEST_BODY
    try:
        while piece := request.read(left + 1):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise DicomWebError(413, "The body is too large for a data set.")
    except UnreadablePostError as error:
        raise DicomWebError(408 if is_silent(error) else 400, str(error)) from error
    return b"".join(pieces)


def _dataset(content: dict[str, Any]) -> Dataset:
    try:
        return dataset_of(content)
    except InvalidValue as error:
        raise DicomWebError(400, str(error)) from error
    except Exception as error:  # pydicom raises what it will on hostile values
        raise DicomWebError(400, "The body is no data set in the DICOM JSON or XML model.") from error


def answer_with(request: HttpRequest, datasets: list[dict[str, Any]], *, status: int = 200) -> HttpResponse:
    """Give data sets in the form that's wanted most: JSON, XML (several as multipart). Raises DicomWebError."""
    for wanted in accepted(request):
        if not wanted.is_multipart and (wanted.matches(DICOM_JSON) or wanted.media_type == "application/json"):
            body = json.dumps(datasets, ensure_ascii=False, separators=(",", ":"))
            return HttpResponse(body, status=status, content_type=DICOM_JSON)
        if not wanted.matches(DICOM_XML):
            continue
        if not wanted.is_multipart and len(datasets) == 1:
            return HttpResponse(to_native_xml(datasets[0]), status=status, content_type=DICOM_XML)
        if wanted.is_multipart or wanted.takes_every_form:
            parts = [to_native_xml(dataset) for dataset in datasets]
            boundary = boundary_of(etag_of(hashlib.sha256(b"".join(parts)).digest()))
            message = (part_head(boundary, DICOM_XML) + part + b"\r\n" for part in parts)
            return HttpResponse(
                b"".join((*message, closing(boundary))),
                status=status,
                content_type=message_type(DICOM_XML, boundary),
            )
    raise DicomWebError(
        406,
        "None of the accepted forms can be given.",
        available=[DICOM_JSON, f'multipart/related; type="{DICOM_XML}"'],
    )
