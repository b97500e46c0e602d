"""Home, health and figures."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views import defaults
from django.views.decorators.http import require_GET, require_POST
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from accounts.capabilities import Capability
from accounts.gates import capability_required, problem, unauthorized
from accounts.models import User
from portal import health
from studies.archive.models import TierFigure, TierMove
from studies.archive.objects import has_cold_tier
from studies.dimse.models import AssociationLog, NodeState, Transfer
from studies.ingest.models import QuarantinedFile
from studies.models import DomainEvent, Study

# Below these only programs call: they're told of errors as problem+json (RFC 9457).
DICOMWEB = ("/dicom-web", "/wado")
PROTOCOLS = (*DICOMWEB, "/api/")


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


# Seconds after which a program may try again.
RETRY_AFTER = 5


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Refuse what may be forged: as problem+json where programs call, else as a page.

    A program that sent no credential is told so: there was nothing to forge.
    """
    if request.path.startswith(PROTOCOLS):
        if not request.user.is_authenticated:
            return unauthorized()
        return problem(403, "Send the header X-CSRFToken, or a bearer token.")
    return render(request, "403_csrf.html", status=403)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Refuse what Django itself won't take, such as a Host that isn't ours."""
    if request.path.startswith(PROTOCOLS):
        return problem(400, "The request can't be taken: its Host, its length or its number of fields.")
    return defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Say that there's nothing at the address."""
    if request.path.startswith(PROTOCOLS):
        hint = " UIDs are digits and points, at most 64; no list is empty."
        return problem(404, f"There is no such address.{hint if request.path.startswith(DICOMWEB) else ''}")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer what nobody caught: 503 where the database couldn't be used, so that programs try again, otherwise 500."""
    status = 503 if isinstance(sys.exception(), OperationalError) else 500
    text = "The database isn't available; try again later." if status == 503 else "Something broke on our side."
    response: HttpResponse
    if request.path.startswith(PROTOCOLS):
        response = problem(status, text)
    elif request.accepts("text/html"):
        # Without the request: who it is, and what their page shows, is asked of the database.
        response = HttpResponse(render_to_string(f"{status}.html"), status=status)
    else:
        response = HttpResponse(f"{text}\n", content_type="text/plain", status=status)
    if status == 503:
        response["Retry-After"] = str(RETRY_AFTER)
    return response


@require_GET
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process answers."""
    return HttpResponse("alive\n", content_type="text/plain")


@require_GET
def readyz(request: HttpRequest) -> JsonResponse:
    """Say whether database, storage and broker can be used; 503 when one can't.

    Holders of system.view are told the warnings of the health page, too; a stranger no more than that.
    """
    checks = health.necessities()
    told: dict[str, Any] = {name: "ok" if works else "unavailable" for name, works in checks.items()}
    principal = request.principal  # type: ignore[attr-defined]
    if checks["database"] and principal.may(Capability.SYSTEM_VIEW):
        told["warnings"] = health.warnings()
    return JsonResponse(told, status=200 if all(checks.values()) else 503)


@require_GET
@capability_required(Capability.SYSTEM_VIEW)
def health_page(request: HttpRequest) -> HttpResponse:
    """Show an administrator what works, what waits, and what to be warned of."""
    words = {"database": _("Database"), "storage": _("Storage"), "broker": _("Queue of jobs (broker)")}
    parts = [
        {"name": words[name], "works": works, "status": "failed", "label": _("Can't be used")}
        for name, works in health.necessities().items()
    ]
    if has_cold_tier():
        works = health.cold_tier_works()
        parts.append({"name": _("Cold tier"), "works": works, "status": "failed", "label": _("Can't be used")})
    listener = _("DICOM listener, port %(port)s") % {"port": settings.ATRIUM.dicom_port}
    parts.append(
        {
            "name": listener,
            "works": health.listener_answers(),
            "status": "waiting",
            "label": _("Not on this machine"),
        }
    )
    context = {"parts": parts, "warnings": health.warnings(), "figures": health.figures()}
    response = render(request, "health.html", context)
    response["Cache-Control"] = "no-store"
    return response


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
    _measure_tiers(registry)
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _measure_tiers(registry: CollectorRegistry) -> None:
    if not has_cold_tier():
        return
    sizes = Gauge("atrium_tier_bytes", "Bytes by site and tier, as counted last", ["site", "tier"], registry=registry)
    held = Gauge(
        "atrium_tier_studies", "Studies by site and tier, as counted last", ["site", "tier"], registry=registry
    )
    for figure in TierFigure.objects.select_related("site"):
        sizes.labels(figure.site.slug, figure.tier).set(figure.bytes)
        held.labels(figure.site.slug, figure.tier).set(figure.studies)
    moves = Gauge("atrium_tier_moves", "Moves between tiers by state", ["status"], registry=registry)
    for status, count in TierMove.objects.values_list("status").annotate(Count("pk")).order_by():
        moves.labels(status).set(count)
    Gauge("atrium_cold_tier_up", "Whether the cold tier answers", registry=registry).set(health.cold_tier_works())
