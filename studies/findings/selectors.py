"""Reads of findings. The study comes from the gate; who may see which of its findings is decided here."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.access import studies_visible_to
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


def findings_on_priors(principal: Principal, study: Study) -> QuerySet[ImageFinding]:
    """Give what was measured on the same patient's other studies that the principal may see and write about.

    The newest study comes first; what was measured first, before what came after.
    """
    sites = principal.sites_with(Capability.REPORT_WRITE)
    others = studies_visible_to(principal).filter(patient_id=study.patient_id).exclude(pk=study.pk)
    if sites is not None:
        others = others.filter(site_id__in=sorted(sites))
    findings = ImageFinding.objects.filter(study__in=others, kind=ImageFinding.Kind.MEASUREMENT)
    return findings.defer("picture").select_related("study", "author").order_by("-study__study_date", "study_id", "pk")


def key_images_of(study: Study, *, until: datetime) -> QuerySet[ImageFinding]:
    """Give a study's key images marked up to a moment, with their pictures, for its signed report.

    The caller has passed the gate.
    """
    return ImageFinding.objects.filter(
        study=study, kind=ImageFinding.Kind.KEY_IMAGE, picture__isnull=False, created_at__lte=until
    )
