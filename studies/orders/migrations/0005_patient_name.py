from typing import Any

from django.db import migrations, models, transaction

from studies.person_names import searchable

BATCH = 2000


def take_from_patients(apps: Any, schema_editor: Any) -> None:
    """Some rows at a time, each batch a transaction of its own: nobody waits for all of them."""
    orders = apps.get_model("orders", "Order").objects
    last = 0
    while batch := list(orders.filter(pk__gt=last).select_related("patient").order_by("pk")[:BATCH]):
        for order in batch:
            order.patient_name_search = searchable(order.patient.patient_name)
        with transaction.atomic(using=schema_editor.connection.alias):
            orders.bulk_update(batch, ["patient_name_search"], batch_size=500)
        last = batch[-1].pk


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("orders", "0004_under_way")]

    operations = [
        migrations.AddField(
            model_name="order",
            name="patient_name_search",
            field=models.CharField(blank=True, default="", max_length=324),
            preserve_default=False,
        ),
        migrations.RunPython(take_from_patients, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="order",
            index=models.Index(fields=["patient_name_search"], name="order_by_name", opclasses=["varchar_pattern_ops"]),
        ),
    ]
