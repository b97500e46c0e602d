"""The delete service (PS3.18 §10.7): a study, series or instance goes for good."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.gates import program_capability_required
from accounts.principals import Principal
from studies.access import visible_study
from studies.archive.deletion import delete_instances
from studies.archive.errors import DeletionRefused, NotAuthorised
from studies.dicomweb.errors import DicomWebError, answers_errors, empty, not_found
from studies.models import Instance

may_delete = program_capability_required(Capability.STUDY_DELETE)


@may_delete
@answers_errors
def delete(
    request: HttpRequest, study_instance_uid: str, series_instance_uid: str = "", sop_instance_uid: str = ""
) -> HttpResponseBase:
    """Delete what the address names, rejected instances and older versions included."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    study = visible_study(principal, study_instance_uid)
    instances = Instance.objects.filter(series__study=study)
    if series_instance_uid:
        instances = instances.filter(series__series_instance_uid=series_instance_uid)
    if sop_instance_uid:
        instances = instances.filter(sop_instance_uid=sop_instance_uid)
    if not instances.exists():
        raise not_found()
    try:
        delete_instances(study=study, instances=instances, principal=principal)
    except NotAuthorised as error:
        raise DicomWebError(403, "This account may not delete at that site.") from error
    except DeletionRefused as error:
        raise DicomWebError(409, str(error)) from error
    return empty(204)
