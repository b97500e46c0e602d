from typing import Any

from celery.signals import worker_ready
from django.apps import AppConfig


class IngestConfig(AppConfig):
    name = "studies.ingest"

    def ready(self) -> None:
        from studies.ingest import leftovers

        def keep_swept(**_: Any) -> None:
            leftovers.keep_swept()

        worker_ready.connect(keep_swept, weak=False, dispatch_uid="leftovers")
