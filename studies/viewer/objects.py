"""What OHIF can't show, rendered by us: documents, structured reports, waveforms, and any object's attributes.

Frames that OHIF can't draw are drawn by us within it (rendered.js).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET
from pydicom import Dataset
from pydicom.datadict import dictionary_description, dictionary_has_tag
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    MPEGTransferSyntaxes,
    ParametricMapStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.access import visible_study
from studies.archive import objects as archive_objects
from studies.archive.animations import is_video
from studies.archive.metadata import instance_metadata
from studies.archive.presentation_states import PRESENTATION_STATES, references
from studies.models import Instance, Study
from studies.trail import subject_of

HTML, PDF, PICTURE, VIDEO, PLAIN = "text/html", "application/pdf", "image/png", "video/mp4", ""
LONGEST_VALUE = 400
MOST_ROWS = 2000
MOST_PICTURES = 24
# Drawn by OHIF only over the images that they belong to. Label Map Segmentation is newer than pydicom's dictionary.
OVERLAYS = {SegmentationStorage, ParametricMapStorage, "1.2.840.10008.5.1.4.1.1.66.7"}
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9.1."
# Says that a page stands in the place of the images, beside the words.
BESIDE = "beside"
may_see_images = capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)


@dataclass(frozen=True)
class Row:
    """An attribute as it's listed; ``depth`` counts the sequences around it."""

    depth: int
    tag: str
    name: str
    vr: str
    value: str


def rendered_as(instance: Instance) -> str:
    """Give the media type in which we render an object of this kind; empty where only its attributes can be shown."""
    name = UID(instance.sop_class_uid).name
    if is_video(instance.transfer_syntax_uid):
        return VIDEO
    if "Encapsulated PDF" in name:
        return PDF
    if " SR " in f" {name} " or "Key Object" in name or "Procedure Log" in name:
        return HTML
    if "Waveform" in name or "ECG" in name or instance.number_of_frames:
        return PICTURE
    return PICTURE if instance.sop_class_uid in PRESENTATION_STATES else PLAIN


def objects_of(study: Study) -> QuerySet[Instance]:
    """Give the study's objects that are no pictures themselves, overlays, films and slides.

    The caller has passed the gate.
    """
    instances = Instance.objects.filter(series__study=study, is_current=True).select_related("series")
    shown = Q(number_of_frames=0) | Q(sop_class_uid__in={*OVERLAYS, VLWholeSlideMicroscopyImageStorage})
    shown |= Q(transfer_syntax_uid__in=MPEGTransferSyntaxes)
    return instances.filter(shown).order_by("series__series_number", "series_id", "instance_number", "pk")


def is_for_ohif(study: Study) -> bool:
    """Say whether OHIF has anything to show of a study: images, ECGs or PDFs. The caller has passed the gate."""
    instances = Instance.objects.filter(series__study=study, is_current=True)
    images = Q(number_of_frames__gt=0) & ~Q(sop_class_uid__in=OVERLAYS)
    shown = images | Q(sop_class_uid=EncapsulatedPDFStorage) | Q(sop_class_uid__startswith=_WAVEFORMS)
    return instances.filter(shown).exists() or not instances.exists()


@require_GET
@may_see_images
def study_objects(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """List the study's objects that have no pixels: a viewer of images leaves some of them out."""
    study = _study(request, study_instance_uid)
    shown = [
        {"instance": i, "sop_class": UID(i.sop_class_uid).name, "kind": rendered_as(i)}
        for i in objects_of(study)[:MOST_ROWS]
    ]
    beside = f"?{BESIDE}=1" if BESIDE in request.GET else ""
    if beside and len(shown) == 1:
        only: Instance = shown[0]["instance"]
        return redirect(reverse("study_object", args=[study.study_instance_uid, only.sop_instance_uid]) + beside)
    context = {"study": study, "objects": shown, "beside": beside}
    return render(request, "viewer/objects.html", context)


@require_GET
@may_see_images
def study_object(request: HttpRequest, study_instance_uid: str, sop_instance_uid: str) -> HttpResponse:
    """Show one object: our rendering where there's one, and its attributes."""
    study = _study(request, study_instance_uid)
    instance = (
        Instance.objects.filter(series__study=study, sop_instance_uid=sop_instance_uid, is_current=True)
        .select_related("series__study")
        .first()
    )
    if instance is None:
        raise Http404
    kind = rendered_as(instance)
    address = reverse(
        "dicomweb_rendered",
        args=[study.study_instance_uid, instance.series.series_instance_uid, instance.sop_instance_uid],
    )
    dataset = archive_objects.read_dataset(instance)
    content = instance_metadata(instance, dataset)
    rows = list(_rows(content, 0))
    context = {
        "study": study,
        "instance": instance,
        "sop_class": UID(instance.sop_class_uid).name,
        "kind": kind,
        "rendered_url": f"{address}?accept={kind}" if kind else "",
        "pictures": _pictures(study, instance, dataset, address),
        "beside": f"?{BESIDE}=1" if BESIDE in request.GET else "",
        "rows": rows[:MOST_ROWS],
        "has_more": len(rows) > MOST_ROWS,
    }
    response = render(request, "viewer/object.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _pictures(study: Study, instance: Instance, dataset: Dataset, rendered: str) -> list[dict[str, str]]:
    if instance.sop_class_uid in PRESENTATION_STATES:
        return _presented(study, instance, dataset)
    count = instance.number_of_frames
    if count < 2 or is_video(instance.transfer_syntax_uid):
        return []
    # Of many frames, as many as fit, spread over all.
    numbers = sorted(
        {1 + index * count // MOST_PICTURES for index in range(MOST_PICTURES)}
        if count > MOST_PICTURES
        else range(1, count + 1)
    )
    whole = rendered.removesuffix("/rendered")
    return [
        {"url": f"{whole}/frames/{n}/rendered?accept={PICTURE}", "place": f"frame {n}", "jump": ""} for n in numbers
    ]


def _presented(study: Study, state: Instance, dataset: Dataset) -> list[dict[str, str]]:
    """Give the images of a presentation state as it shows them, by WADO-URI (PS3.18 §9.1.2.2.3)."""
    named = references(dataset)[:MOST_PICTURES]
    here = Instance.objects.filter(
        series__study=study,
        is_current=True,
        number_of_frames__gt=0,
        sop_instance_uid__in=[r.sop_instance_uid for r in named],
    ).select_related("series")
    by_uid = {image.sop_instance_uid: image for image in here}
    pictures = []
    for reference in named:
        image = by_uid.get(reference.sop_instance_uid)
        if image is None:
            continue
        query = {
            "requestType": "WADO",
            "studyUID": study.study_instance_uid,
            "seriesUID": image.series.series_instance_uid,
            "objectUID": image.sop_instance_uid,
            "frameNumber": reference.frame,
            "contentType": PICTURE,
            "presentationSeriesUID": state.series.series_instance_uid,
            "presentationUID": state.sop_instance_uid,
        }
        if image.number_of_frames == 1:
            del query["frameNumber"]
        place = f"series {image.series.series_number}, image {image.instance_number}"
        where = urlencode({"sop": image.sop_instance_uid, "frame": reference.frame})
        jump = f"{reverse('study', args=[study.study_instance_uid])}?{where}"
        pictures.append({"url": f"{reverse('wado_uri')}?{urlencode(query)}", "place": place, "jump": jump})
    return pictures


def _study(request: HttpRequest, study_instance_uid: str) -> Study:
    principal: Principal = request.principal  # type: ignore[attr-defined]
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        **subject_of(study),
        details={"page": "objects"},
    )
    return study


def _rows(content: dict[str, Any], depth: int) -> list[Row]:
    rows = []
    for tag, element in content.items():
        number = int(tag, 16)
        name = dictionary_description(number) if dictionary_has_tag(number) else "Private" if number >> 16 & 1 else ""
        value = "" if element["vr"] == "SQ" else _value(element)
        rows.append(Row(depth, f"({tag[:4]},{tag[4:]})", name, element["vr"], value))
        if element["vr"] == "SQ":
            for item in element.get("Value", []):
                rows.extend(_rows(item, depth + 1))
    return rows


def _value(element: dict[str, Any]) -> str:
    if "BulkDataURI" in element:
        return "…"
    texts = [
        v.get("Alphabetic") or v.get("Ideographic") or "" if isinstance(v, dict) else str(v)
        for v in element.get("Value", [])
    ]
    return "\\".join(texts)[:LONGEST_VALUE]
