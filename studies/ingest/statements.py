"""The statements that every commit of the index makes, written by hand.

For a single instance Django takes several times longer to compose them than a database to run them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from portal.insertion import Insertion
from studies.archive.models import ObjectRemoval, Rejection
from studies.counting import Summary
from studies.models import Instance, Patient, ReferringPhysician, Series, Study

STUDY, SERIES, INSTANCE = Study._meta.db_table, Series._meta.db_table, Instance._meta.db_table
PATIENT, PHYSICIAN = Patient._meta.db_table, ReferringPhysician._meta.db_table
REJECTION, OBJECT_REMOVAL = Rejection._meta.db_table, ObjectRemoval._meta.db_table
# Study Instance UID and the site's key.
StudyKey = tuple[str, int]
insert_patients, insert_physicians = Insertion(Patient), Insertion(ReferringPhysician)
insert_studies, insert_series, insert_instances = Insertion(Study), Insertion(Series), Insertion(Instance)


@dataclass(frozen=True)
class KnownStudy:
    """What the index must know of a study that's there."""

    pk: int
    patient_id: str
    patient_name: str


@dataclass
class KnownSeries:
    """What the index must know of a series that's there."""

    pk: int
    modality: str
    body_part_examined: str
    number_of_instances: int


def _marks(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def is_anything_known(sop_instance_uids: Collection[str], object_keys: Collection[str] = ()) -> bool:
    """Say whether any of the instances is here or rejected, at whatever site, or any of the objects to be removed."""
    sources = [(INSTANCE, "sop_instance_uid", sop_instance_uids), (REJECTION, "sop_instance_uid", sop_instance_uids)]
    if object_keys:
        sources.append((OBJECT_REMOVAL, "object_key", object_keys))
    each = [f"EXISTS (SELECT 1 FROM {table} WHERE {column} IN ({_marks(v)}))" for table, column, v in sources]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {' OR '.join(each)}", [value for _, _, values in sources for value in values])
        row = cursor.fetchone()
    return bool(row and row[0])


def lock_studies(keys: Collection[StudyKey]) -> dict[StudyKey, KnownStudy]:
    """Find studies by Study Instance UID and site, and lock them until the commit, all in one order."""
    uids, sites = {uid for uid, _ in keys}, {site for _, site in keys}
    lock = "FOR UPDATE" if connection.features.has_select_for_update else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT study_instance_uid, site_id, id, patient_id_value, patient_name FROM {STUDY} "
            f"WHERE study_instance_uid IN ({_marks(uids)}) AND site_id IN ({_marks(sites)}) ORDER BY id {lock}",
            [*uids, *sites],
        )
        return {(uid, site): KnownStudy(*values) for uid, site, *values in cursor.fetchall()}


def patients_of(identities: Collection[str], sites: Collection[int]) -> dict[tuple[str, int], int]:
    """Find patients' rows by identity and site."""
    return _found(PATIENT, "identity", identities, sites)


def physicians_of(names: Collection[str], sites: Collection[int]) -> dict[tuple[str, int], int]:
    """Find referring physicians' rows by searchable name and site."""
    return _found(PHYSICIAN, "name_search", names, sites)


def _found(table: str, column: str, values: Collection[str], sites: Collection[int]) -> dict[tuple[str, int], int]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {column}, site_id, id FROM {table} "
            f"WHERE {column} IN ({_marks(values)}) AND site_id IN ({_marks(sites)})",
            [*values, *sites],
        )
        return {(value, site): pk for value, site, pk in cursor.fetchall()}


def series_of(studies: Mapping[int, StudyKey]) -> dict[tuple[StudyKey, str], KnownSeries]:
    """Give all series of the studies, which are named by their rows' keys, by study and Series Instance UID."""
    if not studies:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT study_id, series_instance_uid, id, modality, body_part_examined, number_of_instances "
            f"FROM {SERIES} WHERE study_id IN ({_marks(studies)})",
            list(studies),
        )
        return {(studies[pk], uid): KnownSeries(*values) for pk, uid, *values in cursor.fetchall()}


def grow_series(grown: dict[int, int], *, metadata_due_at: datetime) -> None:
    """Count new current instances, by series, and make what was built of the series stale."""
    if not grown:
        return
    due = connection.ops.adapt_datetimefield_value(metadata_due_at)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {SERIES} SET number_of_instances = number_of_instances + %s, revision = revision + 1, "
            "metadata_due_at = %s WHERE id = %s",
            [(count, due, pk) for pk, count in sorted(grown.items())],
        )


def sum_up_studies(summaries: dict[int, Summary], *, conflicts: Collection[int], now: datetime) -> None:
    """Write what studies now hold, and that instances came."""
    if not summaries:
        return
    at = connection.ops.adapt_datetimefield_value(now)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {STUDY} SET modalities_in_study = %s, body_part_examined = %s, number_of_series = %s, "
            "number_of_instances = %s, has_conflict = (has_conflict OR %s), "
            "unsettled_since = COALESCE(unsettled_since, %s), updated_at = %s WHERE id = %s",
            [(*astuple(s), pk in conflicts, at, at, pk) for pk, s in sorted(summaries.items())],
        )
