"""What pages of other rooms say of the viewer."""

from __future__ import annotations

from django import template

from studies.viewer.hanging import PROTOCOLS

register = template.Library()


@register.simple_tag
def hanging_protocols() -> dict[str, str]:
    """Give the hanging protocols on offer with their labels."""
    return PROTOCOLS
