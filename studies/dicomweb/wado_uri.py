"""WADO-URI: one object by query parameters (PS3.18 §9)."""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus

from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase

from studies.access import instances_visible_to
from studies.archive import objects
from studies.archive.presentation_states import PRESENTATION_STATES, Presentation
from studies.dicomweb.errors import DicomWebError, answers_errors, not_found
from studies.dicomweb.framing import DICOM
from studies.dicomweb.looks import look_of_uri, relative_region, warns_of_annotations
from studies.dicomweb.media_types import ranges_of, with_plus
from studies.dicomweb.rendered import give_rendered, media_types_of
from studies.dicomweb.retrieval import instance_for, may_retrieve, principal_of_request
from studies.dicomweb.wado import retrieved_instance
from studies.models import Instance

# The text of what is rendered is UTF-8, of which US-ASCII is a part.
CHARSETS = {"", "utf-8", "us-ascii", "*"}


@may_retrieve
@answers_errors
@warns_of_annotations
def wado_uri(request: HttpRequest) -> HttpResponseBase:
    """Give an object as DICOM, or shown, as the first possible of ``contentType`` asks."""
    parameters = request.GET.dict()
    if parameters.get("requestType") != "WADO":
        raise DicomWebError(400, "requestType must be WADO.")
    uids = {
        "study_instance_uid": parameters.get("studyUID", ""),
        "series_instance_uid": parameters.get("seriesUID", ""),
        "sop_instance_uid": parameters.get("objectUID", ""),
    }
    if not all(uids.values()) or any("\x00" in uid for uid in uids.values()):
        raise DicomWebError(400, "studyUID, seriesUID and objectUID are needed.")
    if parameters.get("anonymize") not in {None, "", "no"}:
        if parameters["anonymize"] != "yes":
            raise DicomWebError(400, "anonymize is yes or no.")
        # What leaves here is what was stored; de-identified copies are made by export, not by a parameter.
        raise DicomWebError(501, "Objects aren't anonymized on retrieval.")
    wanted = parameters.get("contentType") or _default_type(request, uids)
    wanted = with_plus(wanted)
    first = ranges_of(wanted)
    if not first:
        raise DicomWebError(400, "contentType is a list of media types.")
    if first[0].media_type == DICOM:
        return _as_dicom(request, uids, parameters)
    return _shown(request, uids, parameters, wanted)


def _default_type(request: HttpRequest, uids: dict[str, str]) -> str:
    """Without contentType, images are given as JPEG, texts as HTML, and the rest as DICOM (PS3.18 §9.4.1.2.2)."""
    header = request.headers.get("Accept", "")
    if header and "*/*" not in header:
        return header
    is_shown = media_types_of(instance_for(request, uids, "wado"))
    return "image/jpeg, text/html, application/pdf, video/mp4, */*" if is_shown else DICOM


def _as_dicom(request: HttpRequest, uids: dict[str, str], parameters: dict[str, str]) -> HttpResponseBase:
    pictures_only = ("frameNumber", "rows", "columns", "region", "windowCenter", "windowWidth", "imageQuality")
    given = [name for name in (*pictures_only, "annotation", "presentationUID") if parameters.get(name)]
    if given:
        raise DicomWebError(400, f"{', '.join(given)}: only for pictures.")
    syntax = parameters.get("transferSyntax", "")
    request.GET = _accepting(f"{DICOM}; transfer-syntax={syntax}" if syntax else DICOM)  # type: ignore[assignment]
    try:
        return retrieved_instance(request, uids)
    except DicomWebError as error:
        if error.status == HTTPStatus.NOT_ACCEPTABLE:
            raise DicomWebError(406, str(error), available=[DICOM]) from error
        raise


def _shown(request: HttpRequest, uids: dict[str, str], parameters: dict[str, str], wanted: str) -> HttpResponseBase:
    charset = parameters.get("charset", "").lower()
    if CHARSETS.isdisjoint(part.split(";")[0].strip() for part in charset.split(",")):
        raise DicomWebError(406, "Text is given in UTF-8.", available=["utf-8"])
    instance = instance_for(request, uids, "rendered")
    numbers = []
    if parameters.get("frameNumber"):
        text = parameters["frameNumber"]
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
            raise DicomWebError(400, "frameNumber is a number from 1.")
        if int(text) > instance.number_of_frames:
            raise not_found()
        numbers = [int(text)]
    look = look_of_uri(parameters)
    region = relative_region(parameters.get("region", ""), instance.columns or 0, instance.rows or 0)
    look = replace(look, region=region, presentation=_presentation(request, instance, parameters))
    if look.presentation is not None and look.window is not None:
        raise DicomWebError(400, "A presentation state has its own window.")
    query = request.GET.copy()
    query["accept"] = wanted
    request.GET = query  # type: ignore[assignment]
    return give_rendered(request, instance, numbers, look)


def _presentation(request: HttpRequest, instance: Instance, parameters: dict[str, str]) -> Presentation | None:
    uid, series = parameters.get("presentationUID", ""), parameters.get("presentationSeriesUID", "")
    if not uid:
        return None
    states = instances_visible_to(principal_of_request(request)).filter(
        sop_instance_uid=uid, sop_class_uid__in=PRESENTATION_STATES, series__study=instance.series.study
    )
    if series:
        states = states.filter(series__series_instance_uid=series)
    state = states.first()
    if state is None:
        raise not_found()
    state.series.study = instance.series.study
    return Presentation(objects.read_dataset(state), instance.sop_instance_uid)


def _accepting(text: str) -> QueryDict:
    query = QueryDict(mutable=True)
    query["accept"] = text
    return query
