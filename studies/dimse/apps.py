from django.apps import AppConfig


class DimseConfig(AppConfig):
    name = "studies.dimse"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from studies.dimse.models import Node

        auditlog.register(Node, exclude_fields=["sealed_secret"])
