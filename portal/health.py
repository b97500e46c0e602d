"""How the installation is: what it needs to work, what waits too long, and what an administrator must be warned of."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.core.files.storage import storages
from django.db import DatabaseError, connection
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import Site
from studies.archive.models import ObjectRemoval, TierMove
from studies.archive.objects import TierUnavailable, has_cold_tier, require_cold_tier
from studies.archive.tier_policies import stranded
from studies.archive.tiers import OPEN
from studies.dimse.models import AssociationLog, NodeState, Transfer
from studies.ingest.models import QuarantinedFile
from studies.models import DomainEvent

# An event that is due for so long tells that no worker runs.
WORKER_IS_LATE = timedelta(minutes=5)
CONNECT_SECONDS = 1.0


@dataclass(frozen=True)
class Figure:
    """One number of the health page and where to look further."""

    name: str
    value: str
    route: str = ""


def necessities() -> dict[str, bool]:
    """Say of each part without which nothing works whether it can be used."""
    return {"database": _database_works(), "storage": _storage_works(), "broker": _broker_works()}


def _database_works() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _storage_works() -> bool:
    try:
        storages["objects"].exists("readiness")
    except Exception:  # each storage has errors of its own
        return False
    return True


def cold_tier_works() -> bool:
    """Say whether the cold tier answers; without it what's hot is served all the same."""
    try:
        require_cold_tier()
    except TierUnavailable:
        return False
    return True


def _broker_works() -> bool:
    try:
        with current_app.connection_for_write(connect_timeout=2) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0)
    except Exception:  # each broker has errors of its own
        return False
    return True


def listener_answers() -> bool:
    """Say whether the DICOM listener answers on this machine; with several machines it may be on another."""
    host = settings.ATRIUM.dicom_host
    address = ("127.0.0.1" if host == "0.0.0.0" else host, settings.ATRIUM.dicom_port)  # noqa: S104  a comparison
    try:
        socket.create_connection(address, CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def open_mode_warning() -> str:
    """Give the warning that unknown devices may store; empty where they may not."""
    if not settings.ATRIUM.dicom_open:
        return ""
    site = Site.objects.order_by("pk").first()
    return _(
        "Open mode: devices that nobody entered may store, too; what they send goes to %(site)s. "
        "Enter your devices, then start Atrium with ATRIUM_DICOM_OPEN=0."
    ) % {"site": site.name if site else _("the first site")}


def warnings() -> list[str]:
    """Give what an administrator should change, in plain words."""
    atrium = settings.ATRIUM
    late = DomainEvent.objects.filter(delivered_at__isnull=True, attempts=0, due_at__lt=timezone.now() - WORKER_IS_LATE)
    found = [
        (bool(atrium.dicom_open), open_mode_warning()),
        (atrium.debug, _("ATRIUM_DEBUG is on: error pages show patients' data.")),
        (
            atrium.email_url.startswith("file://"),
            _("E-mail goes to files and reaches nobody. Set ATRIUM_EMAIL_URL."),
        ),
        (
            not atrium.public_url.startswith("https://"),
            _("People sign in without TLS. Set ATRIUM_PUBLIC_URL to an https:// address."),
        ),
        (
            has_cold_tier() and not cold_tier_works(),
            _("The cold tier can't be reached: studies that lie there can't be opened (ATRIUM_COLD_STORAGE_URL)."),
        ),
        (stranded() > 0, _("Studies lie in a cold tier, but none is configured. Set ATRIUM_COLD_STORAGE_URL again.")),
        (
            ObjectRemoval.objects.filter(failed_at__isnull=False).exists(),
            _(
                "Deleted images can't be removed from storage: others that lie in one object with them are damaged or "
                "can't be moved. The worker's log names them."
            ),
        ),
        (late.exists(), _("Jobs wait for more than five minutes. Is the worker started (manage.py serve worker)?")),
    ]
    return [text for applies, text in found if applies]


def figures() -> list[Figure]:
    """Give what waits or went wrong, over the whole installation."""
    waiting = DomainEvent.objects.filter(delivered_at__isnull=True).count()
    open_transfers = Transfer.objects.filter(status__in=(Transfer.Status.QUEUED, Transfer.Status.RUNNING)).count()
    down = NodeState.objects.filter(down_since__isnull=False).values("node").distinct().count()
    live = AssociationLog.objects.filter(closed_at__isnull=True).count()
    return [
        Figure(_("Jobs waiting"), f"{waiting:,}"),
        Figure(_("Transfers waiting"), f"{open_transfers:,}", "transfers"),
        Figure(_("Nodes that don't answer"), f"{down:,}", "network"),
        Figure(_("Live associations"), f"{live:,}", "network"),
        *_moves(),
        Figure(_("Files in quarantine"), f"{QuarantinedFile.objects.count():,}", "quarantine"),
    ]


def _moves() -> list[Figure]:
    if not has_cold_tier():
        return []
    waiting = TierMove.objects.filter(status__in=OPEN).count()
    failed = TierMove.objects.filter(status=TierMove.Status.FAILED).count()
    return [
        Figure(_("Moves between tiers"), f"{waiting:,}", "storage"),
        Figure(_("Failed moves"), f"{failed:,}", "storage"),
    ]
