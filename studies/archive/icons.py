"""Pixel Data of items, such as those of Icon Image Sequence (PS3.3 §F.7)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames

from studies.archive.codecs import UNCOMPRESSED, PixelForm, decode, native

logger = logging.getLogger("atrium.archive")
PIXEL_DATA = 0x7FE00010
# Icons are 64 or 128 pixels wide. In pixels of one, and of all of a data set.
LARGEST, MOST = 1 << 20, 1 << 22
# The tag as it stands in little and in big endian.
_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")


def uncompress_icons(dataset: Dataset, syntax: str) -> None:
    """Have the items' compressed pixels uncompressed, in place; those that can't be decoded are left out.

    In another transfer syntax than theirs (PS3.5 §A.4), and as bulk data (PS3.18 §8.7.3.3.1), they'd be unreadable. So
    they are in an uncompressed one, and more than icons are isn't decoded.
    """
    left = MOST
    for item in _items(dataset):
        left -= _uncompress(item, syntax, left)


def uncompress_icon(item: Dataset, syntax: str) -> None:
    """Have one item's compressed pixels uncompressed, in place, or left out."""
    _uncompress(item, syntax, LARGEST)


def _uncompress(item: Dataset, syntax: str, most: int) -> int:
    """Give how many pixels were decoded."""
    try:
        element = item.get(PIXEL_DATA)
        if element is None or not element.is_undefined_length:
            return 0
        del item[PIXEL_DATA]
        form = PixelForm.of(item)
        size = form.rows * form.columns * form.samples_per_pixel
        if syntax in UNCOMPRESSED or size > min(most, LARGEST):
            return 0
        samples, form = decode(next(generate_frames(element.value, number_of_frames=1)), syntax, form)
        pixels = native(samples, form)
        item.PhotometricInterpretation, item.BitsAllocated = form.photometric_interpretation, form.bits_allocated
        if form.samples_per_pixel > 1:
            item.PlanarConfiguration = 0
        vr = "OW" if form.bits_allocated > 8 else "OB"
        item[PIXEL_DATA] = DataElement(PIXEL_DATA, vr, pixels + b"\0" * (len(pixels) % 2))
    except Exception:  # pydicom raises what it will on hostile values
        # What can't even be read is for those who read on to leave out.
        logger.info("an item's pixels can't be decoded", exc_info=True)
        return 0
    return size


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Give the items, at any depth, of all sequences that can be read and may hold pixels; others stay unread."""
    waiting = [dataset]
    while waiting:
        parent = waiting.pop()
        for tag in list(parent.keys()):
            raw = parent.get_item(tag)
            if raw.VR not in {"SQ", "UN", None}:
                continue
            if isinstance(raw, RawDataElement) and not any(mark in (raw.value or b"") for mark in _TAGS):
                continue
            try:
                element = parent[tag]
                items = list(element.value) if element.VR == "SQ" else []
            except Exception:  # noqa: S112  pydicom raises what it will on hostile values; who reads on meets them again
                continue
            yield from items
            waiting += items
