"""The answer to a store request: what became of each instance (PS3.18 §10.5.3, §12.4.3, Annex I)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from studies.archive.native_model import to_native_xml
from studies.dicomweb.errors import DicomWebError
from studies.dicomweb.framing import DICOM_JSON
from studies.dicomweb.media_types import accepted
from studies.dicomweb.multipart import BrokenBody, SilentSender
from studies.dicomweb.store_body import TooLarge
from studies.dicomweb.store_metadata import DICOM_XML
from studies.ingest.errors import CANNOT_UNDERSTAND, COERCED, OUT_OF_RESOURCES, PROCESSING_FAILURE
from studies.ingest.services import Outcome, Status
from studies.tag_order import in_tag_order

WARNINGS = {
    0xB000: "Kept as a second version",
    0xB006: "Elements that don't belong there were left out",
    0xB007: "The file meta information names another instance or class",
}


class TooManyRefused(Exception):
    """So many parts were refused that the rest of the body isn't read."""


End = BrokenBody | TooLarge | TooManyRefused


def wants_xml(request: HttpRequest) -> bool:
    """Say in which form the answer is wanted, before anything is stored. Raises DicomWebError."""
    for wanted in accepted(request):
        if wanted.matches(DICOM_JSON) or wanted.media_type == "application/json":
            return False
        if wanted.matches(DICOM_XML):
            return True
    raise DicomWebError(406, "The answer can be given as DICOM JSON or XML.", available=[DICOM_JSON, DICOM_XML])


def answer(
    request: HttpRequest,
    outcomes: list[Outcome],
    end: End | None,
    path_of: Callable[[Outcome], str],
    *,
    as_xml: bool,
) -> HttpResponseBase:
    """Give the store instances response; ``end`` is what ended the body before its end, ``path_of`` where one lies.

    Raises DicomWebError where there's no instance to tell of, and where only room is wanting.
    """
    if isinstance(end, TooLarge) and not any(o.is_in for o in outcomes):
        raise DicomWebError(413, str(end))
    if end is not None:
        if not outcomes:
            raise DicomWebError(408 if isinstance(end, SilentSender) else 400, str(end))
        status = CANNOT_UNDERSTAND if isinstance(end, BrokenBody) else OUT_OF_RESOURCES
        outcomes = [*outcomes, Outcome(Status.FAILED, reason=str(end), dicom_status=status)]
    if not outcomes:
        raise DicomWebError(400, "The body has no part.")
    if all(_lacked_room(o) and not o.sop_instance_uid for o in outcomes):
        raise DicomWebError(503, "The archive has no room to take this now; try again later.")
    stored = [o for o in outcomes if o.is_in]
    failed = [o for o in outcomes if not o.is_in and o.sop_instance_uid]
    # What can't even be named is told of apart (PS3.18 §I.1, Other Failures Sequence).
    nameless = [o for o in outcomes if not o.is_in and not o.sop_instance_uid]
    study, *others = {o.study_instance_uid for o in stored} or {""}
    content = _present(
        {
            "00081190": retrieve_url(request, f"studies/{study}") if study and not others else {"vr": "UR"},
            "00081198": _sequence([_identity(o) | _failure(o) for o in failed]),
            "00081199": _sequence([_stored(o, retrieve_url(request, path_of(o))) for o in stored]),
            "0008119A": _sequence([_failure(o) for o in nameless]),
        }
    )
    if not stored:
        code = 409
    elif failed or nameless or any(_warning(o) for o in stored):
        code = 202
    else:
        code = 200
    if as_xml:
        return HttpResponse(to_native_xml(content), status=code, content_type=DICOM_XML)
    return JsonResponse(content, status=code, content_type=DICOM_JSON)


def retrieve_url(request: HttpRequest, path: str) -> dict[str, Any]:
    """Give the Retrieve URL (0008,1190) of what lies at a path below the root."""
    return {"vr": "UR", "Value": [request.build_absolute_uri(f"/dicom-web/{path}")]}


def _lacked_room(outcome: Outcome) -> bool:
    """Say whether a later try may succeed, which it can't for what is too large."""
    return outcome.status is Status.FAILED and outcome.dicom_status == OUT_OF_RESOURCES


def _warning(outcome: Outcome) -> int:
    return COERCED if outcome.status is Status.CONFLICT else outcome.warning


def _identity(outcome: Outcome) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [outcome.sop_class_uid]} if outcome.sop_class_uid else {"vr": "UI"},
        "00081155": {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _stored(outcome: Outcome, url: dict[str, Any]) -> dict[str, Any]:
    item = _identity(outcome) | {"00081190": url}
    warning = _warning(outcome)
    if warning:
        item["00000902"] = {"vr": "LO", "Value": [WARNINGS[warning][:64]]}
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return item


def _failure(outcome: Outcome) -> dict[str, Any]:
    return {
        "00000902": {"vr": "LO", "Value": [outcome.reason[:64]]},
        "00081197": {"vr": "US", "Value": [outcome.dicom_status or PROCESSING_FAILURE]},
    }


def _sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items} if items else {}


def _present(attributes: dict[str, Any]) -> dict[str, Any]:
    """Give what there is, by ascending tag."""
    return in_tag_order({tag: element for tag, element in attributes.items() if element})
