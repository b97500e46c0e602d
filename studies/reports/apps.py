from typing import Any

from django.apps import AppConfig
from django.db import connection
from django.db.models.signals import post_migrate


class ReportsConfig(AppConfig):
    name = "studies.reports"

    def ready(self) -> None:
        from studies.reports import distribution  # noqa: F401  registers the outbox's handlers

        post_migrate.connect(bring_templates, sender=self)


def bring_templates(**kwargs: Any) -> None:
    """Bring the built-in templates, unless the migration went back to before there were any."""
    from studies.reports.models import ReportTemplate
    from studies.reports.templates import create_built_in_templates

    if ReportTemplate._meta.db_table in connection.introspection.table_names():
        create_built_in_templates()
