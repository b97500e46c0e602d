"""Hanging: which priors belong beside a study, and how its images are laid out (PS3.3 C.23 in spirit).

The protocols themselves are OHIF's own or lie in ``app_config.js``; here is which one a study opens with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, QuerySet

from accounts.models import User
from accounts.principals import Principal
from studies.access import studies_visible_to
from studies.models import Study
from studies.viewer.models import HangingPreference

SINGLE, COMPARE, FOUR_UP, MAMMO, MPR = "default", "atrium.compare", "atrium.fourUp", "atrium.mammo", "mpr"
FUSION = "atrium.fusion"
# What a person may choose and have remembered; OHIF's own are named as in its layout menu's ``protocolId``.
PROTOCOLS = {
    SINGLE: "One image",
    COMPARE: "Beside the prior",
    FOUR_UP: "Four series",
    MPR: "Three planes",
    "primaryAxial": "Three planes, large axial",
    "fourUp": "Three planes and 3D",
    "main3D": "3D above three planes",
    "primary3D": "3D beside three planes",
    "only3D": "3D alone",
    MAMMO: "Mammography",
}
# A modality that is read against its past hangs beside it when there is one.
_COMPARED = {"CT", "CR", "DX", "MR", "PT", "NM", "US", "RF", "XA"}
_NOT_IMAGES = {"SR", "KO", "PR", "DOC", "SEG", "RTSTRUCT", "REG", "OT"}
_WORD = re.compile(r"[^\W\d_]{4,}")
# Words of descriptions that say nothing of the region.
_EMPTY_WORDS = {"with", "without", "contrast", "right", "left", "series", "routine", "study", "views"}
MOST_PRIORS = 50


@dataclass(frozen=True)
class Hanging:
    """What a study opens with: the protocol, and the priors beside it, the most relevant first."""

    protocol: str
    priors: list[Study]


def relevant_priors(principal: Principal, study: Study, *, most: int = 3) -> list[Study]:
    """Give the same patient's earlier studies that are worth a look beside this one, the best first.

    The same modality and region comes before the same region, that before the same modality; newer before older.
    """
    earlier = _others(principal, study)
    if study.study_date is not None:
        earlier = earlier.filter(study_date__lte=study.study_date)
    scored = [(_relevance(study, prior), prior) for prior in earlier[:MOST_PRIORS]]
    ranked = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])
    return [prior for _, prior in ranked[:most]]


def _others(principal: Principal, study: Study) -> QuerySet[Study]:
    others = studies_visible_to(principal).filter(patient_id=study.patient_id).exclude(pk=study.pk)
    return others.order_by(F("study_date").desc(nulls_last=True), "-pk")


def _relevance(study: Study, prior: Study) -> int:
    same_modality = bool(_modalities(study) & _modalities(prior))
    same_region = bool(_regions(study) & _regions(prior))
    return 2 * same_region + same_modality if same_region or same_modality else 0


def _modalities(study: Study) -> set[str]:
    return set(study.modalities) - _NOT_IMAGES


def _regions(study: Study) -> set[str]:
    words = {word.lower() for word in _WORD.findall(study.study_description)} - _EMPTY_WORDS
    return words | {part.lower() for part in study.body_part_examined.split("\\") if part}


def hanging_of(principal: Principal, study: Study) -> Hanging:
    """Give how the study opens for this person: as they last chose for its kind, else by modality."""
    modality, body_part = kind_of(study)
    priors = relevant_priors(principal, study)
    preference = HangingPreference.objects.filter(
        user=principal.user, modality=modality, body_part_examined=body_part
    ).first()
    if {"PT", "CT"} <= _modalities(study):
        return Hanging(FUSION, priors)
    # What a person chose may be a protocol that is offered no more.
    is_chosen = preference is not None and preference.hanging_protocol in PROTOCOLS
    protocol = preference.hanging_protocol if preference and is_chosen else _by_modality(modality, priors)
    if protocol == COMPARE and not priors:
        protocol = SINGLE
    return Hanging(protocol, priors)


def _by_modality(modality: str, priors: list[Study]) -> str:
    if modality == "MG":
        return MAMMO
    if priors and modality in _COMPARED and modality in _modalities(priors[0]):
        return COMPARE
    return FOUR_UP if modality == "MR" else SINGLE


def kind_of(study: Study) -> tuple[str, str]:
    """Give the modality and body part for which a preference counts."""
    modalities = sorted(_modalities(study)) or study.modalities or [""]
    return modalities[0], study.body_part_examined.split("\\")[0]


@transaction.atomic
def remember_protocol(*, user: User, study: Study, protocol: str) -> None:
    """Remember the protocol for the person and the study's kind. Raises LookupError for one that isn't known."""
    if protocol not in PROTOCOLS:
        raise LookupError(protocol)
    modality, body_part = kind_of(study)
    HangingPreference.objects.update_or_create(
        user=user, modality=modality, body_part_examined=body_part, defaults={"hanging_protocol": protocol}
    )
