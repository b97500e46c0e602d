"""A DICOM file's structure (PS3.10 §7, PS3.5 §7 and §A.4), walked once, without decoding values.

The walk proves that every top-level element lies inside the file, and finds the wanted ones and where the frames lie.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import STANDARD_VR

from studies.ingest.errors import Refusal
from studies.uids import is_uid

LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
# With a length of 16 bits, which is never undefined (PS3.5 §7.1.2).
SHORT_FORM = {vr.encode() for vr in STANDARD_VR} - LONG_FORM
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}
EXTENDED_OFFSETS = 0x7FE00001
TRANSFER_SYNTAX, MEDIA_STORAGE_CLASS, MEDIA_STORAGE_INSTANCE = 0x00020010, 0x00020002, 0x00020003
META = {TRANSFER_SYNTAX, MEDIA_STORAGE_CLASS, MEDIA_STORAGE_INSTANCE}
DEEPEST = 64
# It's inflated in memory, here and by whoever reads it later.
LARGEST_INFLATED = 1 << 29
# Of a file, what is enough to read its SOP Class and Instance UID from.
BEGINNING = 1 << 16


# For each byte order: tag, VR and 16-bit length; a 32-bit length; tag and 32-bit length.
_HEADERS = {
    order: (struct.Struct(f"{order}HH2sH"), struct.Struct(f"{order}I"), struct.Struct(f"{order}HHI")) for order in "<>"
}


class Element(NamedTuple):
    """Where an element's value lies; ``end`` is the next element's place. An undefined length counts delimiters."""

    tag: int
    vr: bytes
    offset: int
    length: int
    end: int
    is_undefined: bool


@dataclass(frozen=True)
class Structure:
    """What the walk found. Fragments are (offset, length) of their data, the offset table left out.

    Of a deflated data set the pixel data have no place in the file, only ``deflated_pixels``, their inflated length.
    """

    transfer_syntax_uid: str
    dataset_offset: int
    media_storage: tuple[str, str]
    wanted: dict[int, RawDataElement]
    pixel_data: Element | None = None
    offset_table: tuple[int, ...] = ()
    fragments: tuple[tuple[int, int], ...] = ()
    first_fragment: int = 0
    is_deflated: bool = False
    deflated_pixels: int = 0


def read_structure(data: memoryview, wanted: frozenset[int] = frozenset()) -> Structure:
    """Walk a whole Part 10 file and take out the wanted elements, by tag, as they're encoded.

    Raises Refusal with a sentence on what is wrong and where.
    """
    if len(data) == 0:
        raise Refusal("The file is empty.")
    if len(data) < 132 or bytes(data[128:132]) != b"DICM":
        raise Refusal("This is no DICOM file: the DICM prefix is missing.")
    meta, dataset_offset = _read_file_meta(data)
    syntax = meta.get(TRANSFER_SYNTAX, "")
    if not syntax:
        raise Refusal("The file meta information names no transfer syntax.")
    if not is_uid(syntax):
        raise Refusal("The transfer syntax is no valid UID.")
    media_storage = (meta.get(MEDIA_STORAGE_CLASS, ""), meta.get(MEDIA_STORAGE_INSTANCE, ""))
    if syntax == DeflatedExplicitVRLittleEndian:
        # Released before a refusal leaves: a mapped file can't be closed while a part of it is looked at.
        with data[dataset_offset:] as compressed:
            inflated = memoryview(_inflate(compressed))
        elements = _walk(inflated, 0, wanted, explicit=True, order="<")
        taken = _taken(inflated, elements, wanted, explicit=True, order="<")
        pixels = sum(elements[tag].length for tag in PIXEL_DATA & elements.keys())
        return Structure(syntax, dataset_offset, media_storage, taken, is_deflated=True, deflated_pixels=pixels)
    explicit, order = _encoding(syntax)
    elements = _walk(data, dataset_offset, wanted, explicit=explicit, order=order)
    taken = _taken(data, elements, wanted, explicit=explicit, order=order)
    pixel_data = next((elements[tag] for tag in PIXEL_DATA if tag in elements), None)
    if pixel_data is None or not pixel_data.is_undefined:
        return Structure(syntax, dataset_offset, media_storage, taken, pixel_data)
    offset_table, fragments, first_fragment = _read_fragments(data, pixel_data)
    extended = elements.get(EXTENDED_OFFSETS)
    if extended is not None:
        raw = data[extended.offset : extended.offset + extended.length]
        offset_table = struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8])
    return Structure(
        *(syntax, dataset_offset, media_storage, taken, pixel_data, offset_table, fragments, first_fragment)
    )


def read_beginning(data: bytes, wanted: frozenset[int]) -> dict[int, RawDataElement]:
    """Take out, of a file or its beginning, those of the wanted elements that come before what's broken or cut off."""
    found: dict[int, Element] = {}
    view, explicit, order = memoryview(data), True, "<"
    if data[128:132] != b"DICM":
        return {}
    try:
        meta, position = _read_file_meta(view)
        syntax = meta.get(TRANSFER_SYNTAX, "")
        explicit, order = _encoding(syntax)
        if syntax == DeflatedExplicitVRLittleEndian:
            view = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(view[position:], BEGINNING))
            position = 0
        _walk(view, position, wanted, explicit=explicit, order=order, found=found)
    except (Refusal, zlib.error):
        pass
    return _taken(view, found, wanted, explicit=explicit, order=order)


def _encoding(syntax: str) -> tuple[bool, str]:
    """Say whether a transfer syntax has explicit VRs, and give its byte order (PS3.5 §A)."""
    return syntax != ImplicitVRLittleEndian, ">" if syntax == ExplicitVRBigEndian else "<"


def _read_file_meta(data: memoryview) -> tuple[dict[int, str], int]:
    """Give what is needed of the meta information as text, and where the data set begins."""
    position, values = 132, {}
    while position + 8 <= len(data) and bytes(data[position : position + 2]) == b"\x02\x00":
        element = _element(data, position, explicit=True, order="<")
        # Who reads the file later stops at a value representation that doesn't exist.
        if element.is_undefined or element.vr.decode("ascii", "replace") not in STANDARD_VR:
            raise Refusal("The file meta information is broken.")
        if element.tag in META:
            value = bytes(data[element.offset : element.end])
            values[element.tag] = value.decode("ascii", "replace").strip("\x00 ")
        position = element.end
    return values, position


def _taken(
    data: memoryview, elements: dict[int, Element], wanted: frozenset[int], *, explicit: bool, order: str
) -> dict[int, RawDataElement]:
    taken = {}
    for tag in wanted & elements.keys():
        element = elements[tag]
        vr = element.vr.decode() if explicit else None
        length = UNDEFINED if element.is_undefined else element.length
        value = bytes(data[element.offset : element.end])
        taken[tag] = RawDataElement(BaseTag(tag), vr, length, value, element.offset, not explicit, order == "<")
    return taken


def _inflate(data: memoryview) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, LARGEST_INFLATED)
    except zlib.error as error:
        raise Refusal("The deflated data set is broken.") from error
    if inflater.unconsumed_tail or not inflater.eof:
        raise Refusal("The deflated data set is cut short or too large.")
    return inflated


def _walk(
    data: memoryview,
    position: int,
    wanted: frozenset[int],
    *,
    explicit: bool,
    order: str,
    found: dict[int, Element] | None = None,
) -> dict[int, Element]:
    """Give the wanted top-level elements, and what leads to the pixels, by tag; ``found`` has them if it refuses."""
    found = {} if found is None else found
    kept = {*wanted, *PIXEL_DATA, EXTENDED_OFFSETS}
    whole = len(data)
    unpack = _HEADERS[order][0].unpack_from
    if position >= whole:
        raise Refusal("The file has no data set.")
    while position < whole:
        if whole - position < 8:
            if any(data[position:]):
                raise Refusal("The file is cut off inside an element's header.")
            break
        if explicit:
            # Most elements are as plain as this; there are a hundred in each file.
            group, number, vr, length = unpack(data, position)
            end = position + 8 + length
            if vr in SHORT_FORM and group != ITEM >> 16 and end <= whole:
                tag = group << 16 | number
                if tag in kept:
                    found[tag] = Element(tag, vr, position + 8, length, end, False)
                position = end
                continue
        element = _element(data, position, explicit=explicit, order=order)
        if element.tag in kept:
            found[element.tag] = element
        position = element.end
    return found


def _element(data: memoryview, position: int, *, explicit: bool, order: str, depth: int = 0) -> Element:
    short_header, long_length, implicit_header = _HEADERS[order]
    vr = b""
    try:
        if explicit:
            group, number, vr, length = short_header.unpack_from(data, position)
            offset = position + 8
            if group == 0xFFFE:
                (length,) = long_length.unpack_from(data, position + 4)
            elif vr in LONG_FORM:
                (length,) = long_length.unpack_from(data, position + 8)
                offset = position + 12
            elif not (vr.isalpha() and vr.isupper()):
                raise Refusal(f"Element {_name(group << 16 | number)} has no valid value representation.")
        else:
            group, number, length = implicit_header.unpack_from(data, position)
            offset = position + 8
    except struct.error as error:
        raise Refusal("The file is cut off inside an element's header.") from error
    tag = group << 16 | number
    if length != UNDEFINED:
        if offset + length > len(data):
            what = "The pixel data are cut short" if tag in PIXEL_DATA else f"Element {_name(tag)} is cut short"
            raise Refusal(f"{what}: {length} bytes announced, {len(data) - offset} there.")
        return Element(tag, vr, offset, length, offset + length, False)
    # Within UN of undefined length, items are in implicit VR little endian (PS3.5 §6.2.2 note 2).
    inner_explicit = explicit and vr != b"UN"
    end = _end_of_items(
        data, offset, explicit=inner_explicit, order=order, depth=depth + 1, is_pixels=tag in PIXEL_DATA
    )
    return Element(tag, vr, offset, end - offset, end, True)


def _end_of_items(data: memoryview, position: int, *, explicit: bool, order: str, depth: int, is_pixels: bool) -> int:
    if depth > DEEPEST:
        raise Refusal("Sequences are nested too deeply.")
    while position + 8 <= len(data):
        group, number, length = struct.unpack_from(f"{order}HHI", data, position)
        tag = group << 16 | number
        position += 8
        if tag == SEQUENCE_END:
            return position
        if tag != ITEM:
            raise Refusal(f"A sequence holds {_name(tag)} where an item should be.")
        if length != UNDEFINED:
            position += length
        elif is_pixels:
            raise Refusal("A fragment of the pixel data has no length.")
        else:
            position = _end_of_item(data, position, explicit=explicit, order=order, depth=depth)
    raise Refusal("The pixel data are cut short." if is_pixels else "A sequence is cut short.")


def _end_of_item(data: memoryview, position: int, *, explicit: bool, order: str, depth: int) -> int:
    while position + 8 <= len(data):
        if struct.unpack_from(f"{order}HH", data, position) == (ITEM_END >> 16, ITEM_END & 0xFFFF):
            return position + 8
        position = _element(data, position, explicit=explicit, order=order, depth=depth).end
    raise Refusal("An item of a sequence is cut short.")


def _read_fragments(data: memoryview, pixel_data: Element) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], int]:
    items = list(_items(data, pixel_data.offset))
    if not items:
        raise Refusal("The encapsulated pixel data have no offset table.")
    (table_offset, table_length), *fragments = items
    table = struct.unpack_from(f"<{table_length // 4}I", data, table_offset)
    return table, tuple(fragments), fragments[0][0] - 8 if fragments else 0


def _items(data: memoryview, position: int) -> Iterator[tuple[int, int]]:
    while True:
        group, number, length = struct.unpack_from("<HHI", data, position)
        if (group << 16 | number) != ITEM:
            return
        yield position + 8, length
        position += 8 + length


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def frame_spans(structure: Structure, data: memoryview, number_of_frames: int) -> tuple[bytes | None, bool]:
    """Give packed uint64 pairs (offset, length) of every frame of encapsulated data, and whether frames have fragments.

    A span of a fragmented frame begins at its first fragment's item header. None when the frames can't be told apart.
    Raises Refusal when there are fewer fragments than frames.
    """
    fragments = structure.fragments
    if len(fragments) < number_of_frames:
        raise Refusal(f"The pixel data have {len(fragments)} fragments for {number_of_frames} frames.")
    if len(fragments) == number_of_frames:
        return array("Q", [n for span in fragments for n in span]).tobytes(), False
    groups = _grouped(structure, data, number_of_frames)
    if groups is None:
        return None, False
    spans = array("Q")
    for group in groups:
        first, last = group[0], group[-1]
        spans.extend((first[0] - 8, last[0] + last[1] - first[0] + 8))
    return spans.tobytes(), True


def _grouped(structure: Structure, data: memoryview, number_of_frames: int) -> list[list[tuple[int, int]]] | None:
    fragments = structure.fragments
    if number_of_frames == 1:
        return [list(fragments)]
    if len(structure.offset_table) == number_of_frames:
        starts = {structure.first_fragment + 8 + offset for offset in structure.offset_table}
    else:
        # Without a table, a frame ends where its bit stream does: EOI of JPEG and its kin (ITU T.81 B.1.1.3).
        starts = {fragments[0][0]}
        for (offset, length), (following, _) in pairwise(fragments):
            if b"\xff\xd9" in bytes(data[offset + max(length - 3, 0) : offset + length]):
                starts.add(following)
    groups: list[list[tuple[int, int]]] = []
    for fragment in fragments:
        if fragment[0] in starts or not groups:
            groups.append([])
        groups[-1].append(fragment)
    return groups if len(groups) == number_of_frames else None
