"""WADO-RS: instances and frames (PS3.18 §10.4.1.1.1, §10.4.1.1.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from pydicom.uid import ExplicitVRLittleEndian

from studies.archive.errors import NotTranscodable
from studies.archive.frames import Frames
from studies.archive.transcoding import can_transcode, transcoded_file, transcoded_frame
from studies.dicomweb.errors import DicomWebError, answers_errors, not_found
from studies.dicomweb.framing import AS_STORED, DICOM, LARGEST_WHOLE, OCTETS, boundary_of, etag_of, frame_form
from studies.dicomweb.media_types import FRAME_MEDIA_TYPES, MediaRange, accepted, default_syntax
from studies.dicomweb.retrieval import (
    Part,
    content_etag,
    each_with_study,
    frame_numbers,
    instance_for,
    instances_of,
    knows,
    leave_trace,
    may_retrieve,
    multipart,
    study_for,
    validated,
)
from studies.dicomweb.retrieval import study_etag as etag_of_study
from studies.dicomweb.zipped import ZIP, zipped
from studies.models import Instance, Study

AVAILABLE = [f'multipart/related; type="{DICOM}"', f'multipart/related; type="{OCTETS}"', ZIP]


@may_retrieve
@answers_errors
def retrieve_study(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Retrieve all instances of a study (PS3.18 Table 10.4.1-1)."""
    study = study_for(request, study_instance_uid, "wado")
    return _retrieve(request, study, instances_of(study))


@may_retrieve
@answers_errors
def retrieve_series(request: HttpRequest, study_instance_uid: str, series_instance_uid: str) -> HttpResponseBase:
    """Retrieve all instances of a series."""
    study = study_for(request, study_instance_uid, "wado")
    return _retrieve(request, study, instances_of(study, series_instance_uid))


@may_retrieve
@answers_errors
def retrieve_instance(request: HttpRequest, **uids: str) -> HttpResponseBase:
    """Retrieve one instance, as a multipart message or alone."""
    instance = instance_for(request, uids, "wado")
    study = instance.series.study
    for wanted in accepted(request):
        if not wanted.is_multipart and wanted.media_type == DICOM:
            response = _alone(request, instance, wanted)
        else:
            response = _in_form(request, study, Instance.objects.filter(pk=instance.pk), wanted)
        if response is not None:
            return response
    raise _unacceptable()


def _retrieve(request: HttpRequest, study: Study, instances: QuerySet[Instance]) -> HttpResponseBase:
    for wanted in accepted(request):
        response = _in_form(request, study, instances, wanted)
        if response is not None:
            return response
    raise _unacceptable()


def _unacceptable() -> DicomWebError:
    return DicomWebError(406, "None of the accepted forms can be given.", available=AVAILABLE)


def _alone(request: HttpRequest, instance: Instance, wanted: MediaRange) -> HttpResponseBase | None:
    syntax = _file_syntax(instance, wanted)
    if syntax is None:
        return None
    is_stored = syntax == instance.transfer_syntax_uid
    etag = content_etag(instance) if is_stored else content_etag(instance, syntax)
    leave_trace(request, instance.series.study, "wado", instances=1, octets=instance.object_length)
    try:
        chunks = transcoded_file(instance, syntax)
    except NotTranscodable:
        return None
    content_type = DICOM if wanted.transfer_syntax in AS_STORED else f"{DICOM}; transfer-syntax={syntax}"
    response: HttpResponseBase
    if is_stored and instance.object_length <= LARGEST_WHOLE:
        response = HttpResponse(b"".join(chunks), content_type=content_type)
    else:
        response = StreamingHttpResponse(chunks, content_type=content_type)
    return validated(request, response, etag)


def _in_form(
    request: HttpRequest, study: Study, instances: QuerySet[Instance], wanted: MediaRange
) -> HttpResponseBase | None:
    """Give many instances in one acceptable form, or None when they can't be had in it. Raises DicomWebError."""
    counted = list(instances.order_by().values_list("transfer_syntax_uid", "number_of_frames", "object_length"))
    if not counted:
        raise not_found()
    sizes = {"instances": len(counted), "octets": sum(length for *_, length in counted)}
    syntaxes = {(syntax, bool(frames)) for syntax, frames, _ in counted}
    respond: Callable[[], HttpResponseBase]
    if wanted.media_type == ZIP:
        target, respond = wanted.transfer_syntax, lambda: _zip(study, instances, target)
        if not _all_can(syntaxes, target):
            return None
    elif wanted.matches(DICOM):
        target = wanted.transfer_syntax
        if not _all_can(syntaxes, target):
            return None
        respond = lambda: multipart(DICOM, _files(study, instances, target), boundary=boundary_of(etag))  # noqa: E731
    else:
        found = _bulk_syntax(wanted, {syntax for syntax, has_frames in syntaxes if has_frames})
        if found is None:
            return None
        target = found
        part_type = FRAME_MEDIA_TYPES.get(target, OCTETS) if "*" in wanted.media_type else wanted.media_type
        respond = lambda: multipart(  # noqa: E731
            part_type, _pixels(request, study, instances, part_type, target), boundary=boundary_of(etag)
        )
    etag = etag_of_study(study, instances, wanted.media_type, target)
    if knows(request, etag):
        return validated(request, HttpResponse(), etag)
    leave_trace(request, study, "wado", **sizes)
    return validated(request, respond(), etag)


def _zip(study: Study, instances: QuerySet[Instance], target: str) -> HttpResponseBase:
    return zipped(study, each_with_study(instances, study, with_attributes=True), target)


def _file_syntax(instance: Instance, wanted: MediaRange) -> str | None:
    if wanted.transfer_syntax in AS_STORED:
        return instance.transfer_syntax_uid
    if _all_can({(instance.transfer_syntax_uid, bool(instance.number_of_frames))}, wanted.transfer_syntax):
        return wanted.transfer_syntax if instance.number_of_frames else _without_frames(wanted.transfer_syntax)
    return None


def _without_frames(target: str) -> str:
    """What has no pixels can't be compressed: it's given in the syntax that every client reads."""
    return (
        target
        if can_transcode(ExplicitVRLittleEndian, target) and target not in FRAME_MEDIA_TYPES
        else (ExplicitVRLittleEndian)
    )


def _all_can(syntaxes: Iterable[tuple[str, bool]], target: str) -> bool:
    """Say whether everything can be given in the transfer syntax, as far as the transfer syntaxes tell."""
    return target in AS_STORED or all(
        can_transcode(syntax, target if has_frames else _without_frames(target)) for syntax, has_frames in syntaxes
    )


def _files(study: Study, instances: QuerySet[Instance], target: str) -> Iterator[Part]:
    for instance in each_with_study(instances, study):
        syntax = instance.transfer_syntax_uid
        if target not in AS_STORED:
            syntax = target if instance.number_of_frames else _without_frames(target)
        try:
            chunks = transcoded_file(instance, syntax)
        except NotTranscodable:
            # This one alone can't be compressed so: bits, or samples beyond what is declared.
            syntax = ExplicitVRLittleEndian
            chunks = transcoded_file(instance, syntax)
        yield Part(f"{DICOM}; transfer-syntax={syntax}", chunks)


def _bulk_syntax(wanted: MediaRange, syntaxes: set[str]) -> str | None:
    """Give the transfer syntax in which the pixels of all instances go as a media type; None when they can't."""
    if not syntaxes:
        return None
    target = wanted.transfer_syntax
    if wanted.matches(OCTETS):
        target = ExplicitVRLittleEndian if target in AS_STORED else target
    elif target in AS_STORED:
        stored = {s for s in syntaxes if wanted.matches(FRAME_MEDIA_TYPES.get(s, ""))}
        target = stored.pop() if len(stored) == 1 and stored == syntaxes else default_syntax(wanted.media_type)
    elif not wanted.matches(FRAME_MEDIA_TYPES.get(target, "")):
        return None
    return target if target and all(can_transcode(s, target) for s in syntaxes) else None


def _pixels(
    request: HttpRequest, study: Study, instances: QuerySet[Instance], part_type: str, target: str
) -> Iterator[Part]:
    """Give the pixels of each instance: one part of uncompressed samples, or one of each compressed frame."""
    content_type = f"{part_type}; transfer-syntax={target}"
    for instance in each_with_study(instances.filter(number_of_frames__gt=0), study):
        yield from pixel_parts(instance, content_type, target, address_of(request, instance))


def address_of(request: HttpRequest, instance: Instance) -> str:
    """Give the address of an instance that knows its series and study."""
    series = instance.series
    return request.build_absolute_uri(
        f"/dicom-web/studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )


def pixel_parts(instance: Instance, content_type: str, target: str, address: str) -> Iterator[Part]:
    """Give an instance's pixels: one part of uncompressed samples, or one of each compressed frame."""
    frames = Frames(instance)
    if target == ExplicitVRLittleEndian:
        numbers = range(1, len(frames) + 1)
        # The first is decoded ahead, as what can't be is refused.
        first = [frames.little_endian(number) for number in numbers[:1]]
        content = chain(first, (frames.little_endian(number) for number in numbers[1:]))
        yield Part(content_type, content, f"{address}/bulkdata/7FE00010")
        return
    for number in range(1, len(frames) + 1):
        yield Part(content_type, [transcoded_frame(frames, number, target)], f"{address}/frames/{number}")


@may_retrieve
@answers_errors
def retrieve_frames(request: HttpRequest, frames: str, **uids: str) -> HttpResponseBase:
    """Retrieve frames, in the order and as often as asked (PS3.18 §10.4.1.1.6)."""
    numbers = frame_numbers(frames)
    instance = instance_for(request, uids, "frames")
    if not instance.number_of_frames or max(numbers) > instance.number_of_frames:
        raise not_found()
    for wanted in accepted(request):
        response = _frames(request, instance, frames, numbers, wanted)
        if response is not None:
            return response
    stored_type = FRAME_MEDIA_TYPES.get(instance.transfer_syntax_uid, OCTETS)
    raise DicomWebError(
        406, "None of the accepted forms can be given.", available=[f'multipart/related; type="{stored_type}"']
    )


def _frames(
    request: HttpRequest, instance: Instance, frames: str, numbers: list[int], wanted: MediaRange
) -> HttpResponseBase | None:
    form = form_of_frames(instance.transfer_syntax_uid, wanted)
    if form is None:
        return None
    content_type, target = form
    media_type = content_type.split(";")[0]
    is_alone = not wanted.is_multipart and len(numbers) == 1 and wanted.media_type == media_type
    etag = etag_of(bytes(instance.sha256), frames, content_type, *(["alone"] if is_alone else []))
    if knows(request, etag):
        return validated(request, HttpResponse(), etag, is_immutable=True)
    source = Frames(instance)
    try:
        # The first is read ahead: what can't be decoded is refused, not broken off.
        first = transcoded_frame(source, numbers[0], target)
    except NotTranscodable:
        return None
    leave_trace(request, instance.series.study, "frames", frames=len(numbers), octets=len(first) * len(numbers))
    if is_alone:
        return validated(request, HttpResponse(first, content_type=content_type), etag, is_immutable=True)
    rest = (Part(content_type, [transcoded_frame(source, number, target)]) for number in numbers[1:])
    response: HttpResponseBase = multipart(
        media_type, chain([Part(content_type, [first])], rest), boundary=boundary_of(etag)
    )
    if target == instance.transfer_syntax_uid and len(numbers) * len(first) <= LARGEST_WHOLE:
        response = HttpResponse(b"".join(response), content_type=response["Content-Type"])  # type: ignore[arg-type]
    return validated(request, response, etag, is_immutable=True)


def form_of_frames(syntax: str, wanted: MediaRange) -> tuple[str, str] | None:
    """Give the content type of frames and their transfer syntax; None when the range can't be met."""
    given = frame_form(syntax, wanted, has_places=True)
    if given is not None:
        return given[0], given[0].rpartition("=")[2]
    target = wanted.transfer_syntax
    if wanted.media_type == OCTETS:
        media_type = OCTETS
    else:
        target = default_syntax(wanted.media_type) if target in AS_STORED else target
        media_type = FRAME_MEDIA_TYPES.get(target, "")
        if not media_type or not wanted.matches(media_type):
            return None
    return (f"{media_type}; transfer-syntax={target}", target) if can_transcode(syntax, target) else None
