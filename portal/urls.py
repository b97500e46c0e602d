"""The portal's addresses."""

from __future__ import annotations

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from portal import views

urlpatterns = [
    path("", views.home, name="home"),
    path("theme/", views.theme, name="theme"),
    path("accounts/", include("allauth.urls")),
    path("", include("accounts.urls")),
    path("", include("portal.audit.urls")),
    path("", include("studies.reports.urls")),
    path("", include("studies.worklists.urls")),
    path("", include("studies.archive.urls")),
    path("", include("studies.orders.urls")),
    path("", include("studies.dicomweb.urls")),
    path("", include("studies.dimse.urls")),
    path("", include("studies.viewer.urls")),
    path("", include("studies.results.urls")),
    path("", include("studies.sharing.urls")),
    path("", include("studies.peer_review.urls")),
    path("api/v1/schema/", SpectacularAPIView.as_view(), name="api_schema"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("health/", views.health_page, name="health"),
    path("metrics", views.metrics, name="metrics"),
]
handler400, handler404, handler500 = views.bad_request, views.not_found, views.server_error
