"""What each level answers, as DICOM JSON (PS3.18 §F.2): the attributes received, corrected, with what is counted.

``pydicom.Dataset.from_json`` makes data sets of them. No addresses: those belong to a protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

from django.db.models import Count, F, Sum

from studies.matching.keywords import PATIENT_KEYWORDS, tag_of, tags_of, vr_of
from studies.models import Instance, Series, Study

Content = dict[str, Any]
# The columns that the functions below read: a page needn't fetch the others, of which some are long.
STUDY_COLUMNS = (
    *("patient_id", "study_instance_uid", "modalities_in_study", "number_of_series", "number_of_instances"),
    *("attributes", "corrections", "tier", "site_id", "patient_id_value", "patient_name"),
)
SERIES_COLUMNS = ("study_id", "series_instance_uid", "modality", "number_of_instances", "attributes")
INSTANCE_COLUMNS = (
    *("series_id", "sop_class_uid", "sop_instance_uid", "instance_number", "rows", "columns", "bits_allocated"),
    *("number_of_frames", "transfer_syntax_uid", "attributes"),
)
# What comes from the cold tier may take its time (PS3.3 C.4.23.1.1).
AVAILABILITY: dict[str, str] = {Study.Tier.HOT: "ONLINE", Study.Tier.COLD: "NEARLINE"}
_CHARACTER_SET = tag_of("SpecificCharacterSet")
_PATIENT_TAGS = tags_of(("SpecificCharacterSet", *PATIENT_KEYWORDS))
SOP_CLASSES_IN_STUDY = tag_of("SOPClassesInStudy")
_PATIENT_COUNTS = tags_of(
    ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances")
)


def element(keyword: str, *values: Any) -> tuple[str, dict[str, Any]]:
    """Give tag and DICOM JSON element of a keyword; empty values are left out."""
    tag, vr = _place(keyword)
    present = [value for value in values if value not in ("", None)]
    return tag, {"vr": vr, "Value": present} if present else {"vr": vr}


@lru_cache(maxsize=1024)
def _place(keyword: str) -> tuple[str, str]:
    return tag_of(keyword), vr_of(keyword)


def study_attributes(study: Study) -> Content:
    """Give a study with its patient. Corrections win over what was received."""
    content = {**study.attributes, **study.corrections}
    if _CHARACTER_SET in content:
        # The JSON is UTF-8, whatever the received file was in.
        content[_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return content | dict(
        [
            element("StudyInstanceUID", study.study_instance_uid),
            element("ModalitiesInStudy", *study.modalities),
            element("NumberOfStudyRelatedSeries", study.number_of_series),
            element("NumberOfStudyRelatedInstances", study.number_of_instances),
            element("InstanceAvailability", AVAILABILITY[study.tier]),
        ]
    )


def patient_attributes(study: Study) -> Content:
    """Give a patient as their study knows them, corrected."""
    return {tag: value for tag, value in study_attributes(study).items() if tag in _PATIENT_TAGS}


def series_attributes(series: Series) -> Content:
    """Give a series without its study's attributes."""
    return {
        **series.attributes,
        **dict(
            [
                element("Modality", series.modality),
                element("SeriesInstanceUID", series.series_instance_uid),
                element("NumberOfSeriesRelatedInstances", series.number_of_instances),
            ]
        ),
    }


def instance_attributes(instance: Instance) -> Content:
    """Give an instance without its series' and study's attributes."""
    return {
        **instance.attributes,
        **dict(
            [
                element("SOPClassUID", instance.sop_class_uid),
                element("SOPInstanceUID", instance.sop_instance_uid),
                element("InstanceNumber", instance.instance_number),
                element("Rows", instance.rows),
                element("Columns", instance.columns),
                element("BitsAllocated", instance.bits_allocated),
                element("NumberOfFrames", instance.number_of_frames or None),
                element("AvailableTransferSyntaxUID", instance.transfer_syntax_uid),
                element("InstanceAvailability", AVAILABILITY[instance.series.study.tier]),
            ]
        ),
    }


def counted_attributes(studies: Iterable[Study], tags: Collection[str]) -> dict[int, Content]:
    """Give, by study id, those of ``tags`` that must be counted over rows: at most one query for each kind."""
    studies = list(studies)
    counted: dict[int, Content] = {study.pk: {} for study in studies}
    if SOP_CLASSES_IN_STUDY in tags:
        for pk, classes in _sop_classes(studies).items():
            counted[pk].update([element("SOPClassesInStudy", *sorted(classes))])
    if not _PATIENT_COUNTS.isdisjoint(tags):
        of_patients = _patient_counts(studies)
        for study in studies:
            counted[study.pk] |= of_patients.get(study.patient_id, {})
    return counted


def _sop_classes(studies: list[Study]) -> dict[int, set[str]]:
    rows = Instance.objects.filter(is_current=True, series__study__in=[study.pk for study in studies]).order_by()
    found: dict[int, set[str]] = {}
    for pk, uid in rows.annotate(of_study=F("series__study_id")).values_list("of_study", "sop_class_uid").distinct():
        found.setdefault(int(pk), set()).add(str(uid))
    return found


def _patient_counts(studies: list[Study]) -> dict[int, Content]:
    rows = Study.objects.filter(patient__in={study.patient_id for study in studies}, number_of_instances__gt=0)
    grouped = rows.order_by().values_list("patient_id")
    counts = grouped.annotate(Count("pk"), Sum("number_of_series"), Sum("number_of_instances"))
    return {
        patient: dict(
            [
                element("NumberOfPatientRelatedStudies", of_studies),
                element("NumberOfPatientRelatedSeries", of_series),
                element("NumberOfPatientRelatedInstances", of_instances),
            ]
        )
        for patient, of_studies, of_series, of_instances in counts
    }
