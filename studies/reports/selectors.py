"""Every read on reports. The study comes from the gate; what of its report the principal may read is decided here."""

from __future__ import annotations

from django.db.models import Count, QuerySet

from accounts.capabilities import Capability
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.access import studies_visible_to
from studies.models import Study
from studies.reports.models import OpenedPrior, PreliminarySignature, ReportPart, ReportReading, ReportVersion
from studies.trail import subject_of


def may_read(principal: Principal, study: Study) -> bool:
    """Say whether the principal may read signed reports at the study's site."""
    return principal.may(Capability.REPORT_READ, study.site_id)


def may_write(principal: Principal, study: Study) -> bool:
    """Say whether the principal may write reports, and see drafts, at the study's site."""
    return principal.user is not None and principal.may(Capability.REPORT_WRITE, study.site_id)


def signed_parts(study: Study) -> list[ReportPart]:
    """Give the signed report and its addenda, in order, the retracted ones among them."""
    parts = ReportPart.objects.filter(report__study=study, signed_at__isnull=False)
    related = ("report__study__site", "report__study__patient", "template", "retraction", "signed_by")
    return list(parts.select_related(*related).order_by("ordinal"))


def preliminary_of(study: Study) -> PreliminarySignature | None:
    """Give the preliminary report that may be read while the final one isn't signed."""
    signatures = PreliminarySignature.objects.filter(part__report__study=study, part__signed_at=None)
    return signatures.select_related("part__template", "template", "signed_by").order_by("-pk").first()


def open_draft_of(study: Study) -> ReportPart | None:
    """Give the study's open draft; for those who may write only."""
    drafts = ReportPart.objects.filter(report__study=study, signed_at=None)
    return drafts.select_related("author", "template", "report__study__site", "report__study__patient").first()


def versions_of(study: Study) -> QuerySet[ReportVersion]:
    """Give every kept version of the study's report, newest first; for those who may write only."""
    return ReportVersion.objects.filter(report__study=study).select_related("author", "template").order_by("-pk")


def version_before(version: ReportVersion) -> ReportVersion | None:
    """Give the version of the same part that came before."""
    earlier = ReportVersion.objects.filter(report=version.report_id, ordinal=version.ordinal, pk__lt=version.pk)
    return earlier.order_by("-pk").first()


def comparison_text(study: Study, principal: Principal) -> str:
    """Give a sentence that names the earlier studies that the principal opened beside this one."""
    opened = OpenedPrior.objects.filter(study=study, user=principal.user, prior__in=studies_visible_to(principal))
    named = []
    for one in opened.select_related("prior").order_by("-prior__study_date", "-prior_id"):
        day = f" of {one.prior.study_date:%Y-%m-%d}" if one.prior.study_date else ""
        what = one.prior.study_description or one.prior.modalities_in_study.replace("\\", "/") or "Study"
        named.append(f"{what}{day}")
    return f"{'; '.join(named)}." if named else ""


def drafts_of(principal: Principal) -> QuerySet[ReportPart]:
    """Give the principal's own open drafts, last touched first."""
    return _visible(principal).filter(author=principal.user, signed_at=None).order_by("-updated_at")


def awaiting_cosign(principal: Principal) -> QuerySet[ReportPart]:
    """Give the drafts signed as preliminary at the sites where the principal signs, oldest first."""
    waiting = _visible(principal).filter(signed_at=None, preliminary_signatures__isnull=False)
    sites = principal.sites_with(Capability.REPORT_SIGN)
    if sites is not None:
        waiting = waiting.filter(report__study__site_id__in=sorted(sites))
    return waiting.distinct().order_by("updated_at")


def signed_by(principal: Principal) -> QuerySet[ReportPart]:
    """Give what the principal signed, latest first."""
    return _visible(principal).filter(signed_by=principal.user, signed_at__isnull=False).order_by("-signed_at")


def cosigned_of(principal: Principal) -> QuerySet[ReportPart]:
    """Give what the principal signed as preliminary and another signed as final: what was changed is to be learnt."""
    mine = _visible(principal).filter(signed_at__isnull=False, preliminary_signatures__signed_by=principal.user)
    return mine.exclude(signed_by=principal.user).distinct().order_by("-signed_at")


def _visible(principal: Principal) -> QuerySet[ReportPart]:
    return ReportPart.objects.filter(report__study__in=studies_visible_to(principal)).select_related(
        "report__study__site", "author", "retraction"
    )


def record_reading(principal: Principal, study: Study) -> None:
    """Record that the principal read the study's signed report, in the trail and for their list of results."""
    signed = ReportPart.objects.filter(report__study=study, signed_at__isnull=False)
    report_id, parts = signed.order_by("report").values_list("report").annotate(count=Count("pk")).first() or (None, 0)
    known = ReportReading.objects.filter(user=principal.user, report=report_id, parts_read=parts)
    if report_id is not None and principal.user is not None and not known.exists():
        ReportReading.objects.update_or_create(user=principal.user, report_id=report_id, defaults={"parts_read": parts})
    record_viewing(
        AuditEvent.Action.REPORT_READ,
        principal=principal,
        **subject_of(study),
    )
