from django.apps import AppConfig


class ReportsConfig(AppConfig):
    name = "studies.reports"

    def ready(self) -> None:
        from studies.reports import documents  # noqa: F401  registers the outbox's handler
