"""Every read on reports. The study comes from the gate; what of its report the principal may read is decided here."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.access import studies_visible_to
from studies.models import Study
from studies.reports.models import ReportPart


def may_read(principal: Principal, study: Study) -> bool:
    """Say whether the principal may read signed reports at the study's site."""
    return principal.may(Capability.REPORT_READ, study.site_id)


def may_write(principal: Principal, study: Study) -> bool:
    """Say whether the principal may write reports, and see drafts, at the study's site."""
    return principal.user is not None and principal.may(Capability.REPORT_WRITE, study.site_id)


def signed_parts(study: Study) -> list[ReportPart]:
    """Give the signed report and its addenda, in order."""
    parts = ReportPart.objects.filter(report__study=study, signed_at__isnull=False)
    return list(parts.select_related("report__study__site", "report__study__patient").order_by("ordinal"))


def open_draft_of(study: Study) -> ReportPart | None:
    """Give the study's open draft; for those who may write only."""
    drafts = ReportPart.objects.filter(report__study=study, signed_at=None)
    return drafts.select_related("author", "report__study__site", "report__study__patient").first()


def drafts_of(principal: Principal) -> QuerySet[ReportPart]:
    """Give the principal's own open drafts, last touched first."""
    return _own(principal).filter(author=principal.user, signed_at=None).order_by("-updated_at")


def signed_by(principal: Principal) -> QuerySet[ReportPart]:
    """Give what the principal signed, latest first."""
    return _own(principal).filter(signed_by=principal.user, signed_at__isnull=False).order_by("-signed_at")


def _own(principal: Principal) -> QuerySet[ReportPart]:
    return ReportPart.objects.filter(report__study__in=studies_visible_to(principal)).select_related(
        "report__study__site", "author"
    )


def record_reading(principal: Principal, study: Study) -> None:
    """Record that the principal read the study's signed report."""
    record_viewing(
        AuditEvent.Action.REPORT_READ,
        principal=principal,
        site_id=study.site_id,
        patient_id=study.patient_id_value,
        patient_name=study.patient_name,
        study_instance_uid=study.study_instance_uid,
    )
