"""What events of the trail are about, when they are about a study."""

from __future__ import annotations

from typing import TypedDict

from studies.models import Study


class Subject(TypedDict):
    """Whose data an event concerns, and where."""

    site_id: int
    patient_id: str
    patient_name: str
    study_instance_uid: str


def subject_of(study: Study) -> Subject:
    """Give a study as the subject of an event."""
    return Subject(
        site_id=study.site_id,
        patient_id=study.patient_id_value,
        patient_name=study.patient_name,
        study_instance_uid=study.study_instance_uid,
    )
