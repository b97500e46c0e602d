"""Talking about a study: comments, mentions, requests for a second opinion."""

from __future__ import annotations

import re

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.notifications import mark_key_read, notify
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
    _tell_of_answer(comment, besides={principal.user.pk, *(person.pk for person in mentioned)})
    _record(study, principal, f"{kind.value} written", mentions=[person.username for person in mentioned])
    return comment


@transaction.atomic
def close_consult(*, comment: Comment, principal: Principal) -> None:
    """Close a request for a second opinion. Raises NotAllowed for one who neither asked nor was asked."""
    if principal.user is None or not may_close(comment, principal.user):
        raise NotAllowed(_("Only who asked or was asked can close a request."))
    if comment.is_open_consult:
        comment.closed_at, comment.closed_by = timezone.now(), principal.user
        comment.save(update_fields=["closed_at", "closed_by"])
        mark_key_read(key=f"comment:{comment.pk}")
        if comment.author != principal.user and may_be_told(comment.author, comment.study):
            text = _("%(name)s closed your request for an opinion") % {"name": str(principal.user)}
            notify([comment.author], key=f"consult-closed:{comment.pk}", text=text, url=_address(comment.study))
        _record(comment.study, principal, "consult closed")


def may_close(consult: Comment, user: User) -> bool:
    """Say whether the person asked for the opinion or was asked."""
    return consult.author_id == user.pk or any(person.pk == user.pk for person in consult.mentions.all())


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
        url=_address(comment.study),
        by_email=asks,
    )


def _tell_of_answer(comment: Comment, *, besides: set[int]) -> None:
    """Tell those who wait for an opinion, or were asked for it, that another of them has written."""
    consults = Comment.objects.filter(study=comment.study, kind=Comment.Kind.CONSULT, closed_at=None)
    people: dict[int, User] = {}
    for consult in consults.exclude(pk=comment.pk).select_related("author").prefetch_related("mentions"):
        if may_close(consult, comment.author):
            people |= {person.pk: person for person in (consult.author, *consult.mentions.all())}
    text = _("%(name)s wrote on a study that you talk about") % {"name": str(comment.author)}
    told = [one for one in people.values() if one.pk not in besides and may_be_told(one, comment.study)]
    notify(told, key=f"comment:{comment.pk}", text=text, url=_address(comment.study), by_email=True)


def _address(study: Study) -> str:
    return f"{reverse('study', args=[study.study_instance_uid])}#discussion"


def _record(study: Study, principal: Principal, step: str, **details: object) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        **subject_of(study),
        details={"what": step, **details},
    )
