"""Addresses of the reports."""

from django.urls import path

from studies.reports import api, views

REPORT = "reports/<uid:study_instance_uid>"

urlpatterns = [
    path("api/v1/reports/<uid:study_instance_uid>/", api.report, name="api_report"),
    path("reports/", views.reports, name="reports"),
    path(f"{REPORT}/", views.report, name="report"),
    path(f"{REPORT}/report.pdf", views.pdf, name="report_pdf"),
    path(f"{REPORT}/panel/", views.panel, name="report_panel"),
    path(f"{REPORT}/desk/", views.desk, name="report_desk"),
    path(f"{REPORT}/start/", views.start, name="report_start"),
    path(f"{REPORT}/save/", views.save, name="report_save"),
    path(f"{REPORT}/preview/", views.preview, name="report_preview"),
    path(f"{REPORT}/sign/", views.sign, name="report_sign"),
    path(f"{REPORT}/take-over/", views.take_over, name="report_take_over"),
    path(f"{REPORT}/discard/", views.discard, name="report_discard"),
]
