"""Addresses of the reports."""

from django.urls import path

from studies.reports import api, certificate_views, critical_policy_views, critical_views, template_views, views

REPORT = "reports/<uid:study_instance_uid>"

urlpatterns = [
    path("api/v1/reports/<uid:study_instance_uid>/", api.report, name="api_report"),
    path("reports/", views.reports, name="reports"),
    path("reports/passkey/", views.passkey, name="report_passkey"),
    path("reports/verify/<slug:code>/", views.verify, name="report_verify"),
    path("reports/critical/", critical_views.critical_results, name="critical_results"),
    path("reports/critical/settings/", critical_policy_views.critical_settings, name="critical_settings"),
    path("reports/critical/<int:pk>/", critical_views.critical_result, name="critical_result"),
    path("reports/critical/<int:pk>/acknowledge/", critical_views.acknowledge, name="critical_acknowledge"),
    path("reports/critical/<int:pk>/withdraw/", critical_views.withdraw, name="critical_withdraw"),
    path("reports/templates/", template_views.report_templates, name="report_templates"),
    path("reports/templates/new/", template_views.new_template, name="new_report_template"),
    path("reports/templates/editor/", template_views.template_editor, name="report_template_editor"),
    path("reports/templates/import/", template_views.import_template, name="import_report_template"),
    path("reports/templates/<int:pk>/", template_views.edit_template, name="report_template"),
    path("reports/templates/<int:pk>/export/", template_views.export_template, name="export_report_template"),
    path("reports/templates/<int:pk>/retire/", template_views.retire_template, name="retire_report_template"),
    path("reports/macros/", template_views.macros, name="report_macros"),
    path("reports/macros/<int:pk>/delete/", template_views.delete_macro, name="delete_report_macro"),
    path("reports/spelling/", template_views.spelling, name="report_spelling"),
    path("reports/spelling/suggestions/", template_views.suggested_words, name="report_suggested_words"),
    path("reports/spelling/words/", template_views.known_word, name="report_known_word"),
    path("reports/certificates/", certificate_views.site_certificates, name="site_certificates"),
    path("reports/certificates/<int:pk>/", certificate_views.download_certificate, name="site_certificate"),
    path(f"{REPORT}/", views.report, name="report"),
    path(f"{REPORT}/report.pdf", views.pdf, name="report_pdf"),
    path(f"{REPORT}/panel/", views.panel, name="report_panel"),
    path(f"{REPORT}/desk/", views.desk, name="report_desk"),
    path(f"{REPORT}/start/", views.start, name="report_start"),
    path(f"{REPORT}/save/", views.save, name="report_save"),
    path(f"{REPORT}/preview/", views.preview, name="report_preview"),
    path(f"{REPORT}/checks/", views.checks, name="report_checks"),
    path(f"{REPORT}/sign/", views.sign, name="report_sign"),
    path(f"{REPORT}/preliminary/", views.sign_as_preliminary, name="report_preliminary"),
    path(f"{REPORT}/retract/", views.retract, name="report_retract"),
    path(f"{REPORT}/take-over/", views.take_over, name="report_take_over"),
    path(f"{REPORT}/template/", views.change_template, name="report_change_template"),
    path(f"{REPORT}/history/", views.history, name="report_history"),
    path(f"{REPORT}/history/<int:pk>/", views.version, name="report_version"),
    path(f"{REPORT}/history/<int:pk>/restore/", views.restore, name="report_restore"),
    path(f"{REPORT}/priors/", views.opened_prior, name="report_priors"),
    path(f"{REPORT}/critical/", critical_views.flag, name="report_flag_critical"),
    path(f"{REPORT}/discard/", views.discard, name="report_discard"),
]
