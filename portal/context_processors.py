"""What every page needs."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext as _

from accounts.capabilities import Capability as C
from accounts.models import Site
from accounts.notifications import unread_of
from accounts.principals import EVERY_SITE, Principal
from portal.demo.people import PEOPLE
from studies.reports.critical import open_critical_results

# Route name, label, icon, key, and the capabilities of which one is needed.
ROOMS = (
    ("results", "Results", "report", "w", (C.STUDY_VIEW_REFERRED,)),
    ("worklist", "Worklist", "worklist", "w", (C.STUDY_VIEW,)),
    ("orders", "Orders", "calendar", "o", (C.ORDER_MANAGE,)),
    ("dashboard", "Dashboard", "activity", "b", (C.CASE_ASSIGN,)),
    ("mismatches", "Reconcile", "link", "m", (C.STUDY_CORRECT,)),
    ("reports", "Reports", "report", "r", (C.REPORT_WRITE, C.REPORT_TEMPLATE_MANAGE)),
    ("critical_results", "Critical", "flag", "c", (C.REPORT_READ, C.REPORT_WRITE)),
    ("consults", "Consults", "users", "g c", (C.REPORT_WRITE,)),
    ("teaching_files", "Teaching", "bookmark", "g t", (C.TEACHING_MANAGE,)),
    ("peer_reviews", "Peer review", "eye", "g p", (C.PEER_REVIEW,)),
    ("upload", "Upload", "upload", "u", (C.STUDY_UPLOAD,)),
    ("quarantine", "Quarantine", "alert", "q", (C.QUARANTINE_VIEW,)),
    ("rejected", "Rejected", "ban", "g r", (C.STUDY_REJECT,)),
    ("audit", "Audit trail", "shield", "a", (C.AUDIT_VIEW,)),
    ("remote_query", "Remote archives", "server", "e", (C.STUDY_SEND,)),
    ("network", "Network", "network", "d", (C.NODE_MANAGE,)),
    ("storage", "Storage", "database", "g s", (C.STORAGE_MANAGE,)),
    ("health", "Health", "heart-rate-monitor", "g h", (C.SYSTEM_VIEW,)),
)

# As many as fit beside each other on a small laptop; the others are in a menu.
MOST_IN_BAR = 9


def portal(request: HttpRequest) -> dict[str, Any]:
    """Give the navigation that the person's capabilities allow, and the names of their sites."""
    principal = getattr(request, "principal", None)
    if principal is None or principal.is_stranger:
        return {"navigation": [], "demo_people": _demo_people(request)}
    # Only what a template uses is looked up: parts of a page use none of it.
    rooms = cache(lambda: _navigation(request, principal))
    return {
        "navigation": SimpleLazyObject(lambda: rooms()[:MOST_IN_BAR]),
        "navigation_more": SimpleLazyObject(lambda: rooms()[MOST_IN_BAR:]),
        "person_sites": SimpleLazyObject(lambda: _site_names(principal)),
        "unread": SimpleLazyObject(lambda: unread_of(principal.user).count() if principal.user is not None else 0),
    }


def _navigation(request: HttpRequest, principal: Principal) -> list[dict[str, Any]]:
    navigation: list[dict[str, Any]] = []
    for name, label, icon, key, capabilities in ROOMS:
        if any(principal.may(c) for c in capabilities):
            url = reverse(name)
            navigation.append({"url": url, "label": _(label), "icon": icon, "key": key, "name": name})
    # Of rooms inside rooms only the innermost is where one is.
    here = max((item["url"] for item in navigation if request.path.startswith(item["url"])), key=len, default="")
    for item in navigation:
        item["active"] = item["url"] == here
        item["count"] = _critical_count(principal) if item["name"] == "critical_results" else 0
    return navigation


def _critical_count(principal: Principal) -> int:
    if not (principal.may(C.REPORT_READ) or principal.may(C.REPORT_WRITE)):
        return 0
    return open_critical_results(principal).count()


def _site_names(principal: Principal) -> list[str]:
    site_ids = {site_id for _, site_id in principal.grants if site_id is not EVERY_SITE}
    holds_everywhere = any(site_id is EVERY_SITE for _, site_id in principal.grants)
    sites = Site.objects.all() if holds_everywhere else Site.objects.filter(pk__in=site_ids)
    return list(sites.filter(is_teaching=False).values_list("name", flat=True))


def _demo_people(request: HttpRequest) -> list[dict[str, str]]:
    if request.path != reverse("account_login") or not (settings.ATRIUM.data / "demo-installed").exists():
        return []
    return [
        {"username": username, "role": role, "site": ", ".join(slug or "all sites" for slug in slugs)}
        for username, (_, _, role, slugs) in PEOPLE.items()
    ]
