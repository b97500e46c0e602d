"""Reads of findings. The study comes from the gate; who may see which of its findings is decided here."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.findings.models import ImageFinding
from studies.models import Study

SIGNED = {Study.Status.FINAL, Study.Status.ADDENDED}


def findings_of(principal: Principal, study: Study) -> QuerySet[ImageFinding]:
    """Give the study's findings in their order: all to a writer, key images of a signed report to a reader."""
    findings = ImageFinding.objects.filter(study=study).defer("picture").select_related("author")
    if principal.may(Capability.REPORT_WRITE, study.site_id):
        return findings
    if principal.may(Capability.REPORT_READ, study.site_id) and study.status in SIGNED:
        return findings.filter(kind=ImageFinding.Kind.KEY_IMAGE)
    return findings.none()


def key_images_of(study: Study, *, until: datetime) -> QuerySet[ImageFinding]:
    """Give a study's key images marked up to a moment, with their pictures, for its signed report.

    The caller has passed the gate.
    """
    return ImageFinding.objects.filter(
        study=study, kind=ImageFinding.Kind.KEY_IMAGE, picture__isnull=False, created_at__lte=until
    )
