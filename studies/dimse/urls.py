"""Addresses of the nodes."""

from django.urls import path

from studies.dimse import views

urlpatterns = [
    path("nodes/", views.nodes, name="nodes"),
    path("nodes/new/", views.new_node, name="new_node"),
    path("nodes/<int:pk>/", views.node, name="node"),
    path("nodes/<int:pk>/verify/", views.verify, name="verify_node"),
    path("nodes/<int:pk>/delete/", views.delete, name="delete_node"),
]
