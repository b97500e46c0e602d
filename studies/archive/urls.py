"""Addresses of the storage page and of moving a study between the tiers."""

from django.urls import path

from studies.archive import tier_views

urlpatterns = [
    path("storage/", tier_views.storage, name="storage"),
    path("storage/policy/", tier_views.save_policy, name="save_tier_policy"),
    path("storage/moves/<int:pk>/again/", tier_views.move_again, name="run_tier_move_again"),
    path("studies/<uid:study_instance_uid>/tier/", tier_views.move_study, name="move_study"),
]
