"""At which site a request works."""

from __future__ import annotations

from django.http import HttpRequest

from accounts.capabilities import Capability
from accounts.models import Site
from studies.access import sites_where
from studies.dicomweb.errors import DicomWebError


def site_for(request: HttpRequest, capability: Capability) -> Site:
    """Give the site: named by ``?site=`` or ``X-Atrium-Site``, else the first where one may. Raises DicomWebError."""
    sites = sites_where(request.principal, capability).order_by("pk")  # type: ignore[attr-defined]
    slug = request.GET.get("site") or request.headers.get("X-Atrium-Site")
    if slug:
        sites = sites.filter(slug=slug) if "\x00" not in slug else sites.none()
    site = sites.first()
    if site is None:
        raise DicomWebError(403, "This account may not do that at that site.")
    return site
