from django.apps import AppConfig


class WorklistsConfig(AppConfig):
    name = "studies.worklists"

    def ready(self) -> None:
        from studies.worklists import handlers  # noqa: F401  it registers itself
