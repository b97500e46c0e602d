from django.apps import AppConfig


class SharingConfig(AppConfig):
    name = "studies.sharing"

    def ready(self) -> None:
        from studies.sharing import keeping, teaching  # noqa: F401  they register themselves
