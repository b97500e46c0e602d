"""The building: settings, addresses, processes, health, storage backends."""

from portal.celery import app as celery_app

__all__ = ["celery_app"]
