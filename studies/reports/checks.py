"""What a second reader would notice before a report is signed: what's missing, and what contradicts the study."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from studies.models import Study
from studies.orders.models import Order
from studies.reports.models import ReportPart
from studies.reports.outline import Field, parsed_date, parsed_number
from studies.reports.spelling import misspelt_of

# Words by which sides and organs are named in the languages that reports of our sites are written in.
_LEFT = r"left|lt\.?|li\.|links(?:seitig\w*)?|linke[nrms]?|venstre|gauche|izquierd[oa]s?"
_RIGHT = r"right|rt\.?|re\.|rechts(?:seitig\w*)?|rechte[nrms]?|høyre|droite?|derech[oa]s?"
_BOTH = r"bilateral\w*|both|beidseit\w*|beide[nrs]?|begge|deux|ambos|ambas"
_MALE = (
    r"prostat\w*|seminal vesicles?|test[ie]s|testic\w*|scrot\w*|peni[sl]\w*|hoden\w*|samenblasen?|vas deferens|"
    r"epididym\w*"
)
_FEMALE = (
    r"uter[uio]\w*|ovar\w*|endometri\w*|myometri\w*|adnex\w*|vagina\w*|cervix uteri|fallopian|gebärmutter\w*|"
    r"eierst\w*|hysterectom\w*|pregnan\w*|schwanger\w*"
)
_LEFT_WORD, _RIGHT_WORD, _BOTH_WORD = (
    re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) for words in (_LEFT, _RIGHT, _BOTH)
)
_ORGANS = {"M": re.compile(rf"\b(?:{_FEMALE})\b", re.IGNORECASE), "F": re.compile(rf"\b(?:{_MALE})\b", re.IGNORECASE)}
_SEXES = {"M": "male", "F": "female"}
_PLACE = re.compile(r"\[[^\[\]\n]{1,80}\]")
# "L" and "R" alone say a side in a description, in running text they don't.
_SIDE_LETTER = {"left": re.compile(r"(?<!\w)L(?!\w)"), "right": re.compile(r"(?<!\w)R(?!\w)")}


class Level(StrEnum):
    """A report with an error can't be signed; a warning must be seen by the signer; a note holds up nothing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Check:
    """One thing that was found; ``code`` is what the signer accepts, ``field`` where to go."""

    code: str
    level: Level
    text: str
    field: str = ""


def checks_of(part: ReportPart) -> list[Check]:
    """Give everything that was found in a draft, errors first; the text of a note is a word that nobody knows."""
    found = [
        *_missing(part),
        *_out_of_range(part),
        *_places(part),
        *_laterality(part),
        *_sex(part),
        *_no_impression(part),
        *_spelling(part),
    ]
    return sorted(found, key=lambda check: list(Level).index(check.level))


def _shown_fields(part: ReportPart) -> Iterable[Field]:
    return part.outline.shown(part.values).values()


def _missing(part: ReportPart) -> Iterable[Check]:
    for field in _shown_fields(part):
        value = part.values.get(field.id)
        if field.required and not (value.strip() if isinstance(value, str) else value):
            yield Check(
                f"required:{field.id}", Level.ERROR, f"“{field.label or field.id}” must be filled in.", field.id
            )


def _out_of_range(part: ReportPart) -> Iterable[Check]:
    for field in _shown_fields(part):
        text = str(part.values.get(field.id) or "").strip()
        if not text:
            continue
        if field.type == "date" and parsed_date(text) is None:
            yield Check(f"date:{field.id}", Level.ERROR, f"“{field.label}” is no date (YYYY-MM-DD).", field.id)
        if field.type != "number":
            continue
        number = parsed_number(text)
        if number is None:
            yield Check(f"number:{field.id}", Level.ERROR, f"“{field.label}” is no number.", field.id)
        elif (field.minimum is not None and number < field.minimum) or (
            field.maximum is not None and number > field.maximum
        ):
            least = "−∞" if field.minimum is None else f"{field.minimum:g}"
            most = "∞" if field.maximum is None else f"{field.maximum:g}"
            words = f"“{field.label}” is {text} {field.unit}".rstrip() + f"; expected {least} to {most}."
            yield Check(f"range:{field.id}:{text}", Level.WARNING, words, field.id)


def _places(part: ReportPart) -> Iterable[Check]:
    for field in _shown_fields(part):
        value = part.values.get(field.id)
        if isinstance(value, str) and (place := _PLACE.search(value)):
            words = f"“{place[0]}” in {field.label or field.id} isn't filled in."
            yield Check(f"place:{field.id}", Level.ERROR, words, field.id)


def _spelling(part: ReportPart) -> Iterable[Check]:
    return (Check(f"spelling:{word}", Level.NOTE, word, field) for field, word in misspelt_of(part))


def _no_impression(part: ReportPart) -> Iterable[Check]:
    section = part.outline.section_of_role("impression")
    if section is not None and part.kind == ReportPart.Kind.REPORT and not part.sections.get(section.id, "").strip():
        yield Check("impression", Level.WARNING, "There is no impression.", section.fields[0].id)


def expected_side(study: Study) -> str:
    """Give ``left`` or ``right`` where the study, its order or its series name one side only; empty otherwise."""
    descriptions = [
        study.study_description,
        study.body_part_examined,
        *Order.objects.filter(study=study).values_list("requested_procedure_description", flat=True),
    ]
    named: set[str] = set()
    for text in descriptions:
        if _BOTH_WORD.search(text):
            return ""
        named |= _sides(text) | {side for side, letter in _SIDE_LETTER.items() if letter.search(text)}
    for attributes in study.series.values_list("attributes", flat=True):
        # (0020,0060) Laterality.
        for value in attributes.get("00200060", {}).get("Value", []):
            named |= {"L": {"left"}, "R": {"right"}, "B": {"left", "right"}}.get(value, set())
    return next(iter(named)) if len(named) == 1 else ""


def _sides(text: str) -> set[str]:
    return {side for side, word in (("left", _LEFT_WORD), ("right", _RIGHT_WORD)) if word.search(text)}


def _laterality(part: ReportPart) -> Iterable[Check]:
    side = expected_side(part.report.study)
    if not side:
        return
    other = "left" if side == "right" else "right"
    for section in part.outline.sections:
        if section.role not in {"findings", "impression", "other"}:
            continue
        text = part.sections.get(section.id, "")
        if other in _sides(text):
            words = f"{section.title} says “{other}”, but the study is of the {side} side."
            yield Check(f"laterality:{section.id}:{other}", Level.WARNING, words, section.fields[0].id)


def _sex(part: ReportPart) -> Iterable[Check]:
    sex = part.report.study.patient.patient_sex.upper()[:1]
    organs = _ORGANS.get(sex)
    if organs is None:
        return
    for section in part.outline.sections:
        if found := organs.search(part.sections.get(section.id, "")):
            words = f"{section.title} says “{found[0]}”, but the patient is {_SEXES[sex]}."
            yield Check(f"sex:{section.id}:{found[0].lower()}", Level.WARNING, words, section.fields[0].id)
