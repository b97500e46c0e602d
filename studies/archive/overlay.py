"""Corrected attributes laid over a data set on its way out; what was received stays as it is in storage."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import Tag

ORIGINAL_ATTRIBUTES = f"{tag_for_keyword('OriginalAttributesSequence'):08X}"
UNICODE = "ISO_IR 192"


def apply_corrections(dataset: Dataset, corrections: dict[str, Any]) -> Dataset:
    """Lay a study's corrections (DICOM JSON, ``Study.corrections``) over the data set, in place, and give it back.

    The Original Attributes Sequence (0400,0561) of the corrections is added to the one that the data set has; where a
    value was replaced for the first time, the item holds this data set's own value, not that of the study's first
    instance (PS3.3 C.12.1.1.9).
    """
    if not corrections:
        return dataset
    overlay = Dataset.from_json(deepcopy(corrections))
    history = list(overlay.pop(Tag(int(ORIGINAL_ATTRIBUTES, 16))).value) if ORIGINAL_ATTRIBUTES in corrections else []
    _keep_own_values(dataset, history)
    if _needs_unicode(corrections, dataset):
        # Every text is decoded by the old character set before the new one is declared.
        dataset.decode()
        dataset.SpecificCharacterSet = UNICODE
    for element in overlay:
        dataset[element.tag] = element
    if history:
        dataset.OriginalAttributesSequence = [*dataset.get("OriginalAttributesSequence", []), *history]
    return dataset


def _keep_own_values(dataset: Dataset, history: list[Dataset]) -> None:
    seen: set[int] = set()
    for item in history:
        modified = item.ModifiedAttributesSequence[0]
        for tag in list(modified.keys()):
            if tag in seen:
                continue
            seen.add(tag)
            if tag in dataset:
                modified[tag] = deepcopy(dataset[tag])
            else:
                modified[tag].clear()


def _needs_unicode(corrections: dict[str, Any], dataset: Dataset) -> bool:
    """Say whether a corrected text can't be written in the data set's own character set."""
    if dataset.get("SpecificCharacterSet", "") == UNICODE:
        return False
    return not json.dumps(corrections, ensure_ascii=False).isascii()
