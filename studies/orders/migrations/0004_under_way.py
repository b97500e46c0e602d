from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0003_awaiting")]

    operations = [
        migrations.AddIndex(
            model_name="performedprocedurestep",
            index=models.Index(
                condition=models.Q(("status", "IN PROGRESS")),
                fields=["site", "received_at"],
                name="performed_step_under_way",
            ),
        ),
    ]
