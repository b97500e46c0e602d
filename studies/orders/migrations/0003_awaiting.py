from typing import Any

import django.utils.timezone
from django.db import migrations, models
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce


def take_from_first_step(apps: Any, schema_editor: Any) -> None:
    steps = apps.get_model("orders", "ScheduledProcedureStep").objects.filter(order=OuterRef("pk")).order_by("pk")
    apps.get_model("orders", "Order").objects.update(
        scheduled_at=Coalesce(Subquery(steps.values("scheduled_at")[:1]), F("placed_at")),
        modality=Coalesce(Subquery(steps.values("modality")[:1]), models.Value("")),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0002_reconciliation"),
    ]

    operations = [
        migrations.AddField(
            model_name="order",
            name="scheduled_at",
            field=models.DateTimeField(default=django.utils.timezone.now),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="order",
            name="modality",
            field=models.CharField(default="", max_length=16),
            preserve_default=False,
        ),
        migrations.RunPython(take_from_first_step, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="order",
            index=models.Index(
                condition=models.Q(("status__in", ["scheduled", "arrived", "in_progress"]), ("study__isnull", True)),
                fields=["site", "scheduled_at", "id"],
                name="order_awaiting",
            ),
        ),
    ]
