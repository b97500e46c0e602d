from django.db import migrations, models

STATUSES = [
    ("acquiring", "Being acquired"),
    ("arrived", "Arrived"),
    ("in_reading", "In reading"),
    ("preliminary", "Preliminary"),
    ("final", "Final"),
    ("addended", "Addended"),
    ("cancelled", "Cancelled"),
]


class Migration(migrations.Migration):
    dependencies = [("studies", "0012_orders_of_the_archive")]

    operations = [
        migrations.AlterField(
            model_name="study",
            name="status",
            field=models.CharField(choices=STATUSES, default="arrived", max_length=12),
        ),
        migrations.AlterField(
            model_name="statuschange", name="status", field=models.CharField(choices=STATUSES, max_length=12)
        ),
    ]
