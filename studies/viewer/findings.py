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
from studies.findings.errors import FindingError, NoSuchImage, NotAllowed
from studies.findings.models import ImageFinding
from studies.findings.selectors import SIGNED, findings_of, findings_on_priors
from studies.findings.services import Place, Quantity, Viewport, keep_key_image, keep_measurement, remove_finding
from studies.findings.words import counterpart, sentence
from studies.models import Study

LARGEST_BODY = 6 << 20
MOST_ON_PRIORS = 20
MOST_BESIDE = 20
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
        "on_priors": findings_on_priors(principal, study)[:MOST_ON_PRIORS],
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
            return JsonResponse({**_told(_key_image(request, study, place, sent)), "before": None})
        measured = _prior(request, study, sent) or study
        kept, before = _measurement(request, measured, place, sent)
        priors = {p.pk for uid in _beside(sent) if (p := _prior(request, study, {"study": uid}))}
    except NotAllowed as error:
        return problem(403, str(error))
    except FindingError as error:
        return problem(422, str(error))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return problem(400, "That is no finding.")
    told = {**_told(kept), "before": _told(before) if before else None}
    return JsonResponse({**told, **_words(study, kept, before, priors)})


def _told(finding: ImageFinding) -> dict[str, Any]:
    return {"id": finding.pk, "text": finding.text, "label": finding.label, "place": finding.place}


def _beside(sent: dict[str, Any]) -> list[str]:
    beside = sent.get("beside") or []
    return [uid for uid in beside if isinstance(uid, str)][:MOST_BESIDE]


def _prior(request: HttpRequest, study: Study, sent: dict[str, Any]) -> Study | None:
    """Give the study that holds the image, where it is another one of the patient. Raises NoSuchImage."""
    uid = str(sent.get("study") or "")[:64]
    if uid in {"", study.study_instance_uid}:
        return None
    try:
        prior = visible_study(principal_of(request), uid)
    except Study.DoesNotExist as error:
        raise NoSuchImage("There is no such study.") from error
    if prior.patient_id != study.patient_id:
        raise NoSuchImage("That is an image of another patient.")
    return prior


def _words(study: Study, kept: ImageFinding, before: ImageFinding | None, priors: set[int]) -> dict[str, Any]:
    """Give the report's sentence on the finding, those that it stood in before, and whose sentence changes with it.

    A measurement that is compared with its prior takes the prior's words into its own sentence.
    """
    if kept.study_id == study.pk:
        prior = counterpart(kept, priors)
        known = [sentence(one, study, other) for one in (before, kept) if one for other in (None, prior)]
        return {
            "sentence": sentence(kept, study, prior),
            "known": known if before else [],
            "takes_in": {"uid": prior.tracking_identifier, "known": [sentence(prior, study)]} if prior else None,
        }
    current = counterpart(kept, {study.pk})
    if current is not None and counterpart(current, priors | {kept.study_id}) != kept:
        current = None
    # A label that is new was no reason for a comparison before.
    earlier = [sentence(current, study)] if current else []
    if current and before and before.values:
        earlier.append(sentence(current, study, before))
    return {
        "sentence": sentence(kept, study),
        "known": [sentence(before, study)] if before else [],
        "goes_into": {
            "uid": current.tracking_identifier,
            "known": earlier,
            "sentence": sentence(current, study, kept),
        }
        if current
        else None,
    }


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
        prior=_prior(request, study, sent),
    )


def _float(value: Any) -> float | None:
    return None if value is None else max(-1e9, min(float(value), 1e9))


@require_POST
@may_read
def remove(request: HttpRequest, study_instance_uid: str, pk: int) -> HttpResponse:
    """Take a finding out of the list."""
    study = _study(request, study_instance_uid)
    finding = findings_of(principal_of(request), study).filter(pk=pk).first()
    finding = finding or get_object_or_404(findings_on_priors(principal_of(request), study), pk=pk)
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
