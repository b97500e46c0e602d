"""Findings from the viewer for the report: measurements and key images, their list and their pictures."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of, problem, program_capability_required
from studies.access import visible_study
from studies.findings.errors import FindingError, NotAllowed
from studies.findings.models import ImageFinding
from studies.findings.selectors import SIGNED, findings_of
from studies.findings.services import Place, Quantity, Viewport, keep_key_image, keep_measurement, remove_finding
from studies.models import Study

LARGEST_BODY = 6 << 20
may_read = capability_required(Capability.REPORT_READ, Capability.REPORT_WRITE)


def _study(request: HttpRequest, study_instance_uid: str) -> Study:
    """Pass the gate. Raises Http404, also for one who may see the study but no report."""
    principal = principal_of(request)
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    if not any(principal.may(c, study.site_id) for c in (Capability.REPORT_READ, Capability.REPORT_WRITE)):
        raise Http404
    return study


@require_http_methods(["GET", "POST"])
@may_read
def findings(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Show the study's findings; with POST keep one that the viewer sent as JSON."""
    study = _study(request, study_instance_uid)
    if request.method == "POST":
        return _keep(request, study)
    response = render(request, "viewer/_findings.html", _context(request, study))
    response["Cache-Control"] = "no-store"
    return response


def _context(request: HttpRequest, study: Study) -> dict[str, Any]:
    principal = principal_of(request)
    return {
        "study": study,
        "findings": findings_of(principal, study),
        "is_signed": study.status in SIGNED,
        "may_write": principal.may(Capability.REPORT_WRITE, study.site_id),
    }


@program_capability_required(Capability.REPORT_WRITE)
def _keep(request: HttpRequest, study: Study) -> HttpResponseBase:
    try:
        if int(request.headers.get("Content-Length") or 0) > LARGEST_BODY:
            return problem(413, "The picture is too large.")
        sent = json.loads(request.read())
        place = Place(str(sent["sop"])[:64], int(sent.get("frame") or 1))
        if sent.get("picture"):
            kept, before = _key_image(request, study, place, sent), None
        else:
            kept, before = _measurement(request, study, place, sent)
    except NotAllowed as error:
        return problem(403, str(error))
    except FindingError as error:
        return problem(422, str(error))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return problem(400, "That is no finding.")
    return JsonResponse({**_told(kept), "before": _told(before) if before else None})


def _told(finding: ImageFinding) -> dict[str, Any]:
    return {"id": finding.pk, "text": finding.text, "label": finding.label, "place": finding.place}


def _measurement(
    request: HttpRequest, study: Study, place: Place, sent: dict[str, Any]
) -> tuple[ImageFinding, ImageFinding | None]:
    values = [Quantity(str(v["name"]), float(v["value"]), str(v["unit"])) for v in sent["values"]]
    return keep_measurement(
        study=study,
        principal=principal_of(request),
        tracking_identifier=str(sent["uid"]),
        place=place,
        label=str(sent.get("label") or ""),
        values=values,
    )


def _key_image(request: HttpRequest, study: Study, place: Place, sent: dict[str, Any]) -> ImageFinding:
    viewport = Viewport(
        picture=base64.b64decode(sent["picture"].partition(",")[2], validate=True),
        window_center=_float(sent.get("windowCenter")),
        window_width=_float(sent.get("windowWidth")),
        label=str(sent.get("label") or ""),
    )
    return keep_key_image(
        study=study,
        principal=principal_of(request),
        tracking_identifier=str(sent["uid"]),
        place=place,
        viewport=viewport,
    )


def _float(value: Any) -> float | None:
    return None if value is None else max(-1e9, min(float(value), 1e9))


@require_POST
@may_read
def remove(request: HttpRequest, study_instance_uid: str, pk: int) -> HttpResponse:
    """Take a finding out of the list."""
    study = _study(request, study_instance_uid)
    finding = get_object_or_404(findings_of(principal_of(request), study), pk=pk)
    try:
        remove_finding(finding=finding, principal=principal_of(request))
    except NotAllowed as error:
        raise Http404 from error
    return render(request, "viewer/_findings.html", _context(request, study))


@require_GET
@may_read
def picture(request: HttpRequest, study_instance_uid: str, pk: int) -> HttpResponse:
    """Give a key image's picture."""
    study = _study(request, study_instance_uid)
    finding = get_object_or_404(findings_of(principal_of(request), study), pk=pk, picture__isnull=False)
    response = HttpResponse(bytes(finding.picture), content_type="image/jpeg")  # type: ignore[arg-type]
    response["Cache-Control"] = "private, max-age=86400, immutable"
    return response
