"""Reads of what colleagues share."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from accounts.capabilities import Capability
from accounts.models import Membership, User
from accounts.principals import Principal, principal_of_user
from studies.access import studies_visible_to
from studies.models import Study
from studies.person_names import identifying
from studies.sharing.models import Comment, TeachingCase


def may_discuss(principal: Principal, study: Study) -> bool:
    """Say whether the principal is one of the colleagues who talk about the site's studies."""
    return principal.user is not None and principal.may(Capability.STUDY_VIEW, study.site_id)


def thread_of(study: Study) -> QuerySet[Comment]:
    """Give the study's comments in order; the caller has passed the gate and :func:`may_discuss`."""
    return Comment.objects.filter(study=study).select_related("author", "closed_by").prefetch_related("mentions")


def colleagues_of(study: Study, *, beside: User | None) -> list[User]:
    """Give the people who see every study of the site, by name."""
    roles = [
        pk
        for pk, capabilities in Membership.objects.values_list("role_id", "role__capabilities").distinct()
        if Capability.STUDY_VIEW.value in capabilities
    ]
    at_site = Membership.objects.filter(Q(site=study.site_id) | Q(site=None), role__in=roles)
    people = User.objects.filter(pk__in=at_site.values("user"), is_active=True).order_by("last_name", "username")
    return [person for person in people if beside is None or person.pk != beside.pk]


def may_be_told(user: User, study: Study) -> bool:
    """Say whether a person may see the study and its discussion."""
    return user.is_active and may_discuss(principal_of_user(user), study)


def open_consults(principal: Principal) -> QuerySet[Comment]:
    """Give the open requests that ask the principal or that they made, on studies that they still see."""
    consults = Comment.objects.filter(kind=Comment.Kind.CONSULT, closed_at=None)
    if principal.user is None:
        return consults.none()
    of_mine = Q(mentions=principal.user) | Q(author=principal.user)
    return (
        consults.filter(of_mine, study__in=studies_visible_to(principal))
        .select_related("study__site", "author")
        .prefetch_related("mentions")
        .distinct()
        .order_by("-pk")
    )


def teaching_cases(principal: Principal, *, wanted: str = "") -> QuerySet[TeachingCase]:
    """Give the teaching cases that are ready, and one's own whatever their state; narrowed by words."""
    if principal.user is None or not principal.may(Capability.TEACHING_MANAGE):
        return TeachingCase.objects.none()
    cases = TeachingCase.objects.filter(Q(state=TeachingCase.State.READY) | Q(author=principal.user))
    for word in identifying(wanted).split()[:8]:
        text = Q()
        for column in ("title", "diagnosis", "keywords", "history", "findings", "discussion"):
            text |= Q(**{f"{column}__icontains": word})
        cases = cases.filter(text | Q(study__modalities_in_study__icontains=word))
    return cases.select_related("author", "study")
