"""The network monitor."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.models import Site
from studies.dimse import monitoring


@require_GET
@capability_required(Capability.NODE_MANAGE)
def network(request: HttpRequest) -> HttpResponse:
    """Show who is connected, what waits and what went wrong; to htmx, that asks every few seconds, only the figures."""
    principal = request.principal  # type: ignore[attr-defined]
    figures = monitoring.figures_of_nodes(principal)
    context = {
        "figures": figures,
        "live": monitoring.live_associations(principal),
        "throughput": monitoring.throughput(principal),
        "troubles": monitoring.latest_troubles(principal),
        "totals": {
            "live": sum(f.live for f in figures),
            "received": sum(f.received for f in figures),
            "received_bytes": sum(f.received_bytes for f in figures),
            "sent": sum(f.sent for f in figures),
            "sent_bytes": sum(f.sent_bytes for f in figures),
            "waiting": sum(f.waiting_to_send + f.waiting_to_retrieve for f in figures),
            "down": sum(1 for f in figures if f.down),
        },
        "open_site": Site.objects.order_by("pk").first() if settings.ATRIUM.dicom_open else None,
    }
    template = "dimse/_network.html" if request.htmx else "dimse/network.html"  # type: ignore[attr-defined]
    response = render(request, template, context)
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response
