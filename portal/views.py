"""Home, health and figures."""

from __future__ import annotations

import ipaddress

from celery import current_app
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.files.storage import storages
from django.db import DatabaseError, connection
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from accounts.capabilities import Capability
from accounts.models import User
from studies.dimse.models import AssociationLog, NodeState, Transfer
from studies.ingest.models import QuarantinedFile
from studies.models import DomainEvent, Study


@require_GET
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Send the person to the room where their work is."""
    principal = request.principal  # type: ignore[attr-defined]
    if principal.may(Capability.STUDY_VIEW):
        return redirect("worklist")
    if principal.may(Capability.STUDY_VIEW_REFERRED):
        return redirect("results" if principal.may(Capability.REPORT_READ) else "worklist")
    if principal.may(Capability.AUDIT_VIEW):
        return redirect("audit")
    raise PermissionDenied


@require_POST
@login_required
def theme(request: HttpRequest) -> HttpResponse:
    """Keep the person's choice of light or dark."""
    chosen = request.POST.get("theme", "")
    if chosen not in User.Theme.values:
        return HttpResponse(status=400)
    User.objects.filter(username=request.user.get_username()).update(theme=chosen)
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}):
        back = reverse("home")
    return redirect(back)


@require_GET
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process answers."""
    return HttpResponse("alive\n", content_type="text/plain")


@require_GET
def readyz(request: HttpRequest) -> JsonResponse:
    """Say whether database, storage and broker can be used; 503 when one can't. Tells no more to a stranger."""
    checks = {"database": _database_works(), "storage": _storage_works(), "broker": _broker_works()}
    return JsonResponse(
        {name: "ok" if works else "unavailable" for name, works in checks.items()},
        status=200 if all(checks.values()) else 503,
    )


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


def _broker_works() -> bool:
    try:
        with current_app.connection_for_write(connect_timeout=2) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0)
    except Exception:  # each broker has errors of its own
        return False
    return True


@require_GET
def metrics(request: HttpRequest) -> HttpResponse:
    """Give Prometheus its figures: to this machine, to holders of system.view, or to all where so configured."""
    principal = request.principal  # type: ignore[attr-defined]
    address = principal.ip_address or ""
    is_local = address != "" and ipaddress.ip_address(address).is_loopback and "X-Forwarded-For" not in request.headers
    if not (settings.ATRIUM.metrics_open or is_local or principal.may(Capability.SYSTEM_VIEW)):
        raise PermissionDenied
    registry = CollectorRegistry()
    studies = Gauge("atrium_studies", "Studies by reading status", ["status"], registry=registry)
    for status, count in Study.objects.values_list("status").annotate(Count("pk")).order_by():
        studies.labels(status).set(count)
    quarantined = Gauge("atrium_quarantined_files", "Files in quarantine", registry=registry)
    quarantined.set(QuarantinedFile.objects.count())
    waiting = DomainEvent.objects.filter(delivered_at__isnull=True)
    Gauge("atrium_events_waiting", "Events in the outbox", registry=registry).set(waiting.count())
    oldest = waiting.order_by("created_at").values_list("created_at", flat=True).first()
    age = (timezone.now() - oldest).total_seconds() if oldest else 0
    Gauge("atrium_oldest_event_seconds", "Age of the oldest event in the outbox", registry=registry).set(age)
    transfers = Gauge("atrium_transfers", "Transfers to and from nodes by state", ["status"], registry=registry)
    for status, count in Transfer.objects.values_list("status").annotate(Count("pk")).order_by():
        transfers.labels(status).set(count)
    down = NodeState.objects.filter(down_since__isnull=False).values("node").distinct().count()
    Gauge("atrium_nodes_down", "Nodes that don't answer", registry=registry).set(down)
    live = AssociationLog.objects.filter(closed_at__isnull=True).count()
    Gauge("atrium_associations", "Associations open now", registry=registry).set(live)
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
