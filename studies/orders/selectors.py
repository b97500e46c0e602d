"""The orders' reads; each begins with the sites where the principal may see them."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch, Q, QuerySet

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.access import studies_visible_to
from studies.models import Patient, Study
from studies.orders.models import Mismatch, Order, ScheduledProcedureStep
from studies.person_names import searchable

PAGE = 100


def orders_visible_to(principal: Principal) -> QuerySet[Order]:
    """Give the orders of the sites where the principal sees studies or manages orders."""
    orders = Order.objects.select_related("patient", "site", "study").prefetch_related(
        Prefetch("scheduled_steps", ScheduledProcedureStep.objects.order_by("pk"))
    )
    seeing, managing = (principal.sites_with(c) for c in (Capability.STUDY_VIEW, Capability.ORDER_MANAGE))
    if seeing is None or managing is None:
        return orders
    return orders.filter(site_id__in=seeing | managing)


def orders_matching(principal: Principal, criteria: dict[str, Any]) -> QuerySet[Order]:
    """Give the principal's orders that match the filter form's cleaned values, those due first on top."""
    orders = orders_visible_to(principal)
    if text := str(criteria.get("q") or "").strip():
        wanted = Q(accession_number__iexact=text) | Q(patient__patient_id__iexact=text)
        name = searchable(text.replace(", ", "^").replace(",", "^"))
        orders = orders.filter(wanted | Q(patient_name_search__prefix=name))
    for name in ("status", "priority", "site__slug"):
        if criteria.get(name):
            orders = orders.filter(**{name: criteria[name]})
    if criteria.get("modality"):
        orders = orders.filter(modality=criteria["modality"])
    if criteria.get("since"):
        orders = orders.filter(scheduled_at__date__gte=criteria["since"])
    if criteria.get("until"):
        orders = orders.filter(scheduled_at__date__lte=criteria["until"])
    return orders.order_by("-scheduled_at", "-pk")


def order_of(study: Study) -> Order | None:
    """Give the order that the study answers: its indication, priority and referring physician; None without one."""
    return study.orders.prefetch_related("scheduled_steps").order_by("pk").first()


def patients_matching(principal: Principal, text: str, capability: Capability) -> QuerySet[Patient]:
    """Give the patients of the principal's sites by ID or beginning of the name, at most ten."""
    sites = principal.sites_with(capability)
    patients = Patient.objects.filter(merged_into__isnull=True).exclude(patient_id="").select_related("site")
    if sites is not None:
        patients = patients.filter(site_id__in=sites)
    text = text.strip()
    if not text:
        return patients.none()
    by_study = Study.objects.filter(patient_name_search__prefix=searchable(text.replace(", ", "^").replace(",", "^")))
    wanted = Q(patient_id__istartswith=text) | Q(patient_name__istartswith=text.replace(", ", "^"))
    return patients.filter(wanted | Q(pk__in=by_study.values("patient")[:50])).order_by("patient_name", "pk")[:10]


def open_mismatches(principal: Principal) -> QuerySet[Mismatch]:
    """Give what waits to be reconciled at the sites where the principal may do so, the newest first."""
    sites = principal.sites_with(Capability.STUDY_CORRECT)
    waiting = Mismatch.objects.filter(settled_at__isnull=True).select_related("study__site", "study__patient")
    if sites is not None:
        waiting = waiting.filter(study__site_id__in=sites)
    return waiting.filter(study__in=studies_visible_to(principal)).order_by("-found_at", "-pk")
