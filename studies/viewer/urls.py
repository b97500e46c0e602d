"""Addresses of the viewer."""

from django.urls import path

from studies.viewer import findings, objects, views

urlpatterns = [
    path("viewer/app-config.js", views.app_config, name="viewer_config"),
    path("viewer/open/<uid:study_instance_uid>/", views.open_study, name="viewer_open"),
    path("viewer/looks/<uid:study_instance_uid>/", views.first_look, name="viewer_first_look"),
    path("viewer/preferences/", views.remember_preference, name="viewer_preferences"),
    path("studies/<uid:study_instance_uid>/findings/", findings.findings, name="findings"),
    path("studies/<uid:study_instance_uid>/findings/<int:pk>/picture.jpg", findings.picture, name="finding_picture"),
    path("studies/<uid:study_instance_uid>/findings/<int:pk>/remove/", findings.remove, name="remove_finding"),
    path("studies/<uid:study_instance_uid>/objects/", objects.study_objects, name="study_objects"),
    path("studies/<uid:study_instance_uid>/objects/<uid:sop_instance_uid>/", objects.study_object, name="study_object"),
    path("viewer/", views.viewer, name="viewer"),
    path("viewer/<path:asset>", views.viewer, name="viewer_asset"),
]
