"""Pixel Data of items, such as those of Icon Image Sequence (PS3.3 §F.7)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import DataElement, Dataset
from pydicom.encaps import generate_frames

from studies.archive.codecs import DECODING_ERRORS, UNCOMPRESSED, PixelForm, decode, native
from studies.archive.errors import NotTranscodable

PIXEL_DATA = 0x7FE00010


def uncompress_icons(dataset: Dataset, syntax: str) -> None:
    """Have the items' compressed pixels uncompressed, in place; those that can't be decoded are left out.

    In another transfer syntax than theirs (PS3.5 §A.4), and as bulk data (PS3.18 §8.7.3.3.1), they'd be unreadable.
    """
    if syntax in UNCOMPRESSED:
        return
    for item in _items(dataset):
        element = item.get(PIXEL_DATA)
        if element is None or not element.is_undefined_length:
            continue
        del item[PIXEL_DATA]
        try:
            samples, form = decode(next(generate_frames(element.value, number_of_frames=1)), syntax, PixelForm.of(item))
            pixels = native(samples, form)
        except (NotTranscodable, StopIteration, *DECODING_ERRORS):
            continue
        vr = "OW" if form.bits_allocated > 8 else "OB"
        item[PIXEL_DATA] = DataElement(PIXEL_DATA, vr, pixels + b"\0" * (len(pixels) % 2))
        item.PhotometricInterpretation, item.BitsAllocated = form.photometric_interpretation, form.bits_allocated
        if form.samples_per_pixel > 1:
            item.PlanarConfiguration = 0


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Give the items of all sequences that can be read, at any depth."""
    waiting = [dataset]
    while waiting:
        parent = waiting.pop()
        for tag in list(parent.keys()):
            if parent.get_item(tag).VR != "SQ":
                continue
            try:
                items = list(parent[tag].value)
            except Exception:  # noqa: S112  pydicom raises what it will on hostile values; who reads on meets them again
                continue
            yield from items
            waiting += items
