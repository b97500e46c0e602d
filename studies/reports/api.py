"""Signed reports for programs: ``/api/v1/reports/…``."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from studies.access import visible_study
from studies.models import Study
from studies.reports import selectors
from studies.reports.models import ReportPart


class SignedPartSerializer(serializers.ModelSerializer[ReportPart]):
    """A signed part: the report or an addendum."""

    is_retracted = serializers.BooleanField(read_only=True)
    retracted_reason = serializers.CharField(source="retraction.reason", default="", read_only=True)
    retracted_at = serializers.DateTimeField(source="retraction.retracted_at", default=None, read_only=True)
    template = serializers.CharField(source="template.name", default="", read_only=True)

    class Meta:
        model = ReportPart
        fields = [
            *("kind", "ordinal", "template", "values", "sections", "signer_name", "signed_at", "sha256"),
            *("sop_instance_uid", "sr_instance_uid", "is_retracted", "retracted_reason", "retracted_at"),
        ]


@extend_schema(operation_id="reports_retrieve", responses=SignedPartSerializer(many=True))
@api_view(["GET"])
def report(request: Request, study_instance_uid: str) -> Response:
    """Give a study's signed parts in order; an empty list while nothing is signed."""
    principal = request._request.principal  # type: ignore[attr-defined]
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise NotFound from error
    if not (selectors.may_read(principal, study) or selectors.may_write(principal, study)):
        raise NotFound
    parts = selectors.signed_parts(study)
    if parts:
        selectors.record_reading(principal, study)
    return Response(SignedPartSerializer(parts, many=True).data)
