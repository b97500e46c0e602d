from django.apps import AppConfig


class ArchiveConfig(AppConfig):
    name = "studies.archive"

    def ready(self) -> None:
        from studies.archive import recalls  # noqa: F401  the outbox's handlers
