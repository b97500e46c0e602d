"""What pages of other rooms say of the viewer."""

from __future__ import annotations

from django import template
from django.conf import settings
from django.http import HttpRequest
from django.template import Context

from accounts.gates import principal_of
from studies.models import Instance, Study
from studies.viewer.files import first_files
from studies.viewer.first_look import FirstLook, first_look_of
from studies.viewer.hanging import PROTOCOLS, Hanging, hanging_of
from studies.viewer.objects import objects_of

register = template.Library()


@register.simple_tag
def hanging_protocols() -> dict[str, str]:
    """Give the hanging protocols on offer with their labels."""
    return PROTOCOLS


@register.simple_tag(takes_context=True)
def hanging_protocol(context: Context, study: Study) -> str:
    """Give the protocol with which the study opens, for a page that the gate has let through."""
    return _hanging(context["request"], study).protocol


@register.simple_tag
def viewer_files() -> str:
    """Give the addresses of the viewer's first files, for a page from which one goes on to a study."""
    return " ".join(first_files(settings.ATRIUM.viewer_root))


@register.simple_tag
def objects_beside(study: Study) -> list[Instance]:
    """Give what the study has beside its images, for a page that the gate has let through."""
    return list(objects_of(study)[:12])


@register.simple_tag(takes_context=True)
def first_look(context: Context, study: Study) -> FirstLook | None:
    """Give what OHIF will show first, for a page that the gate has let through, unless another image is asked for."""
    request = context["request"]
    if "sop" in request.GET:
        return None
    return first_look_of(principal_of(request), study, hanging=_hanging(request, study))


def _hanging(request: HttpRequest, study: Study) -> Hanging:
    """Give how the study is hung, looked up once for a page."""
    known: dict[int, Hanging] = request.__dict__.setdefault("_hangings", {})
    if study.pk not in known:
        known[study.pk] = hanging_of(principal_of(request), study)
    return known[study.pk]
