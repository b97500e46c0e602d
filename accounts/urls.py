"""Addresses of a person's own notices."""

from django.urls import path

from accounts import notification_views

urlpatterns = [
    path("notifications/", notification_views.notifications, name="notifications"),
    path("notifications/bell/", notification_views.bell, name="notification_bell"),
    path("notifications/read/", notification_views.read, name="notifications_read"),
    path("notifications/<int:pk>/", notification_views.follow, name="notification"),
]
