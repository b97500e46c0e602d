from django.apps import AppConfig


class DimseConfig(AppConfig):
    name = "studies.dimse"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from studies.dimse import commitment, ian, prefetch, routing, ups_events  # noqa: F401  the outbox's handlers
        from studies.dimse.models import Node, PrefetchRule, RoutingRule

        auditlog.register(Node, exclude_fields=["sealed_secret"])
        auditlog.register(RoutingRule, m2m_fields={"nodes"})
        auditlog.register(PrefetchRule, m2m_fields={"nodes"})
