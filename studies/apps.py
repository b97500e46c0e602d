from django.apps import AppConfig


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
