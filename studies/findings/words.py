"""What the report says of a measurement, and of the same measured on an earlier study of the patient."""

from __future__ import annotations

from collections.abc import Collection

from studies.findings.models import ImageFinding
from studies.models import Study


def sentence(finding: ImageFinding, reading: Study, prior: ImageFinding | None = None) -> str:
    """Give the finding in the words of the report on ``reading``; with ``prior``, how it has changed since."""
    said = ": ".join(part for part in (finding.label, finding.text) if part)
    if finding.study_id != reading.pk:
        day = f"{finding.study.study_date:%Y-%m-%d}" if finding.study.study_date else "of unknown date"
        return f"Prior {day}: {said}{_where(finding, reading)}."
    words = f"{said}{_where(finding, reading)}"
    if prior is not None:
        words += f"; prior {prior.text}{_where(prior, reading)}, {change(prior, finding)}"
    return f"{words}."


def _where(finding: ImageFinding, reading: Study) -> str:
    if finding.study_id == reading.pk:
        return f" ({finding.place})"
    # Without a day the numbers would lead to an image of the study that is read.
    day = finding.study.study_date
    return f" ({day:%Y-%m-%d}, {finding.place})" if day else ""


def change(prior: ImageFinding, finding: ImageFinding) -> str:
    """Give the difference of the first quantity, as it can be worked out from the values that the report says."""
    before, now = (round(f.values[0]["value"], 1) for f in (prior, finding))
    difference = round(now - before, 1)
    signed = f"{difference:+.1f}".replace("-", "−") if difference else "0.0"
    percent = f"{100 * difference / before:+.0f}".replace("-", "−") if difference else "0"
    name = f"{finding.values[0]['name']} " if len(finding.values) > 1 else ""
    return f"{name}{signed} {finding.values[0]['unit']} ({percent} %)"


def counterpart(finding: ImageFinding, studies: Collection[int]) -> ImageFinding | None:
    """Give what a person measured under the same label on the newest of these studies (by key) that has it.

    Labels are compared, nothing is guessed: without one, or where a study has it twice, there's no counterpart.
    """
    if not finding.label or not finding.values:
        return None
    same = ImageFinding.objects.filter(
        kind=ImageFinding.Kind.MEASUREMENT, label__iexact=finding.label, study__in=studies
    ).exclude(study=finding.study_id)
    by_study: dict[int, list[ImageFinding]] = {}
    for one in same.select_related("study").defer("picture").order_by("-study__study_date", "-study_id", "pk"):
        by_study.setdefault(one.study_id, []).append(one)
    if _labelled(finding) > 1:
        return None
    return next((found[0] for found in by_study.values() if len(found) == 1 and _comparable(found[0], finding)), None)


def _labelled(finding: ImageFinding) -> int:
    return ImageFinding.objects.filter(
        study=finding.study_id, kind=ImageFinding.Kind.MEASUREMENT, label__iexact=finding.label
    ).count()


def _comparable(prior: ImageFinding, finding: ImageFinding) -> bool:
    if not prior.values or not finding.values:
        return False
    first, second = prior.values[0], finding.values[0]
    return (first["name"], first["unit"]) == (second["name"], second["unit"]) and first["value"] >= 0.1
