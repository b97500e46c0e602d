"""The one gate: who sees which study. Every list and every look-up that reaches a person or a protocol starts here."""

from __future__ import annotations

from django.db.models import Case, Q, QuerySet, When

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.models import Instance, ReferringPhysician, Series, Study


def studies_visible_to(principal: Principal) -> QuerySet[Study]:
    """Give the studies that the principal may see: their sites', and those that they or their practice referred."""
    return Study.objects.filter(_visible(principal))


def _visible(principal: Principal, path: str = "") -> Q:
    """Give the condition on a study, or on what leads to one by ``path``: a join is cheaper than a list of studies."""
    sites = principal.sites_with(Capability.STUDY_VIEW)
    if sites is None:
        return Q()
    visible = Q(**{f"{path}site_id__in": sorted(sites)}) if sites else Q(pk__in=[])
    referring = _referring_physicians(principal)
    if referring:
        visible |= Q(**{f"{path}referring_physician_id__in": referring})
    return visible


def _referring_physicians(principal: Principal) -> list[int]:
    if principal.user is None or not principal.may(Capability.STUDY_VIEW_REFERRED):
        return []
    linked = ReferringPhysician.objects.filter(Q(user=principal.user) | Q(practice_id__in=principal.practice_ids))
    sites = principal.sites_with(Capability.STUDY_VIEW_REFERRED)
    if sites is not None:
        linked = linked.filter(site_id__in=sites)
    return list(linked.values_list("pk", flat=True))


def visible_copy(principal: Principal, study_instance_uid: str) -> QuerySet[Study]:
    """Give the study of that UID, if it's theirs: where a person's sites both hold it, the copy that came first.

    One of which all was rejected comes after one that has something to show.
    """
    is_empty = Case(When(number_of_instances__gt=0, then=0), default=1)
    return studies_visible_to(principal).filter(study_instance_uid=study_instance_uid).order_by(is_empty, "pk")[:1]


def visible_study(principal: Principal, study_instance_uid: str) -> Study:
    """Give one study. Raises Study.DoesNotExist alike for one that isn't there and one that isn't theirs."""
    study = next(iter(visible_copy(principal, study_instance_uid).select_related("site", "patient")), None)
    if study is None:
        raise Study.DoesNotExist
    return study


def series_visible_to(principal: Principal) -> QuerySet[Series]:
    """Give the series of the studies that the principal may see."""
    return Series.objects.filter(_visible(principal, "study__"))


def instances_visible_to(principal: Principal) -> QuerySet[Instance]:
    """Give the current versions of the instances of the studies that the principal may see."""
    return Instance.objects.filter(_visible(principal, "series__study__"), is_current=True)


def sites_where(principal: Principal, capability: Capability) -> QuerySet[Site]:
    """Give the sites at which the principal holds the capability."""
    sites = principal.sites_with(capability)
    return Site.objects.all() if sites is None else Site.objects.filter(pk__in=sites)
