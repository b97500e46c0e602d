"""Places in a report's words, and the images that they mean.

Words from the viewer end in ``(series 2, image 52)``, with ``, frame 7`` in images of several frames; people write the
same by hand. Of an earlier study of the same patient the day stands before it: ``(2024-03-02, series 2, image 48)``.
Numbers are for people: two series may share one. Then the finding whose values stand before the place decides, and
where none does, every image that it may mean is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from django.db.models import QuerySet

from studies.findings.models import ImageFinding
from studies.models import Instance, Study

PLACE = re.compile(
    r"\b(?:(\d{4}-\d\d-\d\d),? )?series (\d{1,9}), image (\d{1,9})(?:, frame (\d{1,6}))?\b", re.IGNORECASE
)
# Where the words begin that a place belongs to.
_SENTENCE = re.compile(r"[.!?]\s|\n")


@dataclass(frozen=True)
class Meant:
    """An image that a place means; ``series_description`` tells it from others of the same numbers."""

    study_instance_uid: str
    sop_instance_uid: str
    frame_number: int
    series_description: str


@dataclass(frozen=True)
class PlaceInText:
    """From where to where a place stands in a text, and what it means: nothing, one image, or several."""

    start: int
    end: int
    images: tuple[Meant, ...]


def places_in(study: Study, text: str, visible: QuerySet[Study]) -> Iterator[PlaceInText]:
    """Give the places that a text on the study names, in order. The caller has passed the gate.

    A place with a day is one of the patient's studies of that day, of those that are ``visible`` to the reader.
    """
    for found in PLACE.finditer(text):
        series_number, image_number, frame_number = (int(n) if n else None for n in found.groups()[1:])
        studies = _studies(study, found[1], visible)
        instances = Instance.objects.filter(
            series__study__in=studies,
            series__series_number=series_number,
            instance_number=image_number,
            is_current=True,
        ).select_related("series__study")
        images = [
            Meant(
                one.series.study.study_instance_uid,
                one.sop_instance_uid,
                frame_number or 1,
                one.series.series_description,
            )
            for one in instances.order_by("series_id", "pk")[:9]
            if (frame_number or 1) <= max(one.number_of_frames, 1)
        ]
        if len(images) > 1:
            findings = ImageFinding.objects.filter(study__in=studies).exclude(text="").defer("picture")
            before = _SENTENCE.split(text[: found.start()])[-1]
            numbers = found[0][found[0].lower().index("series") :].lower()
            said = {f.sop_instance_uid for f in findings if f.place == numbers and _says(before, f.text)}
            images = [one for one in images if one.sop_instance_uid in said] or images
        yield PlaceInText(found.start(), found.end(), tuple(images))


def _studies(study: Study, day: str | None, visible: QuerySet[Study]) -> list[Study]:
    if not day:
        return [study]
    try:
        study_date = date.fromisoformat(day)
    except ValueError:
        return []
    return list(visible.filter(patient_id=study.patient_id, study_date=study_date)[:9])


def _says(words: str, value: str) -> bool:
    """Say whether the value stands there by itself: "9.1 mm" isn't in "19.1 mm"."""
    return re.search(rf"(?<![\d.]){re.escape(value)}", words) is not None
