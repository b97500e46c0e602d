"""Addresses of the trail."""

from django.urls import path

from portal.audit import views

urlpatterns = [
    path("audit/", views.audit, name="audit"),
    path("audit/verify/", views.verify, name="audit_verify"),
    path("audit/export.csv", views.export, name="audit_export"),
]
