"""The database itself refuses to change the signed content of a report, or to delete it."""

from django.db import migrations

FROZEN = (
    "sections",
    "signed_at",
    "signed_by_id",
    "signer_name",
    "canonical_text",
    "sha256",
    "kind",
    "ordinal",
    "report_id",
)


def freeze(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        changed = " OR ".join(f"NEW.{c} IS DISTINCT FROM OLD.{c}" for c in FROZEN)
        schema_editor.execute(
            "CREATE FUNCTION report_part_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'signed report parts are frozen'; END $$"
        )
        schema_editor.execute(
            "CREATE TRIGGER report_part_frozen BEFORE UPDATE ON reports_reportpart FOR EACH ROW "
            f"WHEN (OLD.signed_at IS NOT NULL AND ({changed})) EXECUTE FUNCTION report_part_refuse()"
        )
        schema_editor.execute(
            "CREATE TRIGGER report_part_kept BEFORE DELETE ON reports_reportpart FOR EACH ROW "
            "WHEN (OLD.signed_at IS NOT NULL) EXECUTE FUNCTION report_part_refuse()"
        )
        return
    changed = " OR ".join(f"NEW.{c} IS NOT OLD.{c}" for c in FROZEN)
    schema_editor.execute(
        "CREATE TRIGGER report_part_frozen BEFORE UPDATE ON reports_reportpart "
        f"WHEN OLD.signed_at IS NOT NULL AND ({changed}) "
        "BEGIN SELECT RAISE(ABORT, 'signed report parts are frozen'); END"
    )
    schema_editor.execute(
        "CREATE TRIGGER report_part_kept BEFORE DELETE ON reports_reportpart WHEN OLD.signed_at IS NOT NULL "
        "BEGIN SELECT RAISE(ABORT, 'signed report parts are frozen'); END"
    )


def thaw(apps, schema_editor):
    on = " ON reports_reportpart" if schema_editor.connection.vendor == "postgresql" else ""
    schema_editor.execute(f"DROP TRIGGER report_part_frozen{on}")
    schema_editor.execute(f"DROP TRIGGER report_part_kept{on}")
    if on:
        schema_editor.execute("DROP FUNCTION report_part_refuse()")


class Migration(migrations.Migration):
    dependencies = [("reports", "0001_initial")]
    operations = [migrations.RunPython(freeze, thaw)]
