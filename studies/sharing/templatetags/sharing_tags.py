"""How comments are shown."""

from __future__ import annotations

from django import template
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from studies.sharing.discussion import MENTION
from studies.sharing.models import Comment

register = template.Library()


@register.filter
def with_mentions(text: str, comment: Comment) -> SafeString:
    """Give the escaped text with the names of mentioned people made to stand out."""
    known = {person.username: str(person) for person in comment.mentions.all()}
    parts, at = [], 0
    for match in MENTION.finditer(text):
        if match[1] not in known:
            continue
        parts.append(conditional_escape(text[at : match.start()]))
        parts.append(f'<span class="mention" title="{conditional_escape(known[match[1]])}">@{conditional_escape(match[1])}</span>')
        at = match.end()
    parts.append(conditional_escape(text[at:]))
    return mark_safe("".join(parts).replace("\n", "<br>"))  # noqa: S308  every part was escaped
