"""At which site a request works."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.capabilities import Capability
from accounts.credentials import Remembered
from accounts.models import Site
from accounts.principals import Principal
from studies.access import sites_where
from studies.dicomweb.errors import DicomWebError

# By the sites where one may, None for all, and the name asked for.
_sites: Remembered[Site] = Remembered()


def site_for(request: HttpRequest, capability: Capability) -> Site:
    """Give the site: named by ``?site=`` or ``X-Atrium-Site``, else the first where one may. Raises DicomWebError."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    slug = request.GET.get("site") or request.headers.get("X-Atrium-Site") or ""
    key = principal.sites_with(capability), slug
    site = _sites.get(key)
    if site is None:
        site = _first(sites_where(principal, capability), slug)
        _sites.put(key, site)
    return site


def _first(sites: QuerySet[Site], slug: str) -> Site:
    if slug:
        sites = sites.filter(slug=slug) if "\x00" not in slug else sites.none()
    site = sites.order_by("pk").first()
    if site is None:
        raise DicomWebError(403, "This account may not do that at that site.")
    return site
