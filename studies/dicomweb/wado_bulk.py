"""WADO-RS: all bulk data, or all pixel data, of a study, series or instance (PS3.18 §10.4.1.1.5, §10.4.1.1.6)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from pydicom.uid import ExplicitVRLittleEndian

from studies.archive import objects
from studies.archive.bulk import PIXELS, bulk_value
from studies.archive.codecs import UNCOMPRESSED
from studies.archive.errors import NotTranscodable
from studies.archive.frames import Frames
from studies.archive.metadata import FORM, instance_metadata
from studies.archive.transcoding import can_transcode, transcoded_frame, uncompressed_pixels
from studies.dicomweb.errors import DicomWebError, answers_errors, not_found
from studies.dicomweb.framing import AS_STORED, NOT_ON_THE_WEB, OCTETS, boundary_of, frame_form
from studies.dicomweb.media_types import DEFAULT_SYNTAXES, FRAME_MEDIA_TYPES, MediaRange, default_syntax
from studies.dicomweb.retrieval import (
    LeftOut,
    Part,
    Retrieval,
    begun,
    each_with_study,
    first_possible,
    instances_of,
    knows,
    may_retrieve,
    multipart,
    say_what_is_left_out,
    study_for,
    validated,
)
from studies.models import Instance, Study

# The content type of frames, and their transfer syntax.
Form = tuple[str, str]


@may_retrieve
@answers_errors
def retrieve_bulkdata_of(request: HttpRequest, study_instance_uid: str, **uids: str) -> HttpResponseBase:
    """Retrieve every binary value, pixels and others, a part for each (PS3.18 §10.4.3.3.5)."""
    return _retrieve(request, study_for(request, study_instance_uid, "bulkdata"), uids, with_others=True)


@may_retrieve
@answers_errors
def retrieve_pixeldata(request: HttpRequest, study_instance_uid: str, **uids: str) -> HttpResponseBase:
    """Retrieve the pixels alone."""
    return _retrieve(request, study_for(request, study_instance_uid, "pixeldata"), uids, with_others=False)


def _retrieve(request: HttpRequest, study: Study, uids: dict[str, str], *, with_others: bool) -> HttpResponseBase:
    instances = instances_of(study, uids.get("series_instance_uid", ""))
    if "sop_instance_uid" in uids:
        instances = instances.filter(sop_instance_uid=uids["sop_instance_uid"])
    retrieval = Retrieval.of(request, study, instances)
    syntaxes = retrieval.syntaxes_of_pixels
    if not (syntaxes or with_others):
        raise not_found()
    response = first_possible(
        request,
        lambda wanted, may_be_partial: bulk_in_form(
            retrieval, wanted, with_others=with_others, may_be_partial=may_be_partial
        ),
    )
    if response is not None:
        return response
    if not (syntaxes or has_other_values(retrieval)):
        raise not_found()
    available = sorted({FRAME_MEDIA_TYPES.get(syntax, OCTETS) for syntax in syntaxes} or {OCTETS})
    raise DicomWebError(
        406,
        "None of the accepted forms can be given.",
        available=[f'multipart/related; type="{media_type}"' for media_type in available],
    )


def has_other_values(retrieval: Retrieval) -> bool:
    """Say whether there is any binary value but pixels."""
    each = each_with_study(retrieval.ids, retrieval.study)
    return any(next(_other_parts(one, MediaRange("*/*"), ""), None) for one in each)


def bulk_in_form(
    retrieval: Retrieval, wanted: MediaRange, *, with_others: bool, may_be_partial: bool
) -> HttpResponseBase | None:
    """Give the pixels, and other binary values, of all instances in one acceptable form; None when they can't be."""
    if wanted.transfer_syntax in NOT_ON_THE_WEB:
        return None
    forms = {syntax: form_of_frames(syntax, wanted) for syntax in retrieval.syntaxes_of_pixels}
    # What is given follows from these, from the instances, and from what their metadata name.
    marks = (
        "bulk",
        str(with_others),
        str(FORM),
        wanted.media_type,
        *sorted(wanted.refused),
        str(sorted(forms.items(), key=str)),
    )
    etag = retrieval.etag(*marks)
    if knows(retrieval.request, etag):
        return validated(retrieval.request, HttpResponse(), etag)
    missing = [one for one in retrieval.counted if one.number_of_frames and forms[one.transfer_syntax_uid] is None]
    left_out = LeftOut.of(etag, missing, retrieval.ids)
    parts = begun(
        _all_parts(retrieval, wanted, forms, left_out, with_others=with_others), left_out, may_be_partial=may_be_partial
    )
    if parts is None:
        return None
    retrieval.leave_trace(left_out)
    first = next(parts)
    media_type = first.content_type.split(";")[0]
    response = multipart(media_type, chain([first], parts), boundary=boundary_of(etag))
    return validated(retrieval.request, say_what_is_left_out(retrieval, response, left_out), etag)


def _all_parts(
    retrieval: Retrieval,
    wanted: MediaRange,
    forms: dict[str, Form | None],
    left_out: LeftOut,
    *,
    with_others: bool = True,
) -> Iterator[Part]:
    for instance in each_with_study(retrieval.ids, retrieval.study):
        address = address_of(retrieval.request, instance)
        form = forms.get(instance.transfer_syntax_uid)
        if instance.number_of_frames and form is not None:
            yield from _pixel_parts(instance, *form, address, left_out)
        if with_others:
            yield from _other_parts(instance, wanted, address)


def _pixel_parts(instance: Instance, content_type: str, target: str, address: str, left_out: LeftOut) -> Iterator[Part]:
    """Give an instance's pixels: one part of uncompressed samples, or one of each compressed frame.

    A frame that can't be decoded is left out; where all are one part, that part is, and so its frames are decoded
    before its head is sent: none is shorter than the pixels are.
    """
    frames = Frames(instance)
    if target == ExplicitVRLittleEndian:
        try:
            content = uncompressed_pixels(frames)
        except NotTranscodable as error:
            left_out.add(instance, error)
        else:
            yield Part(content_type, content, f"{address}/bulkdata/{frames.pixel_path}")
        return
    for number in range(1, len(frames) + 1):
        try:
            frame = transcoded_frame(frames, number, target)
        except NotTranscodable as error:
            left_out.add(instance, error)
        else:
            yield Part(content_type, [frame], f"{address}/frames/{number}")


def _other_parts(instance: Instance, wanted: MediaRange, address: str) -> Iterator[Part]:
    for path in _paths(instance_metadata(instance, objects.read_dataset(instance))):
        if path in PIXELS:
            continue
        value = bulk_value(instance, path)
        kind = value.media_type if wanted.matches(value.media_type) else OCTETS
        if wanted.matches(kind):
            yield Part(kind, value.read(0, value.length), f"{address}/bulkdata/{path}")


def _paths(content: dict[str, Any]) -> Iterator[str]:
    """Give the paths of all values that the metadata names by address."""
    for element in content.values():
        if "BulkDataURI" in element:
            yield element["BulkDataURI"].rpartition("/")[2]
        for item in element.get("Value", ()) if element["vr"] == "SQ" else ():
            yield from _paths(item)


def address_of(request: HttpRequest, instance: Instance) -> str:
    """Give the address of an instance that knows its series and study."""
    series = instance.series
    return request.build_absolute_uri(
        f"/dicom-web/studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )


def form_of_frames(syntax: str, wanted: MediaRange) -> Form | None:
    """Give the content type of frames and their transfer syntax; None when the range can't be met.

    As stored where the range takes that; a wildcard else stands for octets, and then for each image media type in its
    default transfer syntax (PS3.18 §8.7.3.5.1, Table 8.7.3-5).
    """
    given = frame_form(syntax, wanted, has_places=True)
    if given is not None:
        forms = [(given[0], given[0].rpartition("=")[2])]
    else:
        forms = [(f"{media_type}; transfer-syntax={target}", target) for media_type, target in _forms_in_range(wanted)]
    return next((form for form in forms if can_transcode(syntax, form[1])), None)


def _forms_in_range(wanted: MediaRange) -> Iterator[tuple[str, str]]:
    target = wanted.transfer_syntax
    if target in AS_STORED:
        types = (OCTETS, *DEFAULT_SYNTAXES) if "*" in wanted.media_type else (wanted.media_type,)
        for media_type in types:
            syntax = ExplicitVRLittleEndian if media_type == OCTETS else default_syntax(media_type)
            if syntax and wanted.matches(media_type):
                yield media_type, syntax
    elif target in FRAME_MEDIA_TYPES and wanted.matches(FRAME_MEDIA_TYPES[target]):
        yield FRAME_MEDIA_TYPES[target], target
    elif wanted.matches(OCTETS) and (target == ExplicitVRLittleEndian or target not in UNCOMPRESSED):
        yield OCTETS, target
