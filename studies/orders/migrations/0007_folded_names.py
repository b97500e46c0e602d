from django.db import migrations

from studies.folded_columns import folding


class Migration(migrations.Migration):
    """Đặng is found by Dang: letters that no mark makes are folded like those that one does."""

    # Each batch is a transaction of its own.
    atomic = False

    dependencies = [("orders", "0006_order_status_changes"), ("studies", "0017_folded_names")]

    operations = [folding("orders", "Order", source="patient__patient_name")]
