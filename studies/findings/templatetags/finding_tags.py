"""Key images in reports."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from django import template

from studies.findings.models import ImageFinding
from studies.findings.selectors import key_images_of
from studies.models import Study

register = template.Library()


@register.simple_tag
def key_images(study: Study, until: datetime) -> list[ImageFinding]:
    """Give the study's key images for a page that the gate has let through."""
    return list(key_images_of(study, until=until).defer("picture"))


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
