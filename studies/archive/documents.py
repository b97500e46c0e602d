"""Encapsulated documents (PS3.3 C.24.2): whole, and a PDF's first page as a picture."""

from __future__ import annotations

import pypdfium2
from PIL import Image
from pydicom import Dataset

from studies.archive.errors import NotRenderable

PAGE_WIDTH, LONGEST_PAGE = 1240, 8000
OCTETS = "application/octet-stream"
# What a document may be given as: the types of PS3.3 C.24.2, none of which a browser runs as a page of ours.
MEDIA_TYPES = frozenset({"application/pdf", "text/xml", "model/stl", "model/obj", "model/mtl"})


def document_of(dataset: Dataset) -> tuple[str, bytes] | None:
    """Give the media type and bytes of the document that the data set encapsulates."""
    document = dataset.get("EncapsulatedDocument")
    if not document:
        return None
    length = dataset.get("EncapsulatedDocumentLength")
    return media_type_of(dataset), bytes(document)[: length if isinstance(length, int) and length else None]


def media_type_of(dataset: Dataset) -> str:
    """Give the document's media type as far as it's one of DICOM's, else that of octets."""
    media_type = str(dataset.get("MIMETypeOfEncapsulatedDocument") or "").lower().split(";")[0].strip()
    return media_type if media_type in MEDIA_TYPES else OCTETS


def first_page(pdf: bytes, size: tuple[int, int] | None) -> Image.Image:
    """Give a PDF's first page within (width, height). Raises NotRenderable."""
    try:
        document = pypdfium2.PdfDocument(pdf)
        try:
            page = document[0]
            width, height = page.get_size()
            box = size or (PAGE_WIDTH, LONGEST_PAGE)
            scale = min(box[0] / width, box[1] / height)
            image: Image.Image = page.render(scale=min(scale, 8)).to_pil()
            return image.convert("RGB")
        finally:
            document.close()
    except (pypdfium2.PdfiumError, IndexError, ZeroDivisionError) as error:
        raise NotRenderable("The document can't be read.") from error
