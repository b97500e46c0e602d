"""Rows of each level that match, from the gate on, in one stable order."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.principals import Principal
from studies.access import instances_visible_to, series_visible_to, studies_visible_to, visible_copy
from studies.matching.criteria import Criteria
from studies.models import Instance, Patient, Series, Study

_NAMES_ONE = {"SeriesInstanceUID", "SOPInstanceUID"}


def matching_patients(principal: Principal, criteria: Criteria) -> QuerySet[Patient]:
    """Give the patients who have a matching study that the principal may see, by name."""
    studies = matching_studies(principal, criteria).order_by()
    return Patient.objects.filter(pk__in=studies.values("patient")).order_by("patient_name", "pk")


def matching_studies(principal: Principal, criteria: Criteria) -> QuerySet[Study]:
    """Give the matching studies, the newest first. A study whose instances are all rejected isn't there."""
    studies = studies_visible_to(principal).filter(criteria.study, number_of_instances__gt=0)
    below = _studies_by_what_lies_below(criteria)
    if below is not None:
        studies = studies.filter(below)
    return studies.order_by("-sort_date", "-pk")


def _studies_by_what_lies_below(criteria: Criteria) -> Q | None:
    """Give the condition that a study holds a matching series or instance."""
    of_study = OuterRef("pk")
    series = Series.objects.filter(criteria.series, number_of_instances__gt=0)
    instances = Instance.objects.filter(criteria.instance, is_current=True)
    if criteria.series:
        instances = instances.filter(series__in=Series.objects.filter(criteria.series))
    if not _NAMES_ONE.isdisjoint(criteria.used):
        # One or few rows: from them to their studies.
        if criteria.instance:
            return Q(pk__in=instances.values("series__study"))
        return Q(pk__in=series.values("study"))
    # Many rows: from each study, in the order of the list, to its own.
    if criteria.instance:
        return Q(Exists(instances.filter(series__study=of_study)))
    return Q(Exists(series.filter(study=of_study))) if criteria.series else None


def matching_series(principal: Principal, criteria: Criteria, *, study_instance_uid: str = "") -> QuerySet[Series]:
    """Give the matching series, of one study or of all, study by study in order of their numbers."""
    series = series_visible_to(principal).filter(criteria.series, number_of_instances__gt=0)
    if study_instance_uid:
        series = series.filter(study=visible_copy(principal, study_instance_uid).values("pk"))
    if criteria.study:
        series = series.filter(study__in=Study.objects.filter(criteria.study))
    if criteria.instance:
        instances = Instance.objects.filter(criteria.instance, is_current=True)
        series = series.filter(pk__in=instances.values("series"))
    return series.order_by("study_id", "series_number", "pk")


def matching_instances(
    principal: Principal, criteria: Criteria, *, study_instance_uid: str = "", series_instance_uid: str = ""
) -> QuerySet[Instance]:
    """Give the matching instances, of a series, a study or all, series by series in order of their numbers."""
    instances = instances_visible_to(principal).filter(criteria.instance)
    if study_instance_uid:
        instances = instances.filter(series__study=visible_copy(principal, study_instance_uid).values("pk"))
    if series_instance_uid:
        instances = instances.filter(series__series_instance_uid=series_instance_uid)
    if criteria.study:
        instances = instances.filter(series__study__in=Study.objects.filter(criteria.study))
    if criteria.series:
        instances = instances.filter(series__in=Series.objects.filter(criteria.series))
    return instances.order_by("series_id", "instance_number", "pk")
