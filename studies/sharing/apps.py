from django.apps import AppConfig


class SharingConfig(AppConfig):
    name = "studies.sharing"

    def ready(self) -> None:
        from studies.sharing import teaching  # noqa: F401  registers the outbox's handler
