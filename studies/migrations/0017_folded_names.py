from django.db import migrations

from studies.folded_columns import fold_anew
from studies.person_names import identifying, searchable


def fold(apps, schema_editor):
    """Đặng is found by Dang: letters that no mark makes are folded like those that one does."""
    fold_anew(
        apps.get_model("studies", "Study"), source="patient_name", fold=searchable, alias=schema_editor.connection.alias
    )


def unfold(apps, schema_editor):
    """As the version before keeps and asks for them."""
    fold_anew(
        apps.get_model("studies", "Study"),
        source="patient_name",
        fold=identifying,
        alias=schema_editor.connection.alias,
    )


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("studies", "0016_open_cases_in_the_index")]

    operations = [migrations.RunPython(fold, unfold)]
