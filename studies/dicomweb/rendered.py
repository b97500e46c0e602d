"""WADO-RS: rendered resources and thumbnails (PS3.18 §10.4.1.1.3, §10.4.1.1.4)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from typing import IO, NamedTuple
from wsgiref.util import FileWrapper

from django.db.models import QuerySet
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from PIL import Image
from pydicom import Dataset

from portal.bodies import BrokenOff
from studies.archive import objects
from studies.archive.animations import animated, as_mp4, is_video, poster
from studies.archive.documents import OCTETS, document_of, first_page
from studies.archive.errors import NotRenderable, NotTranscodable, ObjectMissing
from studies.archive.frames import Frames
from studies.archive.presentation_states import PRESENTATION_STATES, Presentation, references
from studies.archive.rendering import Look, encoded, picture, placed
from studies.archive.structured_reports import is_report, to_html, to_text
from studies.archive.waveforms import has_waveforms, lay_out, read_traces, to_image, to_svg
from studies.dicomweb.errors import DicomWebError, answers_errors, not_found
from studies.dicomweb.framing import boundary_of
from studies.dicomweb.looks import look_of, warns_of_annotations
from studies.dicomweb.media_types import MediaRange, accepted, beside
from studies.dicomweb.retrieval import (
    Counted,
    LeftOut,
    Part,
    Retrieval,
    begun,
    content_etag,
    each_with_study,
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
from studies.dicomweb.wado_bulk import address_of
from studies.models import Instance, Study
from studies.person_names import displayed

logger = logging.getLogger("atrium.dicomweb")
THUMBNAIL_SIDE = 160
CHUNK = 1 << 18
# Of a study, so many objects are looked at for one that a picture can be made of.
MOST_LOOKED_AT = 20
STILL = ("image/jpeg", "image/png", "image/gif", "image/webp")
MOVING = ("image/gif", "image/webp", "video/mp4")
DRAWN = ("image/png", "image/jpeg", "image/svg+xml", "image/webp", "image/gif")
TEXT = ("text/html", "text/plain")
SHOWN = (*STILL, "video/mp4", *TEXT, "application/pdf", "image/svg+xml")


@may_retrieve
@answers_errors
@warns_of_annotations
def retrieve_rendered(request: HttpRequest, frames: str = "", **uids: str) -> HttpResponseBase:
    """Retrieve a picture, a film or a page of an instance, or pictures of frames (PS3.18 §10.4.1.1.3)."""
    instance = instance_for(request, uids, "rendered")
    numbers = frame_numbers(frames) if frames else []
    if numbers and max(numbers) > instance.number_of_frames:
        raise not_found()
    return give_rendered(request, instance, numbers, look_of(request.GET.dict()))


def give_rendered(request: HttpRequest, instance: Instance, numbers: list[int], look: Look) -> HttpResponseBase:
    """Give an instance in the first acceptable media type in which it can be shown. Raises DicomWebError 406."""
    available = media_types_of(instance, moving=not numbers or len(numbers) > 1)
    choice = chosen(accepted(request), available)
    if choice is None:
        raise DicomWebError(406, "It can't be shown in the accepted forms.", available=list(available))
    wanted, is_multipart = choice
    is_multipart = is_multipart or (len(numbers) > 1 and wanted not in MOVING)
    marks = (wanted, str(is_multipart), request.GET.urlencode(), str(numbers), repr(look.presentation is not None))
    etag = content_etag(instance, *marks)
    if knows(request, etag):
        return validated(request, HttpResponse(), etag)
    leave_trace(request, instance.series.study, "rendered", frames=max(len(numbers), 1))
    is_film = wanted == "video/mp4" and is_video(instance.transfer_syntax_uid)
    if is_multipart:
        each = [[number] for number in numbers] if wanted not in MOVING and numbers else [numbers]
        contents = (
            FileWrapper(_film(instance), CHUNK) if is_film else [rendered(instance, wanted, few, look)] for few in each
        )
        return validated(
            request,
            multipart(wanted, (Part(wanted, content) for content in contents), boundary=boundary_of(etag)),
            etag,
        )
    if is_film:
        return validated(request, FileResponse(_film(instance), content_type=wanted), etag)
    content = rendered(instance, wanted, numbers, look)
    response = HttpResponse(content, content_type=f"{wanted}; charset=utf-8" if wanted in TEXT else wanted)
    return validated(request, response, etag)


class Choice(NamedTuple):
    """The media type to answer in, and whether it's wanted as a part of a multipart message."""

    media_type: str
    is_multipart: bool


def chosen(ranges: list[MediaRange], available: tuple[str, ...]) -> Choice | None:
    """Give the first available media type of the most wanted range."""
    return next((Choice(t, wanted.is_multipart) for wanted in ranges for t in available if wanted.matches(t)), None)


def media_types_of(instance: Instance, *, moving: bool = True) -> tuple[str, ...]:
    """Give the media types in which an instance can be shown, the usual first; none when it can't."""
    of_pixels = _media_types_of_pixels(instance, moving=moving)
    if of_pixels:
        return of_pixels
    if instance.sop_class_uid in PRESENTATION_STATES:
        return STILL
    try:
        with _showable():
            return _media_types_of(objects.read_dataset(instance))
    except NotRenderable:
        return ()


def _media_types_of_pixels(instance: Instance | Counted, *, moving: bool = True) -> tuple[str, ...]:
    if is_video(instance.transfer_syntax_uid):
        return ("video/mp4", *STILL) if moving else STILL
    if instance.number_of_frames:
        return (*STILL, "video/mp4") if moving and instance.number_of_frames > 1 else STILL
    return ()


def _media_types_of(dataset: Dataset) -> tuple[str, ...]:
    if is_report(dataset):
        return TEXT
    if has_waveforms(dataset):
        return DRAWN
    document = document_of(dataset)
    if document is not None:
        media_type, _ = document
        return ("application/pdf", *STILL) if media_type == "application/pdf" else tuple({media_type} - {OCTETS})
    return ()


@contextmanager
def _showable() -> Iterator[None]:
    """Turn whatever broken or hostile values lead to into NotRenderable. Raises ObjectMissing."""
    try:
        yield
    except (NotRenderable, ObjectMissing):
        raise
    except Exception as error:  # pydicom and codecs raise what they will on hostile values
        # Its words may hold a patient's.
        logger.warning("an instance can't be shown: %s", type(error).__name__)
        raise NotRenderable("It can't be shown.") from error


def _film(instance: Instance) -> IO[bytes]:
    with _showable():
        return as_mp4(Frames(instance))


def rendered(instance: Instance, media_type: str, numbers: list[int], look: Look) -> bytes:
    """Give an instance, or frames of it, in one of its media types. Raises NotRenderable, ObjectMissing."""
    with _showable():
        return _rendered(instance, media_type, numbers, look)


def _rendered(instance: Instance, media_type: str, numbers: list[int], look: Look) -> bytes:
    if is_video(instance.transfer_syntax_uid):
        return encoded(poster(Frames(instance), look), media_type, look)
    if instance.number_of_frames:
        return _of_frames(Frames(instance), media_type, numbers, look)
    if instance.sop_class_uid in PRESENTATION_STATES:
        return encoded(_presented(instance, look), media_type, look)
    dataset = objects.read_dataset(instance)
    if media_type == "text/html":
        return to_html(dataset).encode()
    if media_type == "text/plain":
        return to_text(dataset).encode()
    if has_waveforms(dataset):
        sheet = lay_out(read_traces(dataset), _title(dataset))
        return to_svg(sheet) if media_type == "image/svg+xml" else _scaled(to_image(sheet), media_type, look)
    document = document_of(dataset)
    if document is None:
        raise NotRenderable("There is nothing to be shown in it.")
    if media_type not in STILL:
        return document[1]
    return _scaled(first_page(document[1], look.size), media_type, look)


def _of_frames(frames: Frames, media_type: str, numbers: list[int], look: Look) -> bytes:
    if media_type in MOVING and len(frames) > 1 and len(numbers) != 1:
        return animated(frames, numbers or list(range(1, len(frames) + 1)), media_type, look)
    return encoded(picture(frames, numbers[0] if numbers else _representative(frames), look), media_type, look)


def _representative(frames: Frames) -> int:
    number = frames.header.get("RepresentativeFrameNumber")
    return int(number) if number and 1 <= int(number) <= len(frames) else 1


def _scaled(image: Image.Image, media_type: str, look: Look) -> bytes:
    return encoded(placed(image, look), media_type, look)


def _title(dataset: Dataset) -> list[str]:
    name = displayed(str(dataset.get("PatientName", "")))
    when = " ".join(str(dataset.get(k, "")) for k in ("AcquisitionDateTime", "StudyDate")).split(" ")[0][:8]
    return ["   ".join(p for p in (name, str(dataset.get("PatientID", "")), when) if p)]


def _presented(state: Instance, look: Look) -> Image.Image:
    """Give the first image of a presentation state, as the state shows it; it must be of the same study."""
    dataset = objects.read_dataset(state)
    for reference in references(dataset):
        image = instances_of(state.series.study).filter(sop_instance_uid=reference.sop_instance_uid).first()
        if image is not None and image.number_of_frames:
            image.series.study = state.series.study
            shown = replace(look, presentation=Presentation(dataset, image.sop_instance_uid))
            return picture(Frames(image), reference.frame, shown)
    raise NotRenderable("The images of the presentation state aren't here.")


@may_retrieve
@answers_errors
@warns_of_annotations
def retrieve_rendered_study(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Retrieve all that can be shown of a study, a part for each instance."""
    return _rendered_many(request, study_for(request, study_instance_uid, "rendered"), "")


@may_retrieve
@answers_errors
@warns_of_annotations
def retrieve_rendered_series(
    request: HttpRequest, study_instance_uid: str, series_instance_uid: str
) -> HttpResponseBase:
    """Retrieve all that can be shown of a series, a part for each instance."""
    return _rendered_many(request, study_for(request, study_instance_uid, "rendered"), series_instance_uid)


def _rendered_many(request: HttpRequest, study: Study, series_instance_uid: str) -> HttpResponseBase:
    """Give all that can be shown, each in its own most wanted form; 206 with a warning where that isn't all."""
    retrieval = Retrieval.of(request, study, instances_of(study, series_instance_uid))
    look = look_of(request.GET.dict())
    ranges = accepted(request)
    if chosen(ranges, SHOWN) is None:
        raise DicomWebError(406, "It can't be shown in the accepted forms.", available=beside(SHOWN, ranges))
    wanted = [(one.media_type, *sorted(one.refused)) for one in ranges]
    etag = retrieval.etag("rendered", str(wanted), request.GET.urlencode())
    if knows(request, etag):
        return validated(request, HttpResponse(), etag)
    choices = _choices(retrieval, ranges)
    left_out = LeftOut.of(etag, [one for one in retrieval.counted if one.pk not in choices], choices)
    parts = begun(_parts(retrieval, choices, look, left_out), left_out, may_be_partial=True)
    if parts is None:
        raise DicomWebError(
            406, "There is nothing in it that can be shown in the accepted forms.", available=beside(SHOWN, ranges)
        )
    leave_trace(request, study, "rendered", instances=len(retrieval.counted) - left_out.count)
    first = next(parts)
    response = multipart(first.content_type, chain([first], parts), boundary=boundary_of(etag))
    return validated(request, say_what_is_left_out(retrieval, response, left_out), etag)


def _choices(retrieval: Retrieval, ranges: list[MediaRange]) -> dict[int, str]:
    """Give the media type of each instance that is of a kind to be shown in the accepted forms, in order."""
    types = {one.pk: _media_types_of_pixels(one) for one in retrieval.counted}
    # What is gone meanwhile is met again when the rest is shown.
    with suppress(BrokenOff):
        for instance in each_with_study([pk for pk, known in types.items() if not known], retrieval.study):
            try:
                types[instance.pk] = media_types_of(instance)
            except ObjectMissing:
                # The message is broken off for it, whatever it would have been.
                types[instance.pk] = SHOWN
    choices = ((pk, chosen(ranges, known)) for pk, known in types.items())
    return {pk: choice.media_type for pk, choice in choices if choice is not None}


def _parts(retrieval: Retrieval, choices: dict[int, str], look: Look, left_out: LeftOut) -> Iterator[Part]:
    for instance in each_with_study(list(choices), retrieval.study):
        wanted = choices[instance.pk]
        content: Iterable[bytes]
        try:
            if wanted == "video/mp4" and is_video(instance.transfer_syntax_uid):
                content = FileWrapper(_film(instance), CHUNK)
            else:
                content = [rendered(instance, wanted, [], look)]
        except NotRenderable as error:
            left_out.add(instance, NotTranscodable(str(error)))
            continue
        except ObjectMissing as error:
            content = _missing(error)
        yield Part(wanted, content, f"{address_of(retrieval.request, instance)}/rendered")


def _missing(error: ObjectMissing) -> Iterator[bytes]:
    """Give the content of a part that can't be read, for the message to be broken off after the rest."""
    yield from ()
    raise error


def _pictured(instances: QuerySet[Instance], study: Study) -> Iterator[Instance]:
    """Give the instances that may stand for many, the best first: the middle one of the images, and those after it.

    Without images, all that there are.
    """
    images = instances.filter(number_of_frames__gt=0)
    count = images.count()
    middle = count // 2
    # Each is a query of its own, made when it's come to.
    slices = [(middle, middle + 1), (middle + 1, middle + MOST_LOOKED_AT), (0, min(middle, MOST_LOOKED_AT))]
    each = chain.from_iterable(images[start:end] for start, end in slices) if count else instances[:MOST_LOOKED_AT]
    for instance in islice(each, MOST_LOOKED_AT):
        instance.series.study = study
        yield instance


@may_retrieve
@answers_errors
@warns_of_annotations
def retrieve_thumbnail(
    request: HttpRequest,
    study_instance_uid: str,
    series_instance_uid: str = "",
    sop_instance_uid: str = "",
    frames: str = "",
) -> HttpResponseBase:
    """Retrieve a small picture of a study, series, instance or frame (PS3.18 §10.4.1.1.4).

    A study or series is shown by the instance in its middle, or by the next that can be drawn.
    """
    study = study_for(request, study_instance_uid, "thumbnail")
    instances = instances_of(study, series_instance_uid)
    if sop_instance_uid:
        instances = instances.filter(sop_instance_uid=sop_instance_uid)
    numbers = frame_numbers(frames)[:1] if frames else []
    failure: Exception = not_found()
    for instance in _pictured(instances, study):
        try:
            return _thumbnail(request, instance, numbers)
        except NotRenderable as error:
            failure = error
    raise failure


def _thumbnail(request: HttpRequest, instance: Instance, numbers: list[int]) -> HttpResponseBase:
    """Give a small picture of an instance, or of its frame. Raises NotRenderable, DicomWebError."""
    if numbers and numbers[0] > instance.number_of_frames:
        raise not_found()
    look = look_of(request.GET.dict())
    look = replace(look, size=look.size or (THUMBNAIL_SIDE, THUMBNAIL_SIDE), region=None)
    if not numbers and instance.number_of_frames > 1 and not is_video(instance.transfer_syntax_uid):
        numbers = [instance.number_of_frames // 2 + 1]
    available = tuple(t for t in media_types_of(instance, moving=False) if t in STILL)
    if not available:
        raise NotRenderable("There is no picture of it.")
    choice = chosen(accepted(request), available)
    if choice is None:
        raise DicomWebError(406, "There is no thumbnail in the accepted forms.", available=list(available))
    wanted, is_multipart = choice
    etag = content_etag(instance, "thumbnail", wanted, str(is_multipart), request.GET.urlencode(), str(numbers))
    if knows(request, etag):
        return validated(request, HttpResponse(), etag)
    content = rendered(instance, wanted, numbers, look)
    if is_multipart:
        return validated(request, multipart(wanted, [Part(wanted, [content])], boundary=boundary_of(etag)), etag)
    return validated(request, HttpResponse(content, content_type=wanted), etag)
