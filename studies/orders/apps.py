from django.apps import AppConfig


class OrdersConfig(AppConfig):
    name = "studies.orders"

    def ready(self) -> None:
        from studies.orders import handlers  # noqa: F401  it registers itself
