from django.db import migrations

from studies.folded_columns import folding


class Migration(migrations.Migration):
    """Đặng is found by Dang: letters that no mark makes are folded like those that one does."""

    # Each batch is a transaction of its own.
    atomic = False

    dependencies = [("studies", "0016_open_cases_in_the_index")]

    operations = [folding("studies", "Study", source="patient_name")]
