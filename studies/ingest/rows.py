"""Rows that the index lacks: patients, studies and series of the instances that came, many at a time.

Two senders may make the same row at once: the second's IntegrityError has its whole transaction tried again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime

from studies import events
from studies.counting import Summary
from studies.ingest.attributes import Attributes
from studies.ingest.incoming import Source
from studies.ingest.statements import (
    KnownStudy,
    StudyKey,
    insert_patients,
    insert_physicians,
    insert_series,
    insert_studies,
    patients_of,
    physicians_of,
)
from studies.matching import remember_names
from studies.person_names import identifying, searchable


def make_studies(
    origins: Mapping[StudyKey, tuple[Attributes, Source]],
    summaries: Mapping[StudyKey, Summary],
    *,
    conflicts: Collection[StudyKey],
    now: datetime,
) -> dict[StudyKey, KnownStudy]:
    """Make studies, each as its first instance describes it, with their patients and referring physicians."""
    patients, physicians = _patients(origins.values()), _physicians(origins.values())
    rows = []
    for key, (a, source) in sorted(origins.items(), key=lambda pair: pair[0]):
        patient_name, referrer = a.patient["patient_name"], a.referring_physician_name
        rows.append(
            {
                "site_id": source.site.pk,
                "study_instance_uid": a.study_instance_uid,
                "patient_id": patients[_identity(a), source.site.pk],
                "patient_id_value": a.patient["patient_id"],
                "patient_name": patient_name,
                "patient_name_search": searchable(patient_name),
                "referring_physician_id": physicians.get((identifying(referrer), source.site.pk)),
                "referring_physician_name": referrer,
                "source_ae_title": source.principal.ae_title[:16],
                "has_conflict": key in conflicts,
                "unsettled_since": now,
                **a.study,
                **asdict(summaries[key]),
            }
        )
    keys = insert_studies.few(rows)
    remember_names(
        n for row in rows for n in (row["patient_name_search"], identifying(row["referring_physician_name"]))
    )
    for pk in keys:
        events.emit("study.arrived", study=pk)
    return {
        (row["study_instance_uid"], row["site_id"]): KnownStudy(pk, row["patient_id_value"], row["patient_name"])
        for row, pk in zip(rows, keys, strict=True)
    }


def _identity(a: Attributes) -> str:
    """Give what makes two studies' patients one; without a Patient ID, a study's patient is its own."""
    patient_id = a.patient["patient_id"]
    return f"{a.patient['issuer_of_patient_id']}|{patient_id}" if patient_id else f"study:{a.study_instance_uid}"


def _patients(origins: Iterable[tuple[Attributes, Source]]) -> dict[tuple[str, int], int]:
    wanted = {(_identity(a), source.site.pk): a.patient for a, source in origins}
    found = patients_of({identity for identity, _ in wanted}, {site for _, site in wanted})
    missing = sorted(wanted.keys() - found.keys())
    rows = [{"identity": identity, "site_id": site, **wanted[identity, site]} for identity, site in missing]
    return found | dict(zip(missing, insert_patients.few(rows), strict=True))


def _physicians(origins: Iterable[tuple[Attributes, Source]]) -> dict[tuple[str, int], int]:
    names = {
        (identifying(a.referring_physician_name), source.site.pk): a.referring_physician_name for a, source in origins
    }
    wanted = {key: name for key, name in names.items() if key[0]}
    if not wanted:
        return {}
    found = physicians_of({name for name, _ in wanted}, {site for _, site in wanted})
    missing = sorted(wanted.keys() - found.keys())
    rows = [{"name_search": key[0], "site_id": key[1], "name": wanted[key]} for key in missing]
    return found | dict(zip(missing, insert_physicians.few(rows), strict=True))


def make_series(
    origins: Mapping[tuple[StudyKey, str], Attributes],
    studies: Mapping[StudyKey, KnownStudy],
    counts: Mapping[tuple[StudyKey, str], int],
    *,
    metadata_due_at: datetime,
) -> dict[tuple[StudyKey, str], int]:
    """Make series, each as its first instance describes it; give their rows' keys."""
    places = sorted(origins)
    rows = [
        {
            "study_id": studies[place[0]].pk,
            "series_instance_uid": place[1],
            "number_of_instances": counts[place],
            "metadata_due_at": metadata_due_at,
            **origins[place].series,
        }
        for place in places
    ]
    return dict(zip(places, insert_series.few(rows), strict=True))
