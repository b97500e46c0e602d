from django.apps import AppConfig
from django.db.models.signals import post_migrate

from studies.sqlite_statistics import tell_sqlite


class StudiesConfig(AppConfig):
    name = "studies"

    def ready(self) -> None:
        from auditlog.registry import auditlog

        from accounts.models import ApiToken, Membership, Practice, Role, Site, User
        from studies import lookups, uids  # noqa: F401  they register themselves
        from studies.models import Patient, ReferringPhysician

        auditlog.register(User, exclude_fields=["last_login", "password"], mask_fields=[])
        auditlog.register(ApiToken, exclude_fields=["digest"])
        for model in (Site, Role, Membership, Practice, Patient, ReferringPhysician):
            auditlog.register(model)
        post_migrate.connect(tell_sqlite, sender=self)
