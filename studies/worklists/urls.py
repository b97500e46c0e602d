"""Addresses of the worklist, the study page, upload and quarantine."""

from django.urls import path

from studies.worklists import api, uploads, views

urlpatterns = [
    path("api/v1/studies/", api.studies, name="api_studies"),
    path("api/v1/studies/<uid:study_instance_uid>/", api.study, name="api_study"),
    path("worklist/", views.worklist, name="worklist"),
    path("worklist/next/", views.next_case, name="next_case"),
    path("worklist/filters/", views.save_filter, name="save_filter"),
    path("worklist/filters/<int:pk>/delete/", views.delete_filter, name="delete_filter"),
    path("studies/<uid:study_instance_uid>/", views.study, name="study"),
    path("upload/", uploads.upload, name="upload"),
    path("upload/files/", uploads.upload_file, name="upload_file"),
    path("quarantine/", uploads.quarantine, name="quarantine"),
    path("quarantine/<int:pk>/", uploads.quarantined_file, name="quarantined_file"),
]
