"""WADO-URI: one object by query parameters (PS3.18 §9)."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from studies.dicomweb.errors import DicomWebError, answers_errors
from studies.dicomweb.wado import may_retrieve, retrieve_instance, retrieve_rendered


@require_safe
@may_retrieve
@answers_errors
def wado_uri(request: HttpRequest) -> HttpResponseBase:
    """Give an object as DICOM, or a picture of a frame, as ``contentType`` asks."""
    if request.GET.get("requestType") != "WADO":
        raise DicomWebError(400, "requestType must be WADO.")
    uids = {
        "study_instance_uid": request.GET.get("studyUID", ""),
        "series_instance_uid": request.GET.get("seriesUID", ""),
        "sop_instance_uid": request.GET.get("objectUID", ""),
    }
    if not all(uids.values()) or any("\x00" in uid for uid in uids.values()):
        raise DicomWebError(400, "studyUID, seriesUID and objectUID are needed.")
    content_type = request.GET.get("contentType") or "image/jpeg"
    parameters = request.GET.copy()
    parameters["accept"] = content_type
    if request.GET.get("windowCenter") and request.GET.get("windowWidth"):
        parameters["window"] = f"{request.GET['windowCenter']},{request.GET['windowWidth']}"
    request.GET = parameters  # type: ignore[assignment]
    if content_type == "application/dicom":
        return retrieve_instance(request, **uids)
    return retrieve_rendered(request, frames=request.GET.get("frameNumber", "1"), **uids)
