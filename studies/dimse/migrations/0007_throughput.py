from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("dimse", "0006_commitments")]

    operations = [
        migrations.AddField(
            model_name="associationlog",
            name="is_outgoing",
            field=models.BooleanField(default=False, help_text="We requested it."),
        ),
        migrations.AddField(model_name="associationlog", name="recent", field=models.JSONField(default=list)),
        migrations.AddField(model_name="associationlog", name="sent", field=models.PositiveIntegerField(default=0)),
        migrations.AddField(model_name="associationlog", name="sent_bytes", field=models.BigIntegerField(default=0)),
    ]
