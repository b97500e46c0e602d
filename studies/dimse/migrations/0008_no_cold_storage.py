from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("dimse", "0007_throughput")]

    operations = [migrations.RemoveField(model_name="prefetchrule", name="from_cold_storage")]
