"""WADO-RS: all bulk data, or all pixel data, of a study, series or instance (PS3.18 §10.4.1.1.5, §10.4.1.1.6)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from studies.archive import objects
from studies.archive.bulk import PIXELS, bulk_value
from studies.archive.metadata import instance_metadata
from studies.dicomweb.errors import DicomWebError, answers_errors, not_found
from studies.dicomweb.framing import OCTETS, boundary_of
from studies.dicomweb.media_types import MediaRange, accepted
from studies.dicomweb.retrieval import (
    Part,
    each_with_study,
    instances_of,
    knows,
    leave_trace,
    may_retrieve,
    multipart,
    study_etag,
    study_for,
    validated,
)
from studies.dicomweb.wado import address_of, form_of_frames, pixel_parts
from studies.models import Instance, Study

AVAILABLE = [f'multipart/related; type="{OCTETS}"']


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
    counted = list(instances.order_by().values_list("transfer_syntax_uid", "number_of_frames", "object_length"))
    syntaxes = {syntax for syntax, frames, _ in counted if frames}
    if not counted or not (syntaxes or with_others):
        raise not_found()
    for wanted in accepted(request):
        forms = {syntax: form_of_frames(syntax, wanted) for syntax in syntaxes}
        if None in forms.values() or not (forms or wanted.matches(OCTETS)):
            continue
        etag = study_etag(
            study,
            instances,
            str(with_others),
            wanted.media_type,
            wanted.transfer_syntax,
            uids.get("sop_instance_uid", ""),
        )
        if knows(request, etag):
            return validated(request, HttpResponse(), etag)
        leave_trace(request, study, "wado", instances=len(counted), octets=sum(length for *_, length in counted))
        parts = chain.from_iterable(
            _parts(request, instance, wanted, forms, with_others=with_others)
            for instance in each_with_study(instances, study)
        )
        first = next(parts, None)
        if first is None:
            raise not_found()
        part_type = first.content_type.split(";")[0]
        return validated(request, multipart(part_type, chain([first], parts), boundary=boundary_of(etag)), etag)
    raise DicomWebError(406, "None of the accepted forms can be given.", available=AVAILABLE)


def _parts(
    request: HttpRequest,
    instance: Instance,
    wanted: MediaRange,
    forms: dict[str, tuple[str, str] | None],
    *,
    with_others: bool,
) -> Iterator[Part]:
    form = forms.get(instance.transfer_syntax_uid)
    if instance.number_of_frames and form is not None:
        yield from pixel_parts(instance, *form, address_of(request, instance))
    if not with_others:
        return
    for path in _paths(instance_metadata(instance, objects.read_dataset(instance))):
        if path == PIXELS:
            continue
        value = bulk_value(instance, path)
        kind = value.media_type if wanted.matches(value.media_type) else OCTETS
        if wanted.matches(kind):
            yield Part(kind, value.read(0, value.length), f"{address_of(request, instance)}/bulkdata/{path}")


def _paths(content: dict[str, Any]) -> Iterator[str]:
    """Give the paths of all values that the metadata names by address."""
    for element in content.values():
        if "BulkDataURI" in element:
            yield element["BulkDataURI"].rpartition("/")[2]
        for item in element.get("Value", ()) if element["vr"] == "SQ" else ():
            yield from _paths(item)
