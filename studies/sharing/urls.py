"""Addresses of what colleagues share."""

from django.urls import path

from studies.sharing import views

urlpatterns = [
    path("studies/<uid:study_instance_uid>/discussion/", views.discussion, name="discussion"),
    path("studies/<uid:study_instance_uid>/discussion/<int:pk>/close/", views.close_consult, name="close_consult"),
    path("studies/<uid:study_instance_uid>/teach/", views.new_teaching_case, name="new_teaching_case"),
    path("consults/", views.consults, name="consults"),
    path("teaching/", views.teaching_files, name="teaching_files"),
    path("teaching/<int:pk>/", views.teaching_case, name="teaching_case"),
    path("teaching/<int:pk>/edit/", views.edit_teaching_case, name="edit_teaching_case"),
    path("teaching/<int:pk>/delete/", views.delete_teaching_case, name="delete_teaching_case"),
]
