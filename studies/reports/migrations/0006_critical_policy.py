import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_notification"), ("reports", "0005_reading")]

    operations = [
        migrations.CreateModel(
            name="CriticalPolicy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "category",
                    models.PositiveSmallIntegerField(choices=[(1, "1, minutes"), (2, "2, hours"), (3, "3, days")]),
                ),
                ("deadline_minutes", models.PositiveIntegerField()),
                (
                    "step_minutes",
                    models.PositiveIntegerField(help_text="Once late, the next ones are told after each such span."),
                ),
                ("levels", models.JSONField(help_text="In order, who is told: groups by name, people by id.")),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "site",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="critical_policies",
                        to="accounts.site",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="criticalpolicy",
            constraint=models.UniqueConstraint(fields=("site", "category"), name="critical_policy_unique"),
        ),
    ]
