"""The non-patient instance service (PS3.18 §12): store, retrieve, search."""

from __future__ import annotations

import re
from dataclasses import replace

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import register_converter
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from accounts.capabilities import Capability
from accounts.gates import principal_of, program_capability_required
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.archive import non_patient as kept
from studies.archive import transcoding
from studies.archive.errors import NotTranscodable
from studies.archive.models import NonPatientInstance
from studies.archive.native_model import MEDIA_TYPE as DICOM_XML
from studies.dicomweb.datasets import answer_with
from studies.dicomweb.errors import DicomWebError, answers_errors, empty, not_found, warn
from studies.dicomweb.framing import DICOM, DICOM_JSON, boundary_of, etag_of
from studies.dicomweb.media_types import MediaRange, accepted, beside
from studies.dicomweb.multipart import BrokenBody
from studies.dicomweb.parameters import (
    MATCHING_FLAGS,
    NOT_KEYS_AT_A_SITE,
    THERE_ARE_MORE,
    attributes,
    flag,
    natural,
)
from studies.dicomweb.retrieval import Part, knows, multipart, validated
from studies.dicomweb.sites import site_for
from studies.dicomweb.store_answer import End, answer, retrieve_url, wants_xml
from studies.dicomweb.store_body import TooLarge, received
from studies.ingest.errors import Refusal
from studies.ingest.non_patient import CATEGORIES, store_non_patient_instance
from studies.ingest.services import Outcome, StagedFile, Status
from studies.lookups import without_retrying
from studies.matching.wildcards import pattern

MOST_RESULTS = 1000
# Compared with texts of any length, one by one.
LONGEST_KEY = 200
may_see = program_capability_required(Capability.STUDY_VIEW)
may_store = program_capability_required(Capability.STUDY_UPLOAD)


FORMS = [DICOM, f'multipart/related; type="{DICOM}"', DICOM_JSON, "application/dicom+xml"]


class CategoryConverter:
    """``<category:name>`` takes the names of the service's resources only."""

    regex = "|".join(sorted(CATEGORIES))

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(CategoryConverter, "category")


def instances(request: HttpRequest, category: str) -> HttpResponseBase:
    """Search or store."""
    return (_store if request.method == "POST" else _search)(request, category)


def instance(request: HttpRequest, category: str, sop_instance_uid: str) -> HttpResponseBase:
    """Retrieve or store one."""
    return (_store if request.method == "POST" else _retrieve)(request, category, sop_instance_uid)


@may_store
@answers_errors
def _store(request: HttpRequest, category: str, only_uid: str = "") -> HttpResponseBase:
    """Store the body's objects; give which were kept and which refused (PS3.18 §12.4.3)."""
    as_xml, site, principal = wants_xml(request), site_for(request, Capability.STUDY_UPLOAD), principal_of(request)
    outcomes: list[Outcome] = []
    end: End | None = None
    try:
        for file in received(request):
            outcomes.append(file if isinstance(file, Outcome) else _kept(file, category, site, principal, only_uid))
    except (BrokenBody, TooLarge) as error:
        end = error
    except OSError as error:
        raise DicomWebError(503, "The archive has no room to take this now; try again later.") from error
    return answer(request, outcomes, end, lambda one: f"{category}/{one.sop_instance_uid}", as_xml=as_xml)


def _kept(file: StagedFile, category: str, site: Site, principal: Principal, only_uid: str) -> Outcome:
    """Keep one object, or refuse it. Raises OSError."""
    # Told before the file is consumed, and with it what it says of itself.
    failed = file.outcome(Status.REFUSED, reason="", dicom_status=0)
    try:
        one, _ = store_non_patient_instance(
            staged=file, category=category, site=site, principal=principal, only_uid=only_uid
        )
    except Refusal as refusal:
        return replace(failed, reason=refusal.reason, dicom_status=refusal.status)
    return Outcome(Status.STORED, sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid)


@may_see
@answers_errors
def _retrieve(request: HttpRequest, category: str, sop_instance_uid: str) -> HttpResponseBase:
    """Give one object as DICOM, or its attributes as JSON or XML."""
    visible = kept.non_patient_instances_visible_to(principal_of(request), category)
    one = visible.filter(sop_instance_uid=sop_instance_uid).first()
    if one is None:
        raise not_found()
    record(
        AuditEvent.Action.RETRIEVE,
        principal=principal_of(request),
        site_id=one.site_id,
        details={"way": "wado", "category": category, "uid": one.sop_instance_uid},
    )
    for wanted in accepted(request):
        if wanted.matches(DICOM) and (response := _file(request, one, wanted)):
            return response
        is_json = not wanted.is_multipart and (wanted.matches(DICOM_JSON) or wanted.media_type == "application/json")
        if is_json or wanted.matches(DICOM_XML):
            described = answer_with(request, [one.attributes])
            return validated(request, described, etag_of(bytes(one.sha256), described["Content-Type"]))
    raise DicomWebError(406, "Objects are given as DICOM, JSON or XML.", available=beside(FORMS, accepted(request)))


def _file(request: HttpRequest, one: NonPatientInstance, wanted: MediaRange) -> HttpResponseBase | None:
    """Give the object as DICOM, alone or as a multipart message; None where it can't be in the transfer syntax."""
    stored = kept.transfer_syntax_of(one)
    target = kept.target_of(stored, wanted.transfer_syntax)
    if target is None:
        return None
    made = [] if target == stored else [str(transcoding.FORM)]
    etag = etag_of(bytes(one.sha256), target, str(wanted.is_multipart), *made)
    if knows(request, etag):
        return validated(request, HttpResponse(), etag)
    try:
        chunks = kept.file_in(one, stored, target)
    except NotTranscodable:
        return None
    content_type = f"{DICOM}; transfer-syntax={target}"
    if wanted.is_multipart:
        message = multipart(DICOM, [Part(content_type, chunks)], boundary=boundary_of(etag))
        return validated(request, message, etag)
    response = StreamingHttpResponse(chunks, content_type=content_type)
    if target == stored:
        response["Content-Length"] = str(one.object_length)
    return validated(request, response, etag)


@may_see
@answers_errors
def _search(request: HttpRequest, category: str) -> HttpResponseBase:
    """Search by any attribute of the objects' own level, single value or wildcard (PS3.18 §12.6)."""
    keys: dict[str, re.Pattern[str] | None] = {}
    for name, found in attributes(request, other_than=NOT_KEYS_AT_A_SITE):
        tag = _tag(name)
        if tag in keys or len(found) > 1:
            raise DicomWebError(400, f"«{name[:60]}» is given more than once.")
        keys[tag] = _pattern(tag, found[0])
    limit, offset = (natural(request, name, default) for name, default in (("limit", MOST_RESULTS), ("offset", 0)))
    visible = kept.non_patient_instances_visible_to(principal_of(request), category)
    # A site has tens of these, not thousands: they're compared one by one.
    matches = [one for one in visible.iterator() if all(p is None or _has(one, tag, p) for tag, p in keys.items())]
    page = matches[offset : offset + min(limit, MOST_RESULTS)]
    unsupported = [name for name in MATCHING_FLAGS if flag(request, name)]
    response = _results(request, page) if page else empty(204)
    notes = [THERE_ARE_MORE] if page and offset + len(page) < len(matches) else []
    if unsupported:
        notes.append(f"Not supported: {', '.join(unsupported)}. Only literal matching has been performed.")
    warn(request, response, *notes)
    return response


def _results(request: HttpRequest, page: list[NonPatientInstance]) -> HttpResponse:
    results = [
        {**one.attributes, "00081190": retrieve_url(request, f"{one.category}/{one.sop_instance_uid}")} for one in page
    ]
    return answer_with(request, [dict(sorted(result.items())) for result in results])


def _tag(name: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name) and keyword_for_tag(int(name, 16)):
        return name.upper()
    tag = tag_for_keyword(name) if name else None
    if tag is None:
        raise DicomWebError(400, f"«{name[:60]}» is no attribute.")
    return f"{tag:08X}"


def _pattern(tag: str, value: str) -> re.Pattern[str] | None:
    """Give what a value must be; None for any. Names alone are compared without regard to case (PS3.4 §C.2.2.2.1)."""
    if not value.strip("*"):
        return None
    if len(value) > LONGEST_KEY:
        raise DicomWebError(400, f"A key's value has at most {LONGEST_KEY} characters.")
    flags = re.DOTALL | (re.IGNORECASE if dictionary_VR(int(tag, 16)) == "PN" else re.NOFLAG)
    return re.compile(without_retrying(pattern(value)), flags)


def _has(one: NonPatientInstance, tag: str, pattern: re.Pattern[str]) -> bool:
    values = one.attributes.get(tag, {}).get("Value", [])
    texts = (v.get("Alphabetic", "") if isinstance(v, dict) else str(v) for v in values)
    return any(pattern.fullmatch(text) for text in texts)
