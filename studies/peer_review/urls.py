"""Addresses of peer review."""

from django.urls import path

from studies.peer_review import views

urlpatterns = [
    path("peer-review/", views.peer_reviews, name="peer_reviews"),
    path("peer-review/figures/", views.peer_review_figures, name="peer_review_figures"),
    path("peer-review/programmes/<int:pk>/", views.set_programme, name="set_peer_review_programme"),
    path("peer-review/<int:pk>/", views.peer_review, name="peer_review"),
    path("peer-review/<int:pk>/result/", views.peer_review_result, name="peer_review_result"),
]
