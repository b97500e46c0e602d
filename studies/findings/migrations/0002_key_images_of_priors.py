from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("findings", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="imagefinding",
            name="prior_study_instance_uid",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="imagefinding",
            name="prior_study_date",
            field=models.DateField(null=True),
        ),
    ]
