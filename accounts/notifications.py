"""Telling people: a bell in the portal, and e-mail that names no patient. Rooms above call ``notify``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import F, QuerySet
from django.urls import reverse
from django.utils import timezone

from accounts.models import Notification, User

logger = logging.getLogger("atrium.notifications")
FIRST_RETRY, LAST_RETRY = timedelta(seconds=60), timedelta(hours=2)
MOST_ATTEMPTS = 30
AT_ONCE = 100


@transaction.atomic
def notify(
    users: Iterable[User], *, key: str, text: str, url: str, is_urgent: bool = False, by_email: bool = False
) -> list[Notification]:
    """Tell people once of what ``key`` stands for; give the notices that are new.

    ``text`` and ``url`` must name no patient. With ``by_email``, those who have an address get a message, too.
    """
    told = []
    for user in users:
        wants_email = by_email and bool(user.email)
        notice, is_new = Notification.objects.get_or_create(
            user=user,
            key=key[:100],
            defaults={
                "text": text[:200],
                "url": url[:200],
                "is_urgent": is_urgent,
                "email_due_at": timezone.now() if wants_email else None,
            },
        )
        if is_new:
            told.append(notice)
    if any(notice.email_due_at for notice in told):
        transaction.on_commit(lambda: current_app.send_task("accounts.tasks.send_due_emails"), robust=True)
    return told


def notifications_of(user: User) -> QuerySet[Notification]:
    """Give a person's notices, newest first."""
    return Notification.objects.filter(user=user).order_by("-pk")


def unread_of(user: User) -> QuerySet[Notification]:
    """Give what a person hasn't seen yet, urgent first."""
    return Notification.objects.filter(user=user, read_at=None).order_by("-is_urgent", "-pk")


def mark_read(*, user: User, pk: int | None = None) -> None:
    """Mark one of the person's notices as seen, or all."""
    notices = Notification.objects.filter(user=user, read_at=None)
    (notices if pk is None else notices.filter(pk=pk)).update(read_at=timezone.now())


def mark_key_read(*, key: str, user: User | None = None) -> None:
    """Mark what's dealt with as seen, for one person or all who were told."""
    notices = Notification.objects.filter(key=key, read_at=None)
    (notices if user is None else notices.filter(user=user)).update(read_at=timezone.now())


def send_due_emails() -> int:
    """Send what waits to be sent and give how many went out; a failed one comes again later, ever more slowly."""
    sent = 0
    for notice in _lease():
        message = EmailMessage(
            subject=f"Atrium: {notice.text}",
            # By way of the notice: where it leads may name a study, and a study's UID its patient.
            body=f"{notice.text}\n\n{settings.ATRIUM.public_url}{reverse('notification', args=[notice.pk])}\n\n"
            "Sign in to see what it's about. This message names no patient on purpose.\n",
            to=[notice.user.email],
        )
        try:
            message.send()
        except Exception:  # any mail server's error; the lease brings it again
            logger.exception("e-mail for notification %s failed", notice.pk)
        else:
            Notification.objects.filter(pk=notice.pk).update(email_due_at=None)
            sent += 1
    return sent


@transaction.atomic
def _lease() -> list[Notification]:
    now = timezone.now()
    due = list(
        Notification.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(email_due_at__lte=now)
        .select_related("user")[:AT_ONCE]
    )
    for notice in due:
        wait = min(FIRST_RETRY * 2 ** min(notice.email_attempts, 10), LAST_RETRY)
        again = None if notice.email_attempts >= MOST_ATTEMPTS else now + wait
        Notification.objects.filter(pk=notice.pk).update(email_due_at=again, email_attempts=F("email_attempts") + 1)
    return due
