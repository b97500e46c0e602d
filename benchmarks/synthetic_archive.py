"""A made-up archive of any size: study number i is always the same, so that every answer can be checked.

``python -m benchmarks.synthetic_archive N`` writes it into the database of ``ATRIUM_DATA`` or ``ATRIUM_DATABASE_URL``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any

_STARTS = "Ander Berg Carl Dahl Eng Falk Grön Hall Isak Jans Kron Lind Malm Nord Ols Pers Rosen Sand Tor Wall"
_GIVEN = (
    "Anna Bo Cecilia David Eva Fredrik Greta Hans Ida Johan Karin Lars Maria Nils Olga Per Rut Sven Tove Ulf Viktor "
    "Wilma Yngve Åsa Ärla"
)
FAMILIES = [
    f"{start}{middle}{end}"
    for start in _STARTS.split()
    for middle in ("qv", "str", "kv", "b", "l")
    for end in ("ist", "öm", "und", "erg")
]
GIVEN = _GIVEN.split()
MODALITIES = ("CR", "CR", "CR", "CT", "CT", "CT", "MR", "MR", "US", "US", "DX", "DX", "MG", "XA", "NM", "PT\\CT")
FIRST_DAY = date(2016, 1, 1)
DAYS = 3600
STUDIES_OF_A_PATIENT = 3
ROOT = "1.2.826.0.1.3680043.10.1637"


@dataclass(frozen=True)
class SyntheticStudy:
    """One study of the archive, with one series and one instance."""

    number: int

    @property
    def uid(self) -> str:
        return f"{ROOT}.{self.number}"

    @property
    def patient(self) -> int:
        return self.number // STUDIES_OF_A_PATIENT

    @property
    def patient_id(self) -> str:
        return f"P{self.patient:07}"

    @property
    def patient_name(self) -> str:
        family = FAMILIES[self.patient * 7 % len(FAMILIES)]
        # Two given names, so that names are about as many as in a city.
        given = GIVEN[self.patient * 11 % len(GIVEN)], GIVEN[self.patient // 25 % len(GIVEN)]
        return f"{family}^{given[0]}^{given[1]}"

    @property
    def day(self) -> date:
        return FIRST_DAY + timedelta(days=self.number * 7919 % DAYS)

    @property
    def at(self) -> time:
        return time(7 + self.number % 12, self.number * 13 % 60)

    @property
    def accession_number(self) -> str:
        return f"A{self.number:08}"

    @property
    def modalities(self) -> list[str]:
        return MODALITIES[self.number * 5 % len(MODALITIES)].split("\\")


def study_order(studies: Iterable[SyntheticStudy]) -> list[SyntheticStudy]:
    """Give studies as a search gives them: the newest first, of one day the last received first."""
    return sorted(studies, key=lambda study: (study.day, study.number), reverse=True)


@lru_cache(maxsize=2)
def all_studies(count: int) -> list[SyntheticStudy]:
    """Give an archive's studies in the order of a search."""
    return study_order(SyntheticStudy(number) for number in range(count))


def _dicom_json(study: SyntheticStudy) -> str:
    return json.dumps(
        {
            "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
            "00080020": {"vr": "DA", "Value": [f"{study.day:%Y%m%d}"]},
            "00080030": {"vr": "TM", "Value": [f"{study.at:%H%M%S}"]},
            "00080050": {"vr": "SH", "Value": [study.accession_number]},
            "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Referrer^Rita"}]},
            "00081030": {"vr": "LO", "Value": [f"{study.modalities[0]} examination"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": study.patient_name}]},
            "00100020": {"vr": "LO", "Value": [study.patient_id]},
            "00100030": {"vr": "DA", "Value": ["19700101"]},
            "00100040": {"vr": "CS", "Value": ["F"]},
            "0020000D": {"vr": "UI", "Value": [study.uid]},
            "00200010": {"vr": "SH", "Value": [str(study.number)]},
        },
        ensure_ascii=False,
    )


def fill(count: int, *, site_id: int) -> None:
    """Write the archive into the database in bulk: rows as ingest would leave them, without files."""
    from django.db import connection, transaction

    from studies.matching import remember_names
    from studies.models import Instance, Patient, Series, Study
    from studies.person_names import searchable

    now = datetime(2026, 1, 1, tzinfo=UTC)
    studies = [SyntheticStudy(number) for number in range(count)]
    first = 1 + max((m.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) for m in (Patient, Study))

    def patients() -> Iterator[dict[str, Any]]:
        for study in studies[::STUDIES_OF_A_PATIENT]:
            yield {
                "id": first + study.patient,
                "site_id": site_id,
                "identity": f"|{study.patient_id}",
                "patient_id": study.patient_id,
                "patient_name": study.patient_name,
                "patient_birth_date": date(1970, 1, 1),
                "patient_sex": "F",
            }

    def study_rows() -> Iterator[dict[str, Any]]:
        for study in studies:
            yield {
                "id": first + study.number,
                "site_id": site_id,
                "patient_id": first + study.patient,
                "study_instance_uid": study.uid,
                "patient_id_value": study.patient_id,
                "patient_name": study.patient_name,
                "patient_name_search": searchable(study.patient_name),
                "study_date": study.day,
                "study_time": study.at,
                "accession_number": study.accession_number,
                "study_id": str(study.number),
                "study_description": f"{study.modalities[0]} examination",
                "referring_physician_name": "Referrer^Rita",
                "modalities_in_study": "\\".join(sorted(study.modalities)),
                "number_of_series": len(study.modalities),
                "number_of_instances": len(study.modalities),
                "attributes": _dicom_json(study),
                "corrections": "{}",
                "status_at": now,
                "received_at": now,
                "updated_at": now,
            }

    def series_rows() -> Iterator[dict[str, Any]]:
        for study in studies:
            for number, modality in enumerate(study.modalities):
                yield {
                    "id": first + study.number * 2 + number,
                    "study_id": first + study.number,
                    "series_instance_uid": f"{study.uid}.{number}",
                    "modality": modality,
                    "series_number": number + 1,
                    "number_of_instances": 1,
                    "attributes": json.dumps({"00080060": {"vr": "CS", "Value": [modality]}}),
                    "received_at": now,
                }

    def instance_rows() -> Iterator[dict[str, Any]]:
        for study in studies:
            for number, _ in enumerate(study.modalities):
                yield {
                    "id": first + study.number * 2 + number,
                    "series_id": first + study.number * 2 + number,
                    "sop_instance_uid": f"{study.uid}.{number}.1",
                    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.7",
                    "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                    "instance_number": 1,
                    "object_key": f"{study.uid}.{number}.1",
                    "object_length": 0,
                    "sha256": b"",
                    "dataset_offset": 0,
                    "dataset_sha256": b"",
                    "attributes": "{}",
                    "received_at": now,
                }

    tables = ((Patient, patients()), (Study, study_rows()), (Series, series_rows()), (Instance, instance_rows()))
    with transaction.atomic():
        for model, rows in tables:
            _insert(connection, model, rows)
        remember_names(sorted({searchable(study.patient_name) for study in studies}))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for model in (Patient, Study, Series, Instance):
                table = model._meta.db_table
                cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")
            cursor.execute("VACUUM ANALYZE")


def _insert(connection: Any, model: Any, rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows as fast as the database takes them; columns that a row doesn't name get the model's default."""
    fields = [f for f in model._meta.concrete_fields if not f.generated]
    defaults = {f.column: f.get_default() for f in fields}
    columns = [f.column for f in fields]
    quoted = ", ".join(f'"{column}"' for column in columns)
    table = model._meta.db_table

    def values() -> Iterator[list[Any]]:
        for row in rows:
            unknown = row.keys() - defaults.keys()
            assert not unknown, unknown
            yield [row.get(column, defaults[column]) for column in columns]

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({quoted}) FROM STDIN") as copy:
                for value in values():
                    copy.write_row(value)
            return
        # Once, in bulk: SQLite's own conversion of dates and times is deprecated, texts are what Django writes.
        marks = ", ".join(["%s"] * len(columns))
        texts = ([str(v) if isinstance(v, date | time | datetime) else v for v in value] for value in values())
        batch: list[list[Any]] = []
        for value in texts:
            batch.append(value)
            if len(batch) == 5000:
                cursor.executemany(f"INSERT INTO {table} ({quoted}) VALUES ({marks})", batch)
                batch = []
        if batch:
            cursor.executemany(f"INSERT INTO {table} ({quoted}) VALUES ({marks})", batch)


if __name__ == "__main__":
    import os

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    django.setup()
    from accounts.models import Site

    site = Site.objects.get(slug="north")
    fill(int(sys.argv[1]), site_id=site.pk)
