from django.db import migrations

STORAGE_MANAGE = "storage.manage"


def give_to_administrators(apps, schema_editor):
    for role in apps.get_model("accounts", "Role").objects.filter(slug="administrator"):
        role.capabilities = sorted({*role.capabilities, STORAGE_MANAGE})
        role.save(update_fields=["capabilities"])


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_teaching_site")]

    operations = [migrations.RunPython(give_to_administrators, migrations.RunPython.noop)]
