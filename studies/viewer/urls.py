"""Addresses of the viewer."""

from django.urls import path

from studies.viewer import views

urlpatterns = [
    path("viewer/app-config.js", views.app_config, name="viewer_config"),
    path("viewer/", views.viewer, name="viewer"),
    path("viewer/<path:asset>", views.viewer, name="viewer_asset"),
]
