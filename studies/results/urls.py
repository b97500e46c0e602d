"""Addresses of results."""

from django.urls import path

from studies.results import views

urlpatterns = [
    path("results/", views.results, name="results"),
    path("patients/<int:pk>/", views.patient, name="patient"),
]
