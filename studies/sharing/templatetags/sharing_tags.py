"""How comments are shown."""

from __future__ import annotations

from django import template
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from studies.sharing.discussion import MENTION
from studies.sharing.models import Comment

register = template.Library()


@register.filter
def with_mentions(text: str, comment: Comment) -> SafeString:
    """Give the escaped text with the names of mentioned people made to stand out."""
    known = {person.username: str(person) for person in comment.mentions.all()}
    parts: list[str] = []
    at = 0
    for match in MENTION.finditer(text):
        if match[1] in known:
            mention = format_html('<span class="mention" title="{}">@{}</span>', known[match[1]], match[1])
            parts += (conditional_escape(text[at : match.start()]), mention)
            at = match.end()
    parts.append(conditional_escape(text[at:]))
    return mark_safe("".join(parts).replace("\n", "<br>"))  # noqa: S308  every part was escaped
