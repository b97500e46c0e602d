"""A key image as DICOM: Key Object Selection (PS3.3 A.35.4) and Softcopy Presentation State (PS3.3 A.33)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import highdicom as hd
from django.conf import settings
from django.db.models import Q
from pydicom import Dataset, dcmwrite
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from accounts.models import User
from studies.archive import objects
from studies.findings.models import ImageFinding
from studies.models import Instance, Study

MANUFACTURER = "Atrium"
KEY_OBJECT_SERIES, PRESENTATION_SERIES = 9100, 9200


def key_object_selection(finding: ImageFinding, instance: Instance, presentation_state: Dataset | None) -> bytes:
    """Give a Part 10 file that names the image, and how it was shown, as of interest."""
    image = objects.read_dataset(instance)
    referenced = [image] if presentation_state is None else [image, presentation_state]
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=referenced,
        observer_person_context=_observer(finding.author),
        description=finding.label or None,
    )
    document = hd.ko.KeyObjectSelectionDocument(
        evidence=referenced,
        content=content,
        series_instance_uid=_uid(instance.series.study, "key objects"),
        series_number=KEY_OBJECT_SERIES,
        sop_instance_uid=finding.key_object_uid,
        instance_number=_instance_number(instance.series.study),
        manufacturer=MANUFACTURER,
    )
    document.SeriesDescription = "Key images"
    return _file(document)


def presentation_state(finding: ImageFinding, instance: Instance) -> Dataset:
    """Give the state in which the image was shown: its window where it's grey, its label."""
    image = objects.read_dataset(instance)
    common = {
        "referenced_images": [image],
        "series_instance_uid": _uid(instance.series.study, "presentation states"),
        "series_number": PRESENTATION_SERIES,
        "sop_instance_uid": finding.presentation_state_uid,
        "instance_number": _instance_number(instance.series.study),
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": settings.SPECTACULAR_SETTINGS["VERSION"],
        "device_serial_number": "1",
        "content_label": "KEY_IMAGE",
        "content_description": finding.label or None,
        "content_creator_name": _person_name(finding.author),
    }
    if int(image.get("SamplesPerPixel", 1)) == 1:
        state = hd.pr.GrayscaleSoftcopyPresentationState(**common, voi_lut_transformations=_window(finding))
    else:
        state = hd.pr.ColorSoftcopyPresentationState(**common)
    state.SeriesDescription = "Key images as shown"
    state.Laterality = image.get("Laterality", "")
    return state


def presentation_state_file(state: Dataset) -> bytes:
    """Give the state as a Part 10 file."""
    return _file(state)


def _window(finding: ImageFinding) -> Sequence[hd.pr.SoftcopyVOILUTTransformation] | None:
    if finding.window_center is None or not finding.window_width:
        return None
    return [
        hd.pr.SoftcopyVOILUTTransformation(
            window_center=round(finding.window_center, 3), window_width=max(round(finding.window_width, 3), 1)
        )
    ]


def _observer(author: User) -> hd.sr.ObserverContext:
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(name=_person_name(author)),
    )


def _person_name(user: User) -> str:
    family, given = (part.replace("^", " ").replace("=", " ").strip() for part in (user.last_name, user.first_name))
    return f"{family or user.username}^{given}"[:64]


def _uid(study: Study, purpose: str) -> str:
    return str(generate_uid(entropy_srcs=[settings.SECRET_KEY, study.study_instance_uid, study.site.slug, purpose]))


def _instance_number(study: Study) -> int:
    shown = Q(study=study, prior_study_instance_uid="") | Q(prior_study_instance_uid=study.study_instance_uid)
    return ImageFinding.objects.filter(shown).count() + 1


def _file(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
