"""Attribute matching (PS3.4 §C.2.2.2) over the index, for C-FIND and QIDO-RS alike: keys in, rows and DICOM JSON out.

``criteria_of`` reads keys; ``matching_patients``, ``matching_studies``, ``matching_series`` and ``matching_instances``
give the rows, from the gate on; ``study_attributes`` and its like turn a row into DICOM JSON.
"""

from studies.matching.criteria import Criteria, criteria_of
from studies.matching.errors import InvalidKeyValue, MatchingError, UnknownAttribute
from studies.matching.keywords import Level, level_of, tag_of, tags_at
from studies.matching.names import remember_names
from studies.matching.options import Options
from studies.matching.results import (
    counted_attributes,
    instance_attributes,
    patient_attributes,
    series_attributes,
    study_attributes,
)
from studies.matching.selectors import matching_instances, matching_patients, matching_series, matching_studies

__all__ = [
    "Criteria",
    "InvalidKeyValue",
    "Level",
    "MatchingError",
    "Options",
    "UnknownAttribute",
    "counted_attributes",
    "criteria_of",
    "instance_attributes",
    "level_of",
    "matching_instances",
    "matching_patients",
    "matching_series",
    "matching_studies",
    "patient_attributes",
    "remember_names",
    "series_attributes",
    "study_attributes",
    "tag_of",
    "tags_at",
]
