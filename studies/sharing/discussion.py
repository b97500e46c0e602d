"""Talking about a study: comments, mentions, requests for a second opinion."""

from __future__ import annotations

import re

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.notifications import notify
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.models import Study
from studies.sharing.errors import NobodyAsked, NotAllowed, NothingSaid, UnknownColleague
from studies.sharing.models import Comment
from studies.sharing.selectors import may_be_told, may_discuss
from studies.trail import subject_of

LONGEST = 4000
MENTION = re.compile(r"(?<![\w@])@([\w.+-]{1,150}?)(?=[\s,;:!?)]|[.](?:\s|$)|$)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@transaction.atomic
def post_comment(*, study: Study, principal: Principal, text: str, is_consult: bool = False) -> Comment:
    """Add words to the study's discussion and tell whom they mention.

    Raises NotAllowed, NothingSaid, UnknownColleague for one who may not see the study, NobodyAsked.
    """
    if principal.user is None or not may_discuss(principal, study):
        raise NotAllowed(_("Only those who see all of the site's studies talk about them here."))
    text = _CONTROL.sub("", text.replace("\r\n", "\n")).encode("utf-8", "replace").decode().strip()[:LONGEST]
    if not text:
        raise NothingSaid(_("Write something first."))
    mentioned = _mentioned(text, study)
    if is_consult and not mentioned:
        raise NobodyAsked(_("Mention whom you ask, such as @name."))
    kind = Comment.Kind.CONSULT if is_consult else Comment.Kind.COMMENT
    comment = Comment.objects.create(study=study, author=principal.user, text=text, kind=kind)
    comment.mentions.set(mentioned)
    _tell([person for person in mentioned if person != principal.user], comment)
    _record(study, principal, f"{kind.value} written", mentions=[person.username for person in mentioned])
    return comment


@transaction.atomic
def close_consult(*, comment: Comment, principal: Principal) -> None:
    """Close a request for a second opinion. Raises NotAllowed for one who neither asked nor was asked."""
    asked = {person.pk for person in comment.mentions.all()} | {comment.author_id}
    if principal.user is None or principal.user.pk not in asked:
        raise NotAllowed(_("Only who asked or was asked can close a request."))
    if comment.is_open_consult:
        comment.closed_at, comment.closed_by = timezone.now(), principal.user
        comment.save(update_fields=["closed_at", "closed_by"])
        _record(comment.study, principal, "consult closed")


def _mentioned(text: str, study: Study) -> list[User]:
    names = dict.fromkeys(MENTION.findall(text))
    people = {person.username: person for person in User.objects.filter(username__in=names)}
    for name in names:
        if name not in people or not may_be_told(people[name], study):
            raise UnknownColleague(_("No colleague @%(name)s can see this study.") % {"name": name})
    return [people[name] for name in names]


def _tell(people: list[User], comment: Comment) -> None:
    asks = comment.kind == Comment.Kind.CONSULT
    text = _("%(name)s asks for your opinion on a study") if asks else _("%(name)s mentioned you on a study")
    notify(
        people,
        key=f"comment:{comment.pk}",
        text=text % {"name": str(comment.author)},
        url=f"{reverse('study', args=[comment.study.study_instance_uid])}#discussion",
        by_email=asks,
    )


def _record(study: Study, principal: Principal, step: str, **details: object) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details={"what": step, **details},
    )
