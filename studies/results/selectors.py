"""Reads of results; each begins at the gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Case, Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Value, When

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.access import studies_visible_to
from studies.findings.models import ImageFinding
from studies.models import Patient, Study
from studies.person_names import searchable
from studies.reading import UNFINISHED_STATUSES
from studies.reports.models import CriticalResult, Report, ReportPart, ReportReading

PAGE = 40
MOST_WORDS = 8
EXCERPT = 280


@dataclass(frozen=True)
class Page:
    """A page of results; ``next_offset`` is None on the last one."""

    results: list[Report]
    next_offset: int | None


def results_of(principal: Principal, *, wanted: str = "", only_unread: bool = False) -> QuerySet[Report]:
    """Give the signed reports on the principal's studies: open critical ones, then unread, then the newest first.

    ``wanted`` narrows by words of the report, the patient's name, or the patient's ID.
    """
    signed = ReportPart.objects.filter(report=OuterRef("pk"), signed_at__isnull=False)
    reports = Report.objects.filter(Exists(signed), study__in=_readable(principal))
    for word in wanted.split()[:MOST_WORDS]:
        named = Q(study__patient_name_search__icontains=searchable(word)) | Q(study__patient_id_value__iexact=word)
        reports = reports.filter(named | Q(Exists(signed.filter(canonical_text__icontains=word))))
    reading = ReportReading.objects.filter(user=principal.user, report=OuterRef("pk"))
    critical = CriticalResult.objects.filter(
        study=OuterRef("study"), acknowledged_at__isnull=True, withdrawn_at__isnull=True
    )
    reports = reports.annotate(
        signed_parts=Subquery(signed.order_by().values("report").annotate(parts=Count("pk")).values("parts")),
        last_signed_at=Subquery(signed.order_by("-signed_at").values("signed_at")[:1]),
        parts_read=Subquery(reading.values("parts_read")[:1]),
        is_critical=Exists(critical),
    ).annotate(is_read=Case(When(parts_read__gte=F("signed_parts"), then=Value(True)), default=Value(False)))
    if only_unread:
        reports = reports.filter(Q(is_read=False) | Q(is_critical=True))
    return reports.select_related("study__site", "study__patient").order_by(
        F("is_critical").desc(), F("is_read").asc(), F("last_signed_at").desc(), "-pk"
    )


def page_of(results: QuerySet[Report], offset: int) -> Page:
    """Give a page of results, each with its signed parts."""
    rows = list(results.prefetch_related("parts__retraction")[offset : offset + PAGE + 1])
    return Page(rows[:PAGE], offset + PAGE if len(rows) > PAGE else None)


def waiting_of(principal: Principal) -> QuerySet[Study]:
    """Give the principal's studies that have no signed report yet, the newest first."""
    studies = studies_visible_to(principal).filter(status__in=UNFINISHED_STATUSES)
    return studies.select_related("site", "patient").order_by(F("study_date").desc(nulls_last=True), "-pk")[:PAGE]


def _readable(principal: Principal) -> QuerySet[Study]:
    studies = studies_visible_to(principal)
    sites = principal.sites_with(Capability.REPORT_READ)
    return studies if sites is None else studies.filter(site_id__in=sorted(sites))


def person_of(principal: Principal, patient: Patient) -> QuerySet[Patient]:
    """Give the rows that are this person at any site: the same ID or the same name, with the same date of birth.

    Without a date of birth only the row itself is given: a name or an ID alone may be another person's.
    """
    if patient.patient_birth_date is None:
        return Patient.objects.filter(pk=patient.pk)
    same = Q(pk=patient.pk)
    if patient.patient_id:
        same |= Q(
            patient_id=patient.patient_id,
            issuer_of_patient_id=patient.issuer_of_patient_id,
            patient_birth_date=patient.patient_birth_date,
        )
    if patient.patient_name:
        same |= Q(
            patient_name=patient.patient_name,
            patient_birth_date=patient.patient_birth_date,
            patient_sex=patient.patient_sex,
        )
    return Patient.objects.filter(same)


def timeline_of(principal: Principal, patient: Patient, *, wanted: str = "") -> list[dict[str, Any]]:
    """Give the person's studies that the principal may see, over all sites, the newest first, each with its excerpt."""
    studies = (
        studies_visible_to(principal)
        .filter(patient__in=person_of(principal, patient))
        .exclude(number_of_instances=0)
        .select_related("site")
        .order_by(F("study_date").desc(nulls_last=True), "-pk")
    )
    readable = set(_readable(principal).filter(pk__in=studies).values_list("pk", flat=True))
    parts: dict[int, list[ReportPart]] = {}
    signed = ReportPart.objects.filter(report__study__in=readable, signed_at__isnull=False)
    for part in signed.select_related("report", "retraction").order_by("ordinal"):
        parts.setdefault(part.report.study_id, []).append(part)
    pictures: dict[int, list[ImageFinding]] = {}
    key_images = ImageFinding.objects.filter(study__in=parts, kind=ImageFinding.Kind.KEY_IMAGE, picture__isnull=False)
    for picture in key_images.defer("picture"):
        pictures.setdefault(picture.study_id, []).append(picture)
    entries = [
        {
            "study": study,
            "parts": parts.get(study.pk, []),
            "excerpt": excerpt_of(parts.get(study.pk, [])),
            "is_retracted": is_retracted(parts.get(study.pk, [])),
            "pictures": pictures.get(study.pk, [])[:4],
        }
        for study in studies
    ]
    words = wanted.casefold().split()[:MOST_WORDS]
    return [entry for entry in entries if _holds(entry, words)] if words else entries


def _holds(entry: dict[str, Any], words: list[str]) -> bool:
    study: Study = entry["study"]
    texts = [str(text) for part in entry["parts"] for text in part.sections.values()]
    everything = " ".join([study.study_description, study.modalities_in_study, *texts]).casefold()
    return all(word in everything for word in words)


def excerpt_of(parts: list[ReportPart]) -> str:
    """Give what matters of a report in a line or two: the newest impression that still holds, else the findings."""
    standing = [part for part in parts if not part.is_retracted]
    for name in ("impression", "findings"):
        for part in reversed(standing):
            text = str(part.sections.get(name, "")).strip()
            if text:
                return text if len(text) <= EXCERPT else f"{text[:EXCERPT].rsplit(' ', 1)[0]} …"
    return ""


def is_retracted(parts: list[ReportPart]) -> bool:
    """Say whether nothing of what was signed holds any more."""
    return bool(parts) and all(part.is_retracted for part in parts)
