from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("studies", "0011_series_in_order"),
    ]

    operations = [
        migrations.RemoveIndex(model_name="study", name="study_in_name_order"),
        migrations.RemoveIndex(model_name="study", name="study_by_arrival"),
        migrations.AddIndex(
            model_name="study",
            index=models.Index(fields=["-received_at", "-id", "site"], name="study_by_arrival"),
        ),
    ]
