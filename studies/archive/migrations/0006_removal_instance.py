"""Removals name the instance that an object was, by which the index is asked whether anybody still names it."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def name_instances(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Take the UID from the key, which ends in <SOP Instance UID>-<hash>.dcm."""
    removals = apps.get_model("archive", "ObjectRemoval").objects
    for removal in removals.iterator():
        removal.sop_instance_uid = removal.object_key.rpartition("/")[2].rpartition("-")[0]
        removal.save(update_fields=["sop_instance_uid"])


class Migration(migrations.Migration):
    """Name the instance of each removal."""

    dependencies = [("archive", "0005_tiers")]

    operations = [
        migrations.AddField(
            model_name="objectremoval",
            name="sop_instance_uid",
            field=models.CharField(
                default="", help_text="Whose it was: instances are found by it, not by the key.", max_length=64
            ),
            preserve_default=False,
        ),
        migrations.RunPython(name_instances, migrations.RunPython.noop),
    ]
