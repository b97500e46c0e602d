"""Addresses of the orders and of reconciliation."""

from django.urls import path

from studies.orders import api, views

urlpatterns = [
    path("api/v1/orders/", api.orders, name="api_orders"),
    path("api/v1/orders/<int:pk>/", api.order, name="api_order"),
    path("api/v1/orders/<int:pk>/cancel/", api.cancel, name="api_cancel_order"),
    path("orders/", views.orders, name="orders"),
    path("orders/new/", views.new_order, name="new_order"),
    path("orders/patients/", views.patients, name="order_patients"),
    path("orders/<int:pk>/", views.order, name="order"),
    path("orders/<int:pk>/arrive/", views.arrive, name="arrive_order"),
    path("orders/<int:pk>/cancel/", views.cancel, name="cancel_order"),
]
