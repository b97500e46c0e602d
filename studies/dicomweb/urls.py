"""Addresses of DICOMweb (PS3.18 Tables 10.4.1-1 to 10.6.1-1)."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path

from studies.dicomweb import (
    capabilities,
    live,
    non_patient,
    qido,
    rendered,
    stow,
    wado,
    wado_bulk,
    wado_metadata,
    workitems,
)
from studies.dicomweb.delete import delete
from studies.dicomweb.wado_uri import wado_uri

STUDY = "dicom-web/studies/<uid:study_instance_uid>"
SERIES = f"{STUDY}/series/<uid:series_instance_uid>"
INSTANCE = f"{SERIES}/instances/<uid:sop_instance_uid>"
WORKITEM = "dicom-web/workitems/<uid:workitem_uid>"
SUBSCRIBER = f"{WORKITEM}/subscribers/<str:ae_title>"


def studies(request: HttpRequest) -> HttpResponseBase:
    """Search or store."""
    return stow.store(request) if request.method == "POST" else qido.search_studies(request)


def study(request: HttpRequest, study_instance_uid: str) -> HttpResponseBase:
    """Retrieve, store into, or delete one study."""
    views = {"POST": stow.store, "DELETE": delete}
    return views.get(request.method or "", wado.retrieve_study)(request, study_instance_uid=study_instance_uid)


def series(request: HttpRequest, **uids: str) -> HttpResponseBase:
    """Retrieve or delete one series."""
    return (delete if request.method == "DELETE" else wado.retrieve_series)(request, **uids)


def instance(request: HttpRequest, **uids: str) -> HttpResponseBase:
    """Retrieve or delete one instance."""
    return (delete if request.method == "DELETE" else wado.retrieve_instance)(request, **uids)


urlpatterns = [
    path("wado", wado_uri, name="wado_uri"),
    path("dicom-web/studies", studies, name="dicomweb_studies"),
    path("dicom-web/series", qido.search_series, name="dicomweb_all_series"),
    path("dicom-web/instances", qido.search_instances, name="dicomweb_all_instances"),
    path(STUDY, study, name="dicomweb_study"),
    path(f"{STUDY}/series", qido.search_series, name="dicomweb_study_series"),
    path(f"{STUDY}/instances", qido.search_instances, name="dicomweb_study_instances"),
    path(f"{STUDY}/metadata", wado_metadata.retrieve_study_metadata, name="dicomweb_study_metadata"),
    path(f"{STUDY}/rendered", rendered.retrieve_rendered_study, name="dicomweb_study_rendered"),
    path(f"{STUDY}/thumbnail", rendered.retrieve_thumbnail, name="dicomweb_study_thumbnail"),
    path(f"{STUDY}/bulkdata", wado_bulk.retrieve_bulkdata_of, name="dicomweb_study_bulkdata"),
    path(f"{STUDY}/pixeldata", wado_bulk.retrieve_pixeldata, name="dicomweb_study_pixeldata"),
    path(SERIES, series, name="dicomweb_series"),
    path(f"{SERIES}/instances", qido.search_instances, name="dicomweb_series_instances"),
    path(f"{SERIES}/metadata", wado_metadata.retrieve_series_metadata, name="dicomweb_series_metadata"),
    path(f"{SERIES}/rendered", rendered.retrieve_rendered_series, name="dicomweb_series_rendered"),
    path(f"{SERIES}/thumbnail", rendered.retrieve_thumbnail, name="dicomweb_series_thumbnail"),
    path(f"{SERIES}/bulkdata", wado_bulk.retrieve_bulkdata_of, name="dicomweb_series_bulkdata"),
    path(f"{SERIES}/pixeldata", wado_bulk.retrieve_pixeldata, name="dicomweb_series_pixeldata"),
    path(INSTANCE, instance, name="dicomweb_instance"),
    path(f"{INSTANCE}/metadata", wado_metadata.retrieve_instance_metadata, name="dicomweb_instance_metadata"),
    path(f"{INSTANCE}/rendered", rendered.retrieve_rendered, name="dicomweb_rendered"),
    path(f"{INSTANCE}/thumbnail", rendered.retrieve_thumbnail, name="dicomweb_thumbnail"),
    path(f"{INSTANCE}/bulkdata", wado_bulk.retrieve_bulkdata_of, name="dicomweb_instance_bulkdata"),
    path(f"{INSTANCE}/pixeldata", wado_bulk.retrieve_pixeldata, name="dicomweb_instance_pixeldata"),
    path(f"{INSTANCE}/bulkdata/<str:path>", wado_metadata.retrieve_bulkdata, name="dicomweb_bulkdata"),
    path(f"{INSTANCE}/frames/<str:frames>", wado.retrieve_frames, name="dicomweb_frames"),
    path(f"{INSTANCE}/frames/<str:frames>/rendered", rendered.retrieve_rendered, name="dicomweb_frame_rendered"),
    path(f"{INSTANCE}/frames/<str:frames>/thumbnail", rendered.retrieve_thumbnail, name="dicomweb_frame_thumbnail"),
    path("dicom-web/workitems", workitems.workitems, name="dicomweb_workitems"),
    path(WORKITEM, workitems.workitem, name="dicomweb_workitem"),
    path(f"{WORKITEM}/state", workitems.state, name="dicomweb_workitem_state"),
    path(f"{WORKITEM}/cancelrequest", workitems.cancel_request, name="dicomweb_workitem_cancel"),
    path(SUBSCRIBER, workitems.subscriber, name="dicomweb_subscriber"),
    path(f"{SUBSCRIBER}/suspend", workitems.suspend, name="dicomweb_suspend"),
    path("dicom-web/subscribers/<str:ae_title>", live.upgrade_required, name="dicomweb_events"),
    path("dicom-web/<category:category>", non_patient.instances, name="dicomweb_non_patient"),
    path(
        "dicom-web/<category:category>/<uid:sop_instance_uid>",
        non_patient.instance,
        name="dicomweb_non_patient_instance",
    ),
    path("dicom-web/", capabilities.root, name="dicomweb_root"),
    path("dicom-web", capabilities.root, name="dicomweb_root_without_slash"),
    path("dicom-web/conformance", capabilities.conformance, name="dicomweb_conformance"),
    path("dicom-web/openapi.json", capabilities.openapi, name="dicomweb_openapi"),
]
urlpatterns = [capabilities.answering_options(pattern) for pattern in urlpatterns]
