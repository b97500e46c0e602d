"""DICOM JSON metadata (PS3.18 Annex F): built once per series, kept compressed, sent as it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

from django.db import transaction
from django.utils import timezone
from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue

from studies.archive.errors import NotTranscodable
from studies.archive.frames import FEWEST_FLOAT_BITS, Frames
from studies.archive.icons import uncompress_icons
from studies.archive.models import SeriesMetadata
from studies.archive.objects import read_dataset
from studies.archive.writing import turn_words
from studies.models import Instance, Series

logger = logging.getLogger("atrium.archive")
BULK_THRESHOLD = 1024
PAGE = 500
# Of the metadata that are kept. To be raised with whatever changes what :func:`instance_metadata` gives: what was kept
# in another form is built anew when it's asked for.
FORM = 4


def instance_metadata(instance: Instance, dataset: Dataset) -> dict[str, Any]:
    """Give the DICOM JSON of one instance; long binary values become BulkDataURIs.

    The URIs are absolute paths, so that they lead there from the metadata of study, series and instance alike.
    A value that its VR doesn't allow is left out, as an empty element or null among others, rather than refuse the
    instance.
    """
    with suppress(NotTranscodable):
        turn_words(dataset, instance.transfer_syntax_uid)
    uncompress_icons(dataset, instance.transfer_syntax_uid)
    content = _json_of(dataset, path="")
    content["00083002"] = {"vr": "UI", "Value": [instance.transfer_syntax_uid]}
    if instance.number_of_frames:
        frames = Frames(instance)
        path = frames.pixel_path
        content[path] = {"vr": _vr_of_pixels(frames), "BulkDataURI": _bulk_uri(instance, path)}
    for element in _elements_with_bulk(content):
        element["BulkDataURI"] = _bulk_uri(instance, element["BulkDataURI"])
    return dict(sorted(content.items()))


def _vr_of_pixels(frames: Frames) -> str:
    """Give the pixels' VR: OB where they're compressed, OW where they must be, else as stored (PS3.5 §A.1, §A.2, §A.4).

    Those of 32 and 64 bits that are no whole numbers are in elements of their own, OF and OD.
    """
    if frames.is_compressed:
        return "OB"
    bits = frames.instance.bits_allocated or 0
    if bits < FEWEST_FLOAT_BITS and (bits > 8 or frames.syntax.is_implicit_VR):
        return "OW"
    stored = frames.pixel_vr
    return stored if stored in {"OF", "OD"} or (stored == "OB" and bits <= 8) else "OW"


def _bulk_uri(instance: Instance, path: str) -> str:
    series = instance.series
    parents = f"studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
    return f"/dicom-web/{parents}/instances/{instance.sop_instance_uid}/bulkdata/{path}"


def _elements_with_bulk(content: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for element in content.values():
        if "BulkDataURI" in element and not element["BulkDataURI"].startswith("/"):
            found.append(element)
        if element["vr"] == "SQ":
            for item in element.get("Value", []):
                found.extend(_elements_with_bulk(item))
    return found


def _json_of(dataset: Dataset, path: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for tag in sorted(dataset.keys()):
        # The instance's own pixels are named apart; those of icons are values among others.
        is_own_pixels = tag.group == 0x7FE0 and not path
        if is_own_pixels or tag.group == 0x0002 or (tag.element == 0 and tag.group % 2 == 0):
            continue
        name = f"{tag:08X}"
        try:
            element = dataset[tag]
            if tag.group == 0x7FE0 and element.is_undefined_length:
                # Compressed still: it couldn't be decoded.
                continue
            content[name] = _json_of_element(element, f"{path}{name}")
        except Exception:  # pydicom raises what it will on hostile values
            content[name] = {"vr": "UN"}
    return content


def _json_of_element(element: DataElement, path: str) -> dict[str, Any]:
    if element.VR == "SQ":
        items = [_json_of(item, f"{path}.{number}.") for number, item in enumerate(element.value, start=1)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if isinstance(element.value, bytes) and len(element.value) > BULK_THRESHOLD:
        return {"vr": element.VR, "BulkDataURI": path}
    try:
        return _rendered(element)
    except Exception:  # pydicom raises what it will on hostile values
        if not isinstance(element.value, list | MultiValue):
            raise
        return {"vr": element.VR, "Value": [_one_value(element, value) for value in element.value]}


def _rendered(element: DataElement) -> dict[str, Any]:
    content: dict[str, Any] = element.to_json_dict(bulk_data_element_handler=None, bulk_data_threshold=1 << 40)
    json.dumps(content, allow_nan=False)
    return content


def _one_value(element: DataElement, value: Any) -> Any:
    """Give one of several values; null for an empty one, and for one that JSON can't hold (PS3.18 §F.2.5)."""
    try:
        return _rendered(DataElement(element.tag, element.VR, value)).get("Value", [None])[0]
    except Exception:  # pydicom raises what it will on hostile values
        return None


def series_metadata(series: Series) -> SeriesMetadata:
    """Give the series' metadata, a gzipped JSON array of its current instances, building it when it's stale.

    Raises ObjectMissing.
    """
    kept = SeriesMetadata.objects.filter(series=series).first()
    if kept is not None and (kept.revision, kept.form) == (series.revision, FORM):
        return kept
    content, digest = BytesIO(), hashlib.sha256()
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=6, mtime=0) as compressed:
        for piece in _pieces(series):
            compressed.write(piece)
            digest.update(piece)
    with transaction.atomic():
        kept, _ = SeriesMetadata.objects.update_or_create(
            series=series,
            defaults={
                "revision": series.revision,
                "form": FORM,
                "content": content.getvalue(),
                "etag": digest.hexdigest(),
            },
        )
        _is_built(series)
    return kept


def _pieces(series: Series) -> Iterator[bytes]:
    """Give the array piece by piece: memory holds a page of the series' instances, however many it has."""
    rows = Instance.objects.filter(series=series, is_current=True)
    ids = list(rows.order_by("instance_number", "pk").values_list("pk", flat=True))
    separator = b"["
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        found = rows.select_related("series__study").defer("attributes").in_bulk(page)
        for instance in (found[pk] for pk in page if pk in found):
            metadata = instance_metadata(instance, read_dataset(instance))
            text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
            yield separator + text.encode("utf-8", "replace")
            separator = b","
    yield b"]" if separator == b"," else b"[]"


@transaction.atomic
def _is_built(series: Series) -> None:
    """Nobody need build the metadata any more, unless the series has grown since it was read."""
    Series.objects.filter(pk=series.pk, revision=series.revision, metadata_due_at__isnull=False).update(
        metadata_due_at=None
    )


def build_due_metadata(*, most: int = 100) -> int:
    """Build the metadata of series that have been quiet for a while, so that the first to ask doesn't wait.

    Gives how many series were looked at. One that can't be read is left to the one who asks for it.
    """
    due = Series.objects.filter(metadata_due_at__lte=timezone.now()).order_by("metadata_due_at")[:most]
    for series in due:
        try:
            series_metadata(series)
        except Exception:  # whatever is wrong with one series must not hold up those behind it
            logger.exception("a series' metadata can't be built")
        _is_built(series)
    return len(due)
