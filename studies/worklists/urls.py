"""Addresses of the worklist, the study page, upload and quarantine."""

from django.urls import path

from studies.worklists import api, cases, dashboard, filters, rejections, sharing, uploads, views

urlpatterns = [
    path("api/v1/studies/", api.studies, name="api_studies"),
    path("api/v1/studies/<uid:study_instance_uid>/", api.study, name="api_study"),
    path("worklist/", views.worklist, name="worklist"),
    path("worklist/rows/", views.rows, name="worklist_rows"),
    path("worklist/bulk/", views.bulk, name="worklist_bulk"),
    path("worklist/columns/", views.save_columns, name="save_columns"),
    path("worklist/next/", cases.next_case, name="next_case"),
    path("worklist/upcoming/", cases.upcoming, name="upcoming_cases"),
    path("worklist/filters/", filters.saved_filters, name="saved_filters"),
    path("worklist/filters/<int:pk>/", filters.saved_filter, name="saved_filter"),
    path("worklist/filters/<int:pk>/replace/", filters.replace_filter, name="replace_filter"),
    path("worklist/filters/<int:pk>/move/", filters.move_filter, name="move_filter"),
    path("worklist/filters/<int:pk>/delete/", filters.delete_filter, name="delete_filter"),
    path("studies/<uid:study_instance_uid>/", cases.study, name="study"),
    path("studies/<uid:study_instance_uid>/claim/", cases.claim, name="claim_case"),
    path("studies/<uid:study_instance_uid>/release/", cases.release, name="release_case"),
    path("studies/<uid:study_instance_uid>/assign/", cases.assign, name="assign_case"),
    path("studies/<uid:study_instance_uid>/priority/", cases.priority, name="case_priority"),
    path("studies/<uid:study_instance_uid>/reject/", rejections.reject, name="reject"),
    path("rejected/", rejections.rejected, name="rejected"),
    path("rejected/restore/", rejections.restore, name="restore_rejected"),
    path("dashboard/", dashboard.dashboard, name="dashboard"),
    path("worklist/sharing/", sharing.sharing, name="case_sharing"),
    path("worklist/sharing/<slug:kind>/new/", sharing.new, name="new_sharing"),
    path("worklist/sharing/<slug:kind>/<int:pk>/", sharing.change, name="change_sharing"),
    path("worklist/sharing/<slug:kind>/<int:pk>/delete/", sharing.delete, name="delete_sharing"),
    path("upload/", uploads.upload, name="upload"),
    path("upload/files/", uploads.upload_file, name="upload_file"),
    path("quarantine/", uploads.quarantine, name="quarantine"),
    path("quarantine/<int:pk>/", uploads.quarantined_file, name="quarantined_file"),
]
