from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("workitems", "0001_initial"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="workitem",
            index=models.Index(
                condition=models.Q(("state__in", ["COMPLETED", "CANCELED"])),
                fields=["modified_at"],
                name="workitem_by_end",
            ),
        ),
    ]
