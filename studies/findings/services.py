"""Every write on findings."""

from __future__ import annotations

import math
import re
from copy import copy
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from django.db import transaction
from PIL import Image, UnidentifiedImageError
from pydicom.uid import generate_uid

from accounts.capabilities import Capability
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.findings.documents import key_object_selection, presentation_state, presentation_state_file
from studies.findings.errors import NoSuchImage, NotAllowed, Unusable
from studies.findings.models import ImageFinding
from studies.findings.selectors import SIGNED
from studies.ingest.services import Source, WayIn, ingest, stage
from studies.models import Instance, Study
from studies.trail import subject_of

LARGEST_PICTURE = 4 << 20
LARGEST_SIDE = 1024
MOST_VALUES = 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Place:
    """Where a finding is: an image of the study and its frame, counted from 1."""

    sop_instance_uid: str
    frame_number: int = 1


@dataclass(frozen=True)
class Quantity:
    """One measured value with its unit."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Viewport:
    """How an image was shown: its window in the units of the modality LUT, and its picture as JPEG or PNG."""

    picture: bytes
    window_center: float | None = None
    window_width: float | None = None
    label: str = field(default="")


@transaction.atomic
def keep_measurement(
    *, study: Study, principal: Principal, tracking_identifier: str, place: Place, label: str, values: list[Quantity]
) -> tuple[ImageFinding, ImageFinding | None]:
    """Keep a measurement, or its newer values; give it and what it was before, if it was.

    Raises NotAllowed, NoSuchImage, Unusable.
    """
    author = _author(principal, study)
    instance = _instance(study, place)
    if not tracking_identifier or len(tracking_identifier) > 64 or len(values) > MOST_VALUES:
        raise Unusable("That is no measurement.")
    if any(not math.isfinite(v.value) for v in values):
        raise Unusable("A measured value isn't a number.")
    text = described(values)[:300]
    kept = ImageFinding.objects.filter(study=study, tracking_identifier=tracking_identifier).first()
    # Measurements restored from an SR have new names in the viewer, but are the same ones.
    kept = kept or _same_measurement(study, place, text)
    before = copy(kept)
    kept = kept or ImageFinding(study=study, kind=ImageFinding.Kind.MEASUREMENT, author=author)
    if kept.kind != ImageFinding.Kind.MEASUREMENT:
        raise Unusable("That is a key image.")
    for name, value in _located(instance, place).items():
        setattr(kept, name, value)
    kept.tracking_identifier, kept.label, kept.text = tracking_identifier, _line(label, 120), text
    kept.values = [{"name": _line(v.name, 60), "value": v.value, "unit": _line(v.unit, 20)} for v in values]
    kept.save()
    if before is None:
        _record(study, principal, "measurement kept", kept)
    return kept, before


def _same_measurement(study: Study, place: Place, text: str) -> ImageFinding | None:
    return ImageFinding.objects.filter(
        study=study,
        kind=ImageFinding.Kind.MEASUREMENT,
        sop_instance_uid=place.sop_instance_uid,
        frame_number=place.frame_number,
        text=text,
    ).first()


def keep_key_image(
    *,
    study: Study,
    principal: Principal,
    tracking_identifier: str,
    place: Place,
    viewport: Viewport,
    prior: Study | None = None,
) -> ImageFinding:
    """Keep the viewport as a key image: its picture for the study's report, KOS and presentation state with the image.

    Where the image is one of a ``prior`` of the same patient, which the caller has let through the gate, they go into
    the prior: a patient is one site's, and so are their studies.
    Raises NotAllowed, NoSuchImage, Unusable when the picture can't be read or the archive didn't take the objects.
    """
    author = _author(principal, study)
    holder = prior or study
    instance = _instance(holder, place)
    if not tracking_identifier or len(tracking_identifier) > 64:
        raise Unusable("That is no key image.")
    kept = ImageFinding(
        study=study,
        kind=ImageFinding.Kind.KEY_IMAGE,
        author=author,
        tracking_identifier=tracking_identifier,
        label=_line(viewport.label, 120),
        picture=_jpeg(viewport.picture),
        window_center=viewport.window_center,
        window_width=viewport.window_width,
        key_object_uid=generate_uid(),
        presentation_state_uid=generate_uid(),
        prior_study_instance_uid=prior.study_instance_uid if prior else "",
        prior_study_date=prior.study_date if prior else None,
        **_located(instance, place),
    )
    # Archived first, outside our transaction: ingest commits by itself. Broken off between, the objects stay, unnamed.
    state = presentation_state(kept, instance)
    files = [presentation_state_file(state), key_object_selection(kept, instance, state)]
    source = Source(WayIn.REPORT, holder.site, _archivist(principal, holder))
    outcomes = ingest([stage([content], file_name="key image") for content in files], source)
    if not all(outcome.is_in for outcome in outcomes):
        raise Unusable("The archive didn't take the key image.")
    with transaction.atomic():
        kept.save(force_insert=True)
        _record(study, principal, "key image kept", kept)
    return kept


@transaction.atomic
def remove_finding(*, finding: ImageFinding, principal: Principal) -> None:
    """Take a finding out of the report's list; objects in the archive stay.

    Raises NotAllowed, also for a key image of a signed report: what was signed beside it stays.
    """
    _author(principal, finding.study)
    if finding.kind == ImageFinding.Kind.KEY_IMAGE and finding.study.status in SIGNED:
        raise NotAllowed("The report beside this key image is signed.")
    _record(finding.study, principal, f"{finding.get_kind_display().lower()} removed", finding)
    finding.delete()


def described(values: list[Quantity]) -> str:
    """Give the values as a report says them: ``"57.8 mm"``, ``"area 120 mm², mean 43 HU"``."""
    texts = [f"{_number(v.value)} {v.unit}".strip() for v in values]
    if len(values) == 1:
        return texts[0]
    return ", ".join(f"{v.name} {text}".strip() for v, text in zip(values, texts, strict=True))


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _author(principal: Principal, study: Study) -> User:
    if principal.user is None or not principal.may(Capability.REPORT_WRITE, study.site_id):
        raise NotAllowed("This account may not write reports at this site.")
    return principal.user


def _instance(study: Study, place: Place) -> Instance:
    instance = (
        Instance.objects.filter(series__study=study, sop_instance_uid=place.sop_instance_uid, is_current=True)
        .select_related("series__study")
        .first()
    )
    if instance is None or not 1 <= place.frame_number <= max(instance.number_of_frames, 1):
        raise NoSuchImage("This study has no such image.")
    return instance


def _located(instance: Instance, place: Place) -> dict[str, Any]:
    return {
        "series_instance_uid": instance.series.series_instance_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "frame_number": place.frame_number,
        "series_number": instance.series.series_number,
        "instance_number": instance.instance_number,
    }


def _line(text: str, longest: int) -> str:
    return _CONTROL.sub(" ", text).strip().encode("utf-8", "replace").decode()[:longest]


def _jpeg(picture: bytes) -> bytes:
    """Make a JPEG of our own of what a browser sent, so that nothing else is ever given out as a picture."""
    if len(picture) > LARGEST_PICTURE:
        raise Unusable("The picture is too large.")
    try:
        with Image.open(BytesIO(picture), formats=["JPEG", "PNG"]) as opened:
            shrunk = opened.convert("RGB")
            shrunk.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable("The picture can't be read.") from error
    output = BytesIO()
    shrunk.save(output, "JPEG", quality=85)
    return output.getvalue()


def _archivist(principal: Principal, study: Study) -> Principal:
    """Give the reader as one who may add to this study: who may report may mark its key images."""
    return Principal(
        grants=frozenset({(Capability.STUDY_UPLOAD.value, study.site_id)}),
        user=principal.user,
        ip_address=principal.ip_address,
        user_agent=principal.user_agent,
    )


def _record(study: Study, principal: Principal, step: str, finding: ImageFinding) -> None:
    record(
        AuditEvent.Action.REPORT_DRAFT,
        principal=principal,
        **subject_of(study),
        details={"step": step, "sop_instance_uid": finding.sop_instance_uid, "frame": finding.frame_number},
    )
