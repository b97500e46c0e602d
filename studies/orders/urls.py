"""Addresses of the orders and of reconciliation."""

from django.urls import path

from studies.orders import api, reconciliation_views, views

urlpatterns = [
    path("api/v1/orders/", api.orders, name="api_orders"),
    path("api/v1/orders/<int:pk>/", api.order, name="api_order"),
    path("api/v1/orders/<int:pk>/cancel/", api.cancel, name="api_cancel_order"),
    path("reconciliation/", reconciliation_views.mismatches, name="mismatches"),
    path("reconciliation/<uid:study_instance_uid>/", reconciliation_views.reconcile, name="reconcile"),
    path("reconciliation/<uid:study_instance_uid>/link/", reconciliation_views.link, name="link_study"),
    path(
        "reconciliation/<uid:study_instance_uid>/patient/", reconciliation_views.correct_patient, name="correct_patient"
    ),
    path(
        "reconciliation/<uid:study_instance_uid>/no-order/", reconciliation_views.needs_no_order, name="needs_no_order"
    ),
    path("reconciliation/<uid:study_instance_uid>/list-again/", reconciliation_views.list_again, name="list_again"),
    path(
        "reconciliation/<uid:study_instance_uid>/undo/<int:pk>/", reconciliation_views.undo, name="undo_reconciliation"
    ),
    path("orders/", views.orders, name="orders"),
    path("orders/new/", views.new_order, name="new_order"),
    path("orders/patients/", views.patients, name="order_patients"),
    path("orders/<int:pk>/", views.order, name="order"),
    path("orders/<int:pk>/arrive/", views.arrive, name="arrive_order"),
    path("orders/<int:pk>/cancel/", views.cancel, name="cancel_order"),
]
