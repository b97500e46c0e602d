"""Studies for programs: ``/api/v1/studies/``."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.gates import principal_of
from studies.access import visible_study
from studies.models import Study
from studies.worklists import selectors
from studies.worklists.forms import WorklistFilterForm
from studies.worklists.sorting import bounded, sorting


class StudySerializer(serializers.ModelSerializer[Study]):
    """A study as the worklist shows it."""

    site = serializers.CharField(source="site.slug")
    patient_id = serializers.CharField(source="patient_id_value")
    modalities = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = Study
        fields = [
            *("study_instance_uid", "site", "patient_id", "patient_name", "study_date", "study_time"),
            *("accession_number", "study_description", "modalities", "referring_physician_name", "status", "priority"),
            *("number_of_series", "number_of_instances", "has_conflict", "received_at", "tier"),
        ]


class StudyPageSerializer(serializers.Serializer[dict[str, object]]):
    """A page of studies; ``next`` is the ``after`` of the page that follows, empty on the last."""

    studies = StudySerializer(many=True)
    next = serializers.CharField(allow_blank=True)


@extend_schema(
    operation_id="studies_list",
    parameters=[
        OpenApiParameter(name)
        for name in (
            "q",
            "accession_number",
            "modality",
            "status",
            "site",
            "referrer",
            "since",
            "until",
            "sort",
            "after",
        )
    ],
    responses=StudyPageSerializer,
)
@api_view(["GET"])
def studies(request: Request) -> Response:
    """List the studies that one may see, filtered and sorted as in the worklist, by pages."""
    principal = principal_of(request._request)
    form = WorklistFilterForm(request.query_params, principal=principal)
    if not form.is_valid():
        raise ValidationError(form.errors.get_json_data())
    found, count = selectors.measured(selectors.worklist(principal, form.cleaned_data))
    order = bounded(
        sorting(request.query_params.get("sort", "")), is_short=selectors.is_short(form.cleaned_data, count)
    )
    page = selectors.page_of(found, order, after=request.query_params.get("after", ""))
    return Response({"studies": StudySerializer(page.studies, many=True).data, "next": page.after})


@extend_schema(operation_id="studies_retrieve", responses=StudySerializer)
@api_view(["GET"])
def study(request: Request, study_instance_uid: str) -> Response:
    """Give one study."""
    try:
        return Response(StudySerializer(visible_study(principal_of(request._request), study_instance_uid)).data)
    except Study.DoesNotExist as error:
        raise NotFound from error
