"""Key images in reports."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from django import template
from django.template import Context
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from studies.access import studies_visible_to
from studies.findings.models import ImageFinding
from studies.findings.places import Meant, places_in
from studies.findings.selectors import key_images_of
from studies.models import Study

register = template.Library()


@register.simple_tag(takes_context=True)
def key_images(context: Context, study: Study, until: datetime) -> list[tuple[ImageFinding, str]]:
    """Give the study's key images for a page that the gate has let through, each with the study that opens with it.

    That's empty where the image is a prior's that the reader of the report may not see.
    """
    findings = list(key_images_of(study, until=until).defer("picture"))
    priors = {f.prior_study_instance_uid for f in findings} - {""}
    visible = studies_visible_to(context["request"].principal).filter(study_instance_uid__in=priors)
    known = {"": study.study_instance_uid, **{uid: uid for uid in visible.values_list("study_instance_uid", flat=True)}}
    return [(finding, known.get(finding.prior_study_instance_uid, "")) for finding in findings]


@register.simple_tag
def embedded_key_images(study: Study, until: datetime) -> list[dict[str, Any]]:
    """Give the study's key images with their pictures as data URIs, for a document that stands alone."""
    return [
        {
            "finding": finding,
            "source": f"data:image/jpeg;base64,{base64.b64encode(bytes(finding.picture or b'')).decode()}",
        }
        for finding in key_images_of(study, until=until)
    ]


@register.simple_tag(takes_context=True)
def image_links(context: Context, text: str, study: Study) -> SafeString:
    """Give a report's text with links where it names an image; where one may mean several, with one for each.

    Images of the patient's earlier studies are linked for those who may see them.
    """
    pieces: list[SafeString] = []
    at = 0
    for place in places_in(study, text, studies_visible_to(context["request"].principal)):
        words = text[place.start : place.end]
        pieces.append(format_html("{}", text[at : place.start]))
        pieces.append(_links(words, place.images) if place.images else format_html("{}", words))
        at = place.end
    return format_html_join("", "{}", ((piece,) for piece in [*pieces, text[at:]]))


def _links(words: str, images: tuple[Meant, ...]) -> SafeString:
    first = _link(images[0], words)
    if len(images) == 1:
        return first
    numbered = (_link(image, str(number)) for number, image in enumerate(images, 1))
    which = _("More than one series has this number")
    return format_html(
        '{}<sup class="which-image no-print" title="{}">{}</sup>',
        first,
        which,
        format_html_join(" ", "{}", ((n,) for n in numbered)),
    )


def _link(image: Meant, words: str) -> SafeString:
    address = (
        f"{reverse('study', args=[image.study_instance_uid])}?sop={image.sop_instance_uid}&frame={image.frame_number}"
    )
    return format_html(
        '<a href="{}" data-jump data-study="{}" data-sop="{}" data-frame="{}" title="{}">{}</a>',
        address,
        image.study_instance_uid,
        image.sop_instance_uid,
        image.frame_number,
        image.series_description or _("Show the image"),
        words,
    )
