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
from studies.ingest.statements import KnownStudy, StudyKey
from studies.matching import remember_names
from studies.models import Patient, ReferringPhysician, Series, Study
from studies.person_names import searchable


def make_studies(
    origins: Mapping[StudyKey, tuple[Attributes, Source]],
    summaries: Mapping[StudyKey, Summary],
    *,
    conflicts: Collection[StudyKey],
    now: datetime,
) -> dict[StudyKey, KnownStudy]:
    """Make studies, each as its first instance describes it, with their patients and referring physicians."""
    patients, physicians = _patients(origins.values()), _physicians(origins.values())
    made = []
    for key, (a, source) in sorted(origins.items(), key=lambda pair: pair[0]):
        patient_name, referrer = a.patient["patient_name"], a.referring_physician_name
        made.append(
            Study(
                site=source.site,
                study_instance_uid=a.study_instance_uid,
                patient=patients[_identity(a), source.site.pk],
                patient_id_value=a.patient["patient_id"],
                patient_name=patient_name,
                patient_name_search=searchable(patient_name),
                referring_physician=physicians.get((searchable(referrer), source.site.pk)),
                referring_physician_name=referrer,
                source_ae_title=source.principal.ae_title[:16],
                has_conflict=key in conflicts,
                unsettled_since=now,
                **a.study,
                **asdict(summaries[key]),
            )
        )
    Study.objects.bulk_create(made)
    remember_names(n for s in made for n in (s.patient_name_search, searchable(s.referring_physician_name)))
    for study in made:
        events.emit("study.arrived", study=study.pk)
    return {(s.study_instance_uid, s.site_id): KnownStudy(s.pk, s.patient_id_value, s.patient_name) for s in made}


def _identity(a: Attributes) -> str:
    """Give what makes two studies' patients one; without a Patient ID, a study's patient is its own."""
    patient_id = a.patient["patient_id"]
    return f"{a.patient['issuer_of_patient_id']}|{patient_id}" if patient_id else f"study:{a.study_instance_uid}"


def _patients(origins: Iterable[tuple[Attributes, Source]]) -> dict[tuple[str, int], Patient]:
    wanted = {(_identity(a), source.site.pk): a.patient for a, source in origins}
    rows = Patient.objects.filter(identity__in={i for i, _ in wanted}, site__in={site for _, site in wanted})
    found = {(row.identity, row.site_id): row for row in rows}
    missing = [
        Patient(identity=identity, site_id=site, **wanted[identity, site])
        for identity, site in sorted(wanted.keys() - found.keys())
    ]
    return found | {(row.identity, row.site_id): row for row in Patient.objects.bulk_create(missing)}


def _physicians(origins: Iterable[tuple[Attributes, Source]]) -> dict[tuple[str, int], ReferringPhysician]:
    names = {
        (searchable(a.referring_physician_name), source.site.pk): a.referring_physician_name for a, source in origins
    }
    wanted = {key: name for key, name in names.items() if key[0]}
    if not wanted:
        return {}
    rows = ReferringPhysician.objects.filter(name_search__in={n for n, _ in wanted}, site__in={s for _, s in wanted})
    found = {(row.name_search, row.site_id): row for row in rows}
    missing = [
        ReferringPhysician(name_search=name_search, site_id=site, name=wanted[name_search, site])
        for name_search, site in sorted(wanted.keys() - found.keys())
    ]
    return found | {(row.name_search, row.site_id): row for row in ReferringPhysician.objects.bulk_create(missing)}


def make_series(
    origins: Mapping[tuple[StudyKey, str], Attributes],
    studies: Mapping[StudyKey, KnownStudy],
    counts: Mapping[tuple[StudyKey, str], int],
    *,
    metadata_due_at: datetime,
) -> dict[tuple[StudyKey, str], int]:
    """Make series, each as its first instance describes it; give their rows' keys."""
    places = sorted(origins)
    made = Series.objects.bulk_create(
        Series(
            study_id=studies[place[0]].pk,
            series_instance_uid=place[1],
            number_of_instances=counts[place],
            metadata_due_at=metadata_due_at,
            **origins[place].series,
        )
        for place in places
    )
    return {place: series.pk for place, series in zip(places, made, strict=True)}
