"""WADO-RS: instances and frames (PS3.18 §10.4.1.1.1, §10.4.1.1.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import NoReturn

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from pydicom.uid import ExplicitVRLittleEndian

from studies.archive import transcoding
from studies.archive.ahead import made_ahead
from studies.archive.codecs import UNCOMPRESSED
from studies.archive.errors import NotTranscodable
from studies.archive.frames import Frames
from studies.archive.transcoding import transcoded_frame, whole_file
from studies.dicomweb.as_stored import as_stored
from studies.dicomweb.errors import DicomWebError, answers_errors, not_found
from studies.dicomweb.framing import (
    DICOM,
    LARGEST_WHOLE,
    OCTETS,
    boundary_of,
    etag_of,
    file_syntax,
    file_type,
    is_alone,
)
from studies.dicomweb.media_types import DEFAULT_SYNTAXES, FRAME_MEDIA_TYPES, MediaRange, accepted, beside, ranges_of
from studies.dicomweb.retrieval import (
    Counted,
    LeftOut,
    Part,
    Retrieval,
    begun,
    content_etag,
    each_stored_file,
    each_with_study,
    first_possible,
    frame_numbers,
    instance_for,
    instances_of,
    knows,
    leave_trace,
    may_retrieve,
    multipart,
    say_what_is_left_out,
    study_for,
    validated,
)
from studies.dicomweb.wado_bulk import bulk_in_form, form_of_frames, has_other_values
from studies.dicomweb.zipped import ZIP, File, zipped
from studies.models import Instance

MESSAGES = (f'multipart/related; type="{DICOM}"', f'multipart/related; type="{DICOM}"; transfer-syntax=*')
ALONE = (DICOM, f"{DICOM}; transfer-syntax=*")
VALUES = f'multipart/related; type="{OCTETS}"'


@may_retrieve
@answers_errors
def retrieve_study(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Retrieve all instances of a study (PS3.18 Table 10.4.1-1)."""
    return retrieved(request, study_instance_uid)


@may_retrieve
@answers_errors
def retrieve_series(request: HttpRequest, study_instance_uid: str, series_instance_uid: str) -> HttpResponseBase:
    """Retrieve all instances of a series."""
    return retrieved(request, study_instance_uid, series_instance_uid)


def retrieved(request: HttpRequest, study_instance_uid: str, series_instance_uid: str = "") -> HttpResponseBase:
    """Give all instances of a study, or of one of its series. Raises DicomWebError, Study.DoesNotExist."""
    study = study_for(request, study_instance_uid, "wado")
    retrieval = Retrieval.of(request, study, instances_of(study, series_instance_uid))
    return first_possible(request, partial(_in_form, retrieval)) or _refuse(retrieval)


@may_retrieve
@answers_errors
def retrieve_instance(request: HttpRequest, **uids: str) -> HttpResponseBase:
    """Retrieve one instance, as a multipart message or alone."""
    return retrieved_instance(request, uids)


def retrieved_instance(request: HttpRequest, uids: dict[str, str]) -> HttpResponseBase:
    """Give one instance in the most wanted form. Raises DicomWebError."""
    instance = instance_for(request, uids, "wado")
    retrieval = Retrieval(request, instance.series.study, [_counted(instance)])

    def give(wanted: MediaRange, may_be_partial: bool) -> HttpResponseBase | None:
        if is_alone(wanted, DICOM) and wanted.matches(DICOM):
            return None if may_be_partial else _alone(request, instance, wanted.transfer_syntax)
        return _in_form(retrieval, wanted, may_be_partial)

    return first_possible(request, give) or _refuse(retrieval, *ALONE)


def _counted(instance: Instance) -> Counted:
    return Counted(
        *(instance.pk, instance.series_id, instance.series.revision),
        *(instance.transfer_syntax_uid, instance.number_of_frames, instance.object_length),
    )


def _refuse(retrieval: Retrieval, *alone: str) -> NoReturn:
    forms = [*MESSAGES, *alone, ZIP]
    (octets,) = ranges_of(VALUES)
    if any(form_of_frames(one, octets) for one in retrieval.syntaxes_of_pixels) or has_other_values(retrieval):
        forms.append(VALUES)
    available = beside(forms, accepted(retrieval.request))
    raise DicomWebError(406, "None of the accepted forms can be given.", available=available)


def _alone(request: HttpRequest, instance: Instance, asked: str) -> HttpResponseBase | None:
    syntax = file_syntax(instance.transfer_syntax_uid, asked, has_frames=bool(instance.number_of_frames))
    if syntax is None:
        return None
    is_stored = syntax == instance.transfer_syntax_uid
    etag = content_etag(instance) if is_stored else content_etag(instance, syntax, str(transcoding.FORM))
    if knows(request, etag):
        return validated(request, HttpResponse(), etag)
    try:
        file = _file(instance, syntax, asked)
    except NotTranscodable:
        return None
    leave_trace(request, instance.series.study, "wado", instances=1, octets=instance.object_length)
    content_type = file_type(file.syntax, asked)
    response: HttpResponseBase
    if is_stored and instance.object_length <= LARGEST_WHOLE:
        response = HttpResponse(b"".join(file.chunks), content_type=content_type)
    else:
        response = StreamingHttpResponse(file.chunks, content_type=content_type)
    return validated(request, response, etag)


def _in_form(retrieval: Retrieval, wanted: MediaRange, may_be_partial: bool) -> HttpResponseBase | None:
    """Give many instances in one acceptable form, or None when they can't be had in it.

    Octets are what the Bulkdata resource gives, images its pixels (PS3.18 §10.4.4).
    """
    is_zip = wanted.media_type == ZIP and not wanted.is_multipart
    if not is_zip and not wanted.matches(DICOM):
        return bulk_in_form(retrieval, wanted, with_others=True, may_be_partial=may_be_partial)
    request, study = retrieval.request, retrieval.study
    # The archive is as it was stored, unless asked.
    asked = "*" if is_zip and not wanted.transfer_syntax else wanted.transfer_syntax
    kinds = [(one, (one.transfer_syntax_uid, one.number_of_frames > 0)) for one in retrieval.counted]
    syntaxes = {kind: file_syntax(kind[0], asked, has_frames=kind[1]) for kind in {kind for _, kind in kinds}}
    is_stored = all(kind[0] == syntax for kind, syntax in syntaxes.items())
    marks = [] if is_stored else [str(transcoding.FORM)]
    etag = retrieval.etag(ZIP if is_zip else DICOM, asked or "by default", *marks)
    # The archive's own times are those of its making.
    etag = f"W/{etag}" if is_zip else etag
    if knows(request, etag):
        return validated(request, HttpResponse(), etag)
    if is_stored and not is_zip and not study.corrections:
        response = as_stored(retrieval.counted, each_stored_file(retrieval.ids, study), boundary_of(etag))
        retrieval.leave_trace(LeftOut())
        return validated(request, response, etag)
    left_out = LeftOut.of(etag, [one for one, kind in kinds if syntaxes[kind] is None], retrieval.ids)
    each = each_with_study(retrieval.ids, study, with_attributes=is_zip)
    files = begun(_files(each, asked, syntaxes, left_out), left_out, may_be_partial=may_be_partial)
    if files is None:
        return None
    message = zipped(study, files) if is_zip else _message(files, etag)
    retrieval.leave_trace(left_out)
    return validated(request, say_what_is_left_out(retrieval, message, left_out), etag)


def _message(files: Iterable[File], etag: str) -> StreamingHttpResponse:
    """Give files as the parts of one message."""
    parts = (Part(f"{DICOM}; transfer-syntax={file.syntax}", file.chunks) for file in files)
    return multipart(DICOM, parts, boundary=boundary_of(etag))


def _files(
    instances: Iterator[Instance], asked: str, syntaxes: dict[tuple[str, bool], str | None], left_out: LeftOut
) -> Iterator[File]:
    """Give each file that can be given; what is found damaged is left out as a whole, and never cut short."""
    for instance in instances:
        syntax = syntaxes.get((instance.transfer_syntax_uid, instance.number_of_frames > 0))
        if syntax is None:
            continue
        # One alone may not be compressed as the others are: bits, or samples beyond what is declared.
        for possible in dict.fromkeys((syntax, ExplicitVRLittleEndian)):
            try:
                file = _file(instance, possible, asked)
            except NotTranscodable as error:
                failure = error
            else:
                yield file
                break
        else:
            left_out.add(instance, failure)


def _file(instance: Instance, syntax: str, asked: str) -> File:
    """Give a file whose every frame can be given. Raises NotTranscodable."""
    try:
        return File(instance, syntax, whole_file(instance, syntax))
    except NotTranscodable:
        if asked:
            raise
    # By default, what's too long for Explicit VR Little Endian (PS3.18 §8.7.3.5.2) or damaged comes as it's stored.
    return File(instance, instance.transfer_syntax_uid, whole_file(instance, instance.transfer_syntax_uid))


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
    syntax = instance.transfer_syntax_uid
    types = dict.fromkeys((FRAME_MEDIA_TYPES.get(syntax, OCTETS), OCTETS, *DEFAULT_SYNTAXES))
    given = [one for one in types if form_of_frames(syntax, MediaRange(one, is_multipart=True)) is not None]
    available = beside((f'multipart/related; type="{one}"' for one in given), accepted(request))
    raise DicomWebError(406, "None of the accepted forms can be given.", available=available)


def _frames(
    request: HttpRequest, instance: Instance, frames: str, numbers: list[int], wanted: MediaRange
) -> HttpResponseBase | None:
    form = form_of_frames(instance.transfer_syntax_uid, wanted)
    if form is None:
        return None
    content_type, target = form
    media_type = content_type.split(";")[0]
    is_single = len(numbers) == 1 and is_alone(wanted, media_type)
    etag = etag_of(bytes(instance.sha256), frames, content_type, *(["alone"] if is_single else []))
    if knows(request, etag):
        return validated(request, HttpResponse(), etag, is_immutable=True)
    source = Frames(instance)
    make = partial(_each_frame, source, numbers, target)
    try:
        # Parts are told apart by their order alone: none may be missing, and what can't be decoded is refused.
        made = make() if len(numbers) == 1 or _is_read(instance, target) else made_ahead(make)
        first = next(made)
    except NotTranscodable:
        return None
    leave_trace(request, instance.series.study, "frames", frames=len(numbers), octets=len(first) * len(numbers))
    if is_single:
        return validated(request, HttpResponse(first, content_type=content_type), etag, is_immutable=True)
    parts = (Part(content_type, [frame]) for frame in chain([first], made))
    response: HttpResponseBase = multipart(media_type, parts, boundary=boundary_of(etag))
    if target == instance.transfer_syntax_uid and len(numbers) * len(first) <= LARGEST_WHOLE:
        response = HttpResponse(b"".join(response), content_type=response["Content-Type"])  # type: ignore[arg-type]
    return validated(request, response, etag, is_immutable=True)


def _each_frame(source: Frames, numbers: list[int], target: str) -> Iterator[bytes]:
    return (transcoded_frame(source, number, target) for number in numbers)


def _is_read(instance: Instance, target: str) -> bool:
    """Say whether frames are ranges of storage, which can't break as codecs do."""
    is_native = instance.transfer_syntax_uid in UNCOMPRESSED and target == ExplicitVRLittleEndian
    return is_native or (target == instance.transfer_syntax_uid and instance.frame_offsets is not None)
