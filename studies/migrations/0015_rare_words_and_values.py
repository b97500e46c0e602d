import logging

from django.db import DatabaseError, migrations, transaction

logger = logging.getLogger("atrium.migrations")
# What a worklist filters by and few studies, or none, may have: without these all studies are read to find that out.
VALUES = {
    "study_by_modality": "string_to_array(modalities_in_study, '\\')",
    "study_by_body_part": "string_to_array(body_part_examined, '\\')",
}
WORDS = {"study_by_words": "upper(study_description::text) gin_trgm_ops"}


def index(apps, schema_editor):
    """On PostgreSQL only: values that a column holds joined (lookups.Holds), and words by any part of them."""
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    indexes = dict(VALUES)
    with connection.cursor() as cursor:
        try:
            with transaction.atomic(using=connection.alias):
                cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            indexes |= WORDS
        except DatabaseError as error:
            # It's PostgreSQL's own and trusted, but an installation may lack it, or forbid it to our account.
            logger.warning("without pg_trgm searches for a description's words stay slow: %s", error)
        for name, expression in indexes.items():
            cursor.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON studies_study USING gin ({expression})")


def forget(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for name in (*VALUES, *WORDS):
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("studies", "0014_tier"),
    ]

    operations = [
        migrations.RunPython(index, forget),
    ]
