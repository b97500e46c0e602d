"""WADO-RS: retrieve (PS3.18 §10.4)."""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import pydicom
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe
from pydicom.uid import ExplicitVRLittleEndian

from accounts.capabilities import Capability
from accounts.gates import program_capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.access import instances_visible_to, visible_study
from studies.archive import metadata as archive_metadata
from studies.archive import objects
from studies.archive.rendering import LARGEST_SIDE, Window, render
from studies.dicomweb.errors import DicomWebError, answers_errors, empty, not_found
from studies.dicomweb.framing import (
    AS_STORED,
    DICOM,
    DICOM_JSON,
    IMMUTABLE,
    LARGEST_WHOLE,
    OCTETS,
    boundary_of,
    closing,
    etag_of,
    frame_form,
    message_type,
    part_head,
)
from studies.dicomweb.media_types import FRAME_MEDIA_TYPES, MediaRange, accepted
from studies.models import Instance, Series, Study

THUMBNAIL_SIDE = 160
Part = tuple[str, Iterable[bytes]]
may_retrieve = program_capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)


def _principal(request: HttpRequest) -> Principal:
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def _study(request: HttpRequest, study_instance_uid: str, way: str) -> Study:
    """Pass the gate and leave the trace."""
    study = visible_study(_principal(request), study_instance_uid)
    _record(request, study, way)
    return study


def _record(request: HttpRequest, study: Study, way: str) -> None:
    record_viewing(
        AuditEvent.Action.RETRIEVE,
        principal=_principal(request),
        site_id=study.site_id,
        patient_id=study.patient_id_value,
        patient_name=study.patient_name,
        study_instance_uid=study.study_instance_uid,
        details={"way": way},
    )


def _instance(request: HttpRequest, uids: dict[str, str], way: str) -> Instance:
    """Give one instance by one query that starts at the gate. Raises DicomWebError."""
    instance = (
        instances_visible_to(_principal(request))
        .filter(
            sop_instance_uid=uids["sop_instance_uid"],
            series__series_instance_uid=uids["series_instance_uid"],
            series__study__study_instance_uid=uids["study_instance_uid"],
        )
        .select_related("series__study")
        .order_by("pk")
        .first()
    )
    if instance is None:
        raise not_found()
    _record(request, instance.series.study, way)
    return instance


def _instances(study: Study, series_instance_uid: str = "") -> QuerySet[Instance]:
    instances = Instance.objects.filter(series__study=study, is_current=True)
    if series_instance_uid:
        instances = instances.filter(series__series_instance_uid=series_instance_uid)
    return instances.order_by("series_id", "instance_number", "pk")


def multipart(part_type: str, parts: Iterable[Part], *, boundary: str = "") -> StreamingHttpResponse:
    """Send parts as multipart/related (RFC 2387), each as soon as it's read: memory holds one chunk at a time."""
    boundary = boundary or uuid.uuid4().hex

    def chunks() -> Iterator[bytes]:
        for content_type, content in parts:
            yield part_head(boundary, content_type)
            yield from content
            yield b"\r\n"
        yield closing(boundary)

    response = StreamingHttpResponse(chunks(), content_type=message_type(part_type, boundary))
    response["Cache-Control"] = "private, max-age=3600"
    return response


def _immutable(request: HttpRequest, response: HttpResponseBase, etag: str) -> HttpResponseBase:
    """Say that these bytes never change; give 304 to a client that has them."""
    if request.headers.get("If-None-Match") == etag:
        response.close()
        response = empty(304)
    response["ETag"] = etag
    for name, value in IMMUTABLE.items():
        response[name] = value
    return response


@require_safe
@may_retrieve
@answers_errors
def retrieve_study(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Retrieve all instances of a study (PS3.18 Table 10.4.1-1)."""
    study = _study(request, study_instance_uid, "wado")
    return _retrieve(request, _instances(study))


@require_safe
@may_retrieve
@answers_errors
def retrieve_series(request: HttpRequest, study_instance_uid: str, series_instance_uid: str) -> HttpResponseBase:
    """Retrieve all instances of a series."""
    study = _study(request, study_instance_uid, "wado")
    return _retrieve(request, _instances(study, series_instance_uid))


@require_safe
@may_retrieve
@answers_errors
def retrieve_instance(request: HttpRequest, **uids: str) -> HttpResponseBase:
    """Retrieve one instance, as a multipart message or alone."""
    instance = _instance(request, uids, "wado")
    for wanted in accepted(request):
        if not wanted.matches(DICOM):
            continue
        if (
            not wanted.is_multipart
            and wanted.media_type in {DICOM, "*/*", "application/*"}
            and DICOM in _header(request)
        ):
            chunks = _file(instance, wanted)
            if chunks is not None:
                return _immutable(request, _whole(chunks, instance, wanted), etag_of(bytes(instance.sha256)))
    return _retrieve(request, Instance.objects.filter(pk=instance.pk))


def _whole(chunks: Iterable[bytes], instance: Instance, wanted: MediaRange) -> HttpResponseBase:
    if wanted.transfer_syntax in AS_STORED and instance.object_length <= LARGEST_WHOLE:
        return HttpResponse(b"".join(chunks), content_type=DICOM)
    return StreamingHttpResponse(chunks, content_type=DICOM)


def _header(request: HttpRequest) -> str:
    text: str = request.GET.get("accept") or request.headers.get("Accept", "")
    return text.split("multipart/related")[0] if text.strip().startswith("multipart") else text


def _retrieve(request: HttpRequest, instances: QuerySet[Instance]) -> HttpResponseBase:
    if not instances.exists():
        raise not_found()
    for wanted in accepted(request):
        if not wanted.matches(DICOM):
            continue
        if _can_be_given(instances, wanted):
            return multipart(DICOM, _parts(instances, wanted))
    raise DicomWebError(
        406, "None of the accepted forms can be given.", available=['multipart/related; type="application/dicom"']
    )


def _can_be_given(instances: QuerySet[Instance], wanted: MediaRange) -> bool:
    """Say whether every instance can be given in the wanted transfer syntax: as stored, or decompressed."""
    syntax = wanted.transfer_syntax
    return syntax in {*AS_STORED, ExplicitVRLittleEndian} or not instances.exclude(transfer_syntax_uid=syntax).exists()


def _parts(instances: QuerySet[Instance], wanted: MediaRange) -> Iterator[Part]:
    for instance in instances.iterator(chunk_size=500):
        syntax = instance.transfer_syntax_uid
        if wanted.transfer_syntax == ExplicitVRLittleEndian:
            syntax = ExplicitVRLittleEndian
        chunks = _file(instance, wanted)
        if chunks is not None:
            yield f"{DICOM}; transfer-syntax={syntax}", chunks


def _file(instance: Instance, wanted: MediaRange) -> Iterable[bytes] | None:
    """Give a Part 10 file in the wanted transfer syntax; None when that can't be had."""
    if wanted.transfer_syntax in {*AS_STORED, instance.transfer_syntax_uid}:
        return objects.stream_instance(instance)
    if wanted.transfer_syntax != ExplicitVRLittleEndian:
        return None
    dataset = pydicom.dcmread(BytesIO(objects.read_instance(instance)))
    try:
        if instance.number_of_frames and dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = BytesIO()
        dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        raise DicomWebError(406, "This instance can't be decompressed here; ask for it as stored.") from error
    return [buffer.getvalue()]


@require_safe
@may_retrieve
@answers_errors
def retrieve_frames(request: HttpRequest, frames: str, **uids: str) -> HttpResponseBase:
    """Retrieve frames, in the order and as often as asked (PS3.18 §10.4.1.1.6)."""
    numbers = _frame_numbers(frames)
    instance = _instance(request, uids, "frames")
    if not instance.number_of_frames or max(numbers) > instance.number_of_frames:
        raise not_found()
    stored_type = FRAME_MEDIA_TYPES.get(instance.transfer_syntax_uid, OCTETS)
    for wanted in accepted(request):
        given = frame_form(instance.transfer_syntax_uid, wanted, has_places=_has_places(instance))
        if given is None:
            continue
        content_type, is_stored = given
        etag = etag_of(bytes(instance.sha256), frames, content_type)
        read = objects.read_frame if is_stored else _decoded_frame
        if not wanted.is_multipart and len(numbers) == 1 and wanted.media_type == content_type.split(";")[0]:
            response: HttpResponseBase = HttpResponse(_frame(instance, numbers[0], read), content_type=content_type)
            return _immutable(request, response, etag_of(bytes(instance.sha256), frames, content_type, "alone"))
        parts = [(content_type, _frame_chunks(instance, number, read)) for number in numbers]
        response = multipart(content_type.split(";")[0], parts, boundary=boundary_of(etag))
        if is_stored and len(numbers) * (instance.frame_length or 0) <= LARGEST_WHOLE:
            response = HttpResponse(b"".join(response), content_type=response["Content-Type"])  # type: ignore[arg-type]
        return _immutable(request, response, etag)
    raise DicomWebError(
        406, "None of the accepted forms can be given.", available=[f'multipart/related; type="{stored_type}"']
    )


def _frame_numbers(text: str) -> list[int]:
    if not re.fullmatch(r"\d{1,9}(,\d{1,9}){0,9999}", text):
        raise DicomWebError(400, "Frames are numbers from 1, separated by commas.")
    numbers = [int(n) for n in text.split(",")]
    if 0 in numbers:
        raise DicomWebError(400, "Frames are counted from 1.")
    return numbers


def _has_places(instance: Instance) -> bool:
    return instance.pixel_data_offset is not None and instance.frame_length is not None


def _frame(instance: Instance, number: int, read: Any) -> bytes:
    try:
        data: bytes = read(instance, number)
    except IndexError as error:
        raise not_found() from error
    except LookupError:
        data = _decoded_frame(instance, number)
    return data


def _frame_chunks(instance: Instance, number: int, read: Any) -> Iterator[bytes]:
    yield _frame(instance, number, read)


def _decoded_frame(instance: Instance, number: int) -> bytes:
    """Decode one frame to little-endian samples. Raises DicomWebError."""
    try:
        samples = pydicom.pixels.pixel_array(BytesIO(objects.read_instance(instance)), index=number - 1, raw=True)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, TypeError, KeyError) as error:
        raise DicomWebError(406, "This instance can't be decompressed here; ask for it as stored.") from error
    data: bytes = samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()
    return data


@require_safe
@may_retrieve
@answers_errors
def retrieve_study_metadata(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Retrieve the metadata of all series of a study."""
    study = _study(request, study_instance_uid, "metadata")
    kept = [archive_metadata.series_metadata(series) for series in study.series.order_by("series_number", "pk")]
    plain = b",".join(inner for k in kept if (inner := gzip.decompress(bytes(k.content))[1:-1]))
    etag = '"' + "-".join(k.etag[:12] for k in kept)[:200] + '"'
    return _metadata(request, gzip.compress(b"[" + plain + b"]", 1), etag)


@require_safe
@may_retrieve
@answers_errors
def retrieve_series_metadata(
    request: HttpRequest, study_instance_uid: str, series_instance_uid: str
) -> HttpResponseBase:
    """Retrieve a series' metadata, compressed as it is kept."""
    study = _study(request, study_instance_uid, "metadata")
    series = Series.objects.filter(study=study, series_instance_uid=series_instance_uid).first()
    if series is None:
        raise not_found()
    kept = archive_metadata.series_metadata(series)
    return _metadata(request, bytes(kept.content), f'"{kept.etag}"')


@require_safe
@may_retrieve
@answers_errors
def retrieve_instance_metadata(request: HttpRequest, **uids: str) -> HttpResponseBase:
    """Retrieve one instance's metadata."""
    instance = _instance(request, uids, "metadata")
    content = archive_metadata.instance_metadata(instance, objects.read_dataset(instance))
    plain = json.dumps([content], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return _metadata(request, gzip.compress(plain, 1), f'"{bytes(instance.sha256).hex()}"')


def _metadata(request: HttpRequest, compressed: bytes, etag: str) -> HttpResponseBase:
    if not any(wanted.matches(DICOM_JSON) or wanted.media_type == "application/json" for wanted in accepted(request)):
        raise DicomWebError(406, "Metadata can be given as DICOM JSON.", available=[DICOM_JSON])
    if request.headers.get("If-None-Match") == etag:
        response = empty(304)
    elif "gzip" in request.headers.get("Accept-Encoding", ""):
        response = HttpResponse(compressed, content_type=DICOM_JSON)
        response["Content-Encoding"] = "gzip"
    else:
        response = HttpResponse(gzip.decompress(compressed), content_type=DICOM_JSON)
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    response["Vary"] = "Accept, Accept-Encoding, Cookie"
    return response


@require_safe
@may_retrieve
@answers_errors
def retrieve_bulkdata(request: HttpRequest, path: str, **uids: str) -> HttpResponseBase:
    """Retrieve the value of one binary element by its path (PS3.18 §10.4.1.5)."""
    instance = _instance(request, uids, "bulkdata")
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(\.\d{1,6}\.[0-9A-Fa-f]{8}){0,16}", path):
        raise not_found()
    try:
        data = archive_metadata.bulk_data(instance, path.upper())
    except LookupError as error:
        raise not_found() from error
    for wanted in accepted(request):
        if wanted.matches(OCTETS):
            if wanted.is_multipart:
                return multipart(OCTETS, [(OCTETS, [data])])
            return HttpResponse(data, content_type=OCTETS)
    raise DicomWebError(406, "Bulk data can be given as octets.", available=[OCTETS])


@require_safe
@may_retrieve
@answers_errors
def retrieve_rendered(request: HttpRequest, frames: str = "1", **uids: str) -> HttpResponseBase:
    """Retrieve a picture of an instance or frame (PS3.18 §10.4.1.1.3)."""
    instance = _instance(request, uids, "rendered")
    return _picture(request, instance, _frame_numbers(frames)[0], None)


@require_safe
@may_retrieve
@answers_errors
def retrieve_thumbnail(
    request: HttpRequest,
    study_instance_uid: str,
    series_instance_uid: str = "",
    sop_instance_uid: str = "",
    frames: str = "1",
) -> HttpResponseBase:
    """Retrieve a small picture of a study, series, instance or frame (PS3.18 §10.4.1.1.4)."""
    study = _study(request, study_instance_uid, "thumbnail")
    instances = _instances(study, series_instance_uid).filter(number_of_frames__gt=0)
    if sop_instance_uid:
        instances = instances.filter(sop_instance_uid=sop_instance_uid)
    count = instances.count()
    if not count:
        raise not_found()
    instance = instances[count // 2]
    return _picture(request, instance, _frame_numbers(frames)[0], (THUMBNAIL_SIDE, THUMBNAIL_SIDE))


def _picture(request: HttpRequest, instance: Instance, frame: int, size: tuple[int, int] | None) -> HttpResponseBase:
    media_type = next(
        (t for wanted in accepted(request) for t in ("image/jpeg", "image/png") if wanted.matches(t)), None
    )
    if media_type is None:
        raise DicomWebError(406, "Pictures can be given as JPEG or PNG.", available=["image/jpeg", "image/png"])
    try:
        content = render(
            instance,
            frame=frame,
            media_type=media_type,
            quality=_quality(request),
            window=_window(request),
            size=size or _viewport(request),
        )
    except IndexError as error:
        raise not_found() from error
    response = HttpResponse(content, content_type=media_type)
    response["Cache-Control"] = "private, max-age=3600"
    return response


def _numbers(text: str, count: int) -> list[float]:
    values = text.split(",")[:count]
    try:
        numbers = [float(v) for v in values]
    except ValueError as error:
        raise DicomWebError(400, "Numbers were expected.") from error
    if len(numbers) < count or any(n != n or abs(n) > 1e9 for n in numbers):
        raise DicomWebError(400, "Numbers were expected.")
    return numbers


def _quality(request: HttpRequest) -> int:
    text = request.GET.get("quality", "90")
    if not re.fullmatch(r"\d{1,3}", text) or not 1 <= int(text) <= 100:
        raise DicomWebError(400, "quality is a number from 1 to 100.")
    return int(text)


def _window(request: HttpRequest) -> Window | None:
    """Read ``window=center,width,function`` (PS3.18 §8.3.5.1.4)."""
    text = request.GET.get("window", "")
    if not text:
        return None
    center, width = _numbers(text, 2)
    if width < 1:
        raise DicomWebError(400, "A window's width is at least 1.")
    return Window(center, width)


def _viewport(request: HttpRequest) -> tuple[int, int] | None:
    """Read ``viewport=width,height`` (PS3.18 §8.3.5.1.3)."""
    text = request.GET.get("viewport", "")
    if not text:
        return None
    width, height = _numbers(text, 2)
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise DicomWebError(400, f"A viewport's sides are from 1 to {LARGEST_SIDE}.")
    return int(width), int(height)
