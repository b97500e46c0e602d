"""Freeze what signing covers now, too; preliminary signatures and versions of a report never change."""

from django.db import migrations

FROZEN = (
    *("sections", "values", "template_id", "verification_code", "signed_at", "signed_by_id", "signer_name"),
    *("canonical_text", "sha256", "kind", "ordinal", "report_id"),
)
KEPT = ("sections", "values", "sha256", "canonical_text", "signed_at", "signed_by_id", "part_id", "signer_name")
RETRACTION = ("reason", "retracted_at", "retracted_by_id", "retracter_name", "part_id")
TABLES = (
    ("report_part", "reports_reportpart", FROZEN, "OLD.signed_at IS NOT NULL"),
    ("preliminary", "reports_preliminarysignature", KEPT, ""),
    ("retraction", "reports_retraction", RETRACTION, ""),
)


def freeze(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    if is_postgresql:
        schema_editor.execute(
            "CREATE FUNCTION report_part_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'signed report parts are frozen'; END $$"
        )
    for name, table, columns, condition in TABLES:
        differs = "IS DISTINCT FROM" if is_postgresql else "IS NOT"
        changed = " OR ".join(f"""NEW."{c}" {differs} OLD."{c}\"""" for c in columns)
        update = f"{condition} AND ({changed})" if condition else changed
        delete = condition or "1=1"
        if is_postgresql:
            schema_editor.execute(
                f"CREATE TRIGGER {name}_frozen BEFORE UPDATE ON {table} FOR EACH ROW "
                f"WHEN ({update}) EXECUTE FUNCTION report_part_refuse()"
            )
            schema_editor.execute(
                f"CREATE TRIGGER {name}_kept BEFORE DELETE ON {table} FOR EACH ROW "
                f"WHEN ({delete}) EXECUTE FUNCTION report_part_refuse()"
            )
        else:
            for what, event, when in (("frozen", "UPDATE", update), ("kept", "DELETE", delete)):
                schema_editor.execute(
                    f"CREATE TRIGGER {name}_{what} BEFORE {event} ON {table} WHEN {when} "
                    "BEGIN SELECT RAISE(ABORT, 'signed report parts are frozen'); END"
                )


def thaw(apps, schema_editor):
    for name, table, _, _ in TABLES:
        on = f" ON {table}" if schema_editor.connection.vendor == "postgresql" else ""
        for what in ("frozen", "kept"):
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {name}_{what}{on}")
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP FUNCTION report_part_refuse()")


class Migration(migrations.Migration):
    dependencies = [("reports", "0003_report_desk")]
    operations = [migrations.RunPython(freeze, thaw)]
