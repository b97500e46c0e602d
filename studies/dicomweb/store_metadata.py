"""Instances from metadata (DICOM JSON or XML) and bulk data in parts of their own (PS3.18 §10.5.1.2, Annex F).

Pixel data goes from the part's file to the instance's file in pieces; only what's small passes through memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from PIL import Image, UnidentifiedImageError
from pydicom import DataElement, Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import get_expected_length

from studies.archive.codecs import LOSSY_JPEG
from studies.archive.native_model import MEDIA_TYPE as DICOM_XML
from studies.archive.native_model import InvalidNativeModel, from_native_xml
from studies.archive.overlay import UNICODE
from studies.archive.writing import dataset_bytes, file_head
from studies.dicomweb.errors import DicomWebError
from studies.dicomweb.framing import DICOM_JSON, OCTETS
from studies.dicomweb.json_values import InvalidValue, dataset_of
from studies.dicomweb.multipart import CHUNK, Part
from studies.ingest.errors import CANNOT_UNDERSTAND, DATASET_DOES_NOT_MATCH, ELEMENTS_DISCARDED, OUT_OF_RESOURCES
from studies.ingest.services import Outcome, StagedFile, Status, stage
from studies.uids import is_uid

__all__ = ["DICOM_JSON", "DICOM_XML", "Assembly"]
LARGEST_METADATA = 64 << 20
MOST_VALUES = 2_000_000
LARGEST_VALUE = 256 << 20
PIXEL_DATA = "7FE00010"
SPECIFIC_CHARACTER_SET = 0x00080005
# The transfer syntax of a media type, in lower case, that names none (PS3.18 Tables 8.7.3-2 and 8.7.3-4).
DEFAULT_SYNTAXES = {
    OCTETS: uid.ExplicitVRLittleEndian,
    "image/jls": uid.JPEGLSLossless,
    "image/jp2": uid.JPEG2000Lossless,
    "image/jpx": uid.JPEG2000MCLossless,
    "image/jphc": uid.HTJ2KLossless,
    "image/dicom-rle": uid.RLELossless,
    "video/mpeg2": uid.MPEG2MPML,
    "video/mpeg": uid.MPEG2MPML,
    "video/mp4": uid.MPEG4HP41,
    "video/h265": uid.HEVCMP51,
}
# The process of a JPEG stream by its start-of-frame marker (ITU T.81 Table B.1).
JPEG_SYNTAXES = {0xC0: uid.JPEGBaseline8Bit, 0xC1: uid.JPEGExtended12Bit, 0xC3: uid.JPEGLosslessSV1}
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


class CannotAssemble(ValueError):
    """An instance can't be made of what was sent; ``status`` is the failure reason."""

    def __init__(self, reason: str, status: int = CANNOT_UNDERSTAND) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


@dataclass
class _Bulk:
    """The parts under one Content-Location, each staged; several are the frames of one value."""

    media_type: str
    transfer_syntax: str
    files: list[StagedFile] = field(default_factory=list)


class Assembly:
    """Collects parts, then gives the instances."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._metadata: list[dict[str, Any]] = []
        self._bulk: dict[str, _Bulk] = {}
        self._lost: dict[str, CannotAssemble | OSError] = {}
        self._metadata_size = 0

    def add(self, part: Part) -> None:
        """Take the next part. Raises DicomWebError for metadata that can't be read, OSError, BrokenBody."""
        content_type = Message()
        content_type["Content-Type"] = part.headers.get("content-type", "")
        kind = content_type.get_content_type()
        if kind in {DICOM_JSON, "application/json"}:
            self._metadata += _from_json(self._read(part))
        elif kind in {DICOM_XML, "application/xml", "text/xml"}:
            try:
                self._metadata.append(from_native_xml(self._read(part)))
            except InvalidNativeModel as error:
                raise DicomWebError(400, str(error)) from error
        else:
            location = self._resolved(part.headers.get("content-location", ""))
            syntax = str(content_type.get_param("transfer-syntax") or "")
            bulk = self._bulk.setdefault(location, _Bulk(kind, syntax))
            bulk.files.append(stage(part.chunks))

    def lose(self, part: Part, error: CannotAssemble | OSError) -> None:
        """Remember why a part couldn't be kept: it's too large, or there was no room."""
        self._lost[self._resolved(part.headers.get("content-location", ""))] = error

    def _read(self, part: Part) -> bytes:
        pieces = []
        for chunk in part.chunks:
            self._metadata_size += len(chunk)
            if self._metadata_size > LARGEST_METADATA:
                raise DicomWebError(413, "The metadata are too large.")
            pieces.append(chunk)
        body = b"".join(pieces)
        # An object of two characters takes sixty bytes of memory and more.
        if sum(body.count(mark) for mark in (b"{", b"[", b"<")) > MOST_VALUES:
            raise DicomWebError(413, "The metadata are too large.")
        return body

    def _resolved(self, location: str) -> str:
        try:
            return urljoin(self._base, location)
        except ValueError:
            # No address, but as a name it serves.
            return location

    def instances(self) -> Iterator[StagedFile | Outcome]:
        """Give an instance for each data set, or why there's none."""
        for content in self._metadata:
            try:
                yield self._instance(content)
            except CannotAssemble as error:
                yield _failure(content, Status.REFUSED, error.reason, error.status)
            except OSError:
                yield _failure(content, Status.FAILED, "The archive has no room.", OUT_OF_RESOURCES)

    def close(self) -> None:
        """Remove the parts' files."""
        for bulk in self._bulk.values():
            for file in bulk.files:
                file.path.unlink(missing_ok=True)

    def _instance(self, content: dict[str, Any]) -> StagedFile:
        discarded = [tag for tag in content if tag.startswith("0002")]
        content = {tag: element for tag, element in content.items() if not tag.startswith(("0002", "00083002"))}
        pixels = content.get(PIXEL_DATA, {})
        bulk = self._found(str(pixels["BulkDataURI"])) if "BulkDataURI" in pixels else None
        if bulk is not None:
            del content[PIXEL_DATA]
        try:
            dataset = dataset_of(content, self._value)
        except (CannotAssemble, OSError):
            raise
        except InvalidValue as error:
            raise CannotAssemble(str(error)) from error
        except Exception as error:  # pydicom raises what it will on hostile values
            raise CannotAssemble("The metadata hold an element that isn't of the DICOM JSON model.") from error
        syntax = _syntax(bulk) if bulk is not None else str(uid.ExplicitVRLittleEndian)
        if bulk is not None:
            _complete(dataset, bulk)
        if syntax in LOSSY_JPEG and "LossyImageCompression" not in dataset:
            # Its presence isn't the sender's choice (PS3.3 §C.7.6.1.1.5).
            dataset.LossyImageCompression = "01"
        _check_length(dataset, syntax, sum(file.size for file in bulk.files) if bulk else None)
        staged = stage(_part10(dataset, syntax, str(pixels.get("vr", "")), bulk))
        staged.warning = ELEMENTS_DISCARDED if discarded else 0
        return staged

    def _found(self, uri: str) -> _Bulk:
        location = self._resolved(uri)
        if location in self._lost:
            raise self._lost[location]
        bulk = self._bulk.get(location)
        if bulk is None:
            raise CannotAssemble("Bulk data that the metadata name weren't sent.", DATASET_DOES_NOT_MATCH)
        return bulk

    def _value(self, tag: str, vr: str, uri: str) -> bytes:
        bulk = self._found(uri)
        if sum(file.size for file in bulk.files) > LARGEST_VALUE:
            raise CannotAssemble("A value is too large.", OUT_OF_RESOURCES)
        return b"".join(file.path.read_bytes() for file in bulk.files)


def _from_json(body: bytes) -> list[dict[str, Any]]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DicomWebError(400, "The metadata are no JSON.") from error
    datasets = content if isinstance(content, list) else [content]
    if not all(isinstance(d, dict) and all(isinstance(e, dict) for e in d.values()) for d in datasets):
        raise DicomWebError(400, "The metadata are no data sets in the DICOM JSON model.")
    return datasets


def _failure(content: dict[str, Any], status: Status, reason: str, dicom_status: int) -> Outcome:
    """Give what became of a data set that no instance was made of, by those of its UIDs that are valid."""

    def uid_at(tag: str) -> str:
        values = content.get(tag, {}).get("Value")
        text = values[0] if isinstance(values, list) and values else ""
        return text if isinstance(text, str) and is_uid(text) else ""

    return Outcome(
        status,
        study_instance_uid=uid_at("0020000D"),
        series_instance_uid=uid_at("0020000E"),
        sop_class_uid=uid_at("00080016"),
        sop_instance_uid=uid_at("00080018"),
        reason=reason,
        dicom_status=dicom_status,
    )


def _syntax(bulk: _Bulk) -> str:
    """Give the transfer syntax that a part's media type stands for. Raises CannotAssemble."""
    if bulk.transfer_syntax not in {"", "*"}:
        known = uid.UID(bulk.transfer_syntax)
        if not known.is_valid or not known.is_transfer_syntax:
            raise CannotAssemble("The bulk data's transfer syntax isn't known.")
        return bulk.transfer_syntax
    if bulk.media_type == "image/jpeg":
        return _jpeg_syntax(bulk.files[0].path)
    if bulk.media_type not in DEFAULT_SYNTAXES:
        raise CannotAssemble("Bulk data of this media type can't be stored.")
    return str(DEFAULT_SYNTAXES[bulk.media_type])


def _jpeg_syntax(path: Path) -> str:
    """Read the stream's markers up to the start of its frame (ITU T.81 §B.1)."""
    with path.open("rb") as file:
        stream = file.read(1 << 16)
    place = 2
    while stream.startswith(b"\xff\xd8") and place + 4 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker in JPEG_SYNTAXES:
            return str(JPEG_SYNTAXES[marker])
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            break
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    raise CannotAssemble("The JPEG stream's process isn't known to DICOM.")


def _complete(dataset: Dataset, bulk: _Bulk) -> None:
    """Add what describes the pixels and may be left out because the image says it itself (PS3.18 §10.5.1.2)."""
    if "Rows" in dataset or bulk.media_type not in {"image/jpeg", "image/jp2"}:
        return
    try:
        with Image.open(bulk.files[0].path) as picture:
            size, mode = picture.size, picture.mode
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise CannotAssemble("The image can't be read.") from error
    dataset.Columns, dataset.Rows = size
    dataset.SamplesPerPixel = 1 if mode in {"L", "I;16"} else 3
    bits = 16 if mode == "I;16" else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    if dataset.SamplesPerPixel == 1:
        dataset.PhotometricInterpretation = "MONOCHROME2"
    else:
        dataset.PhotometricInterpretation = "YBR_FULL_422" if bulk.media_type == "image/jpeg" else "YBR_RCT"
        dataset.PlanarConfiguration = 0


def _check_length(dataset: Dataset, syntax: str, bulk_size: int | None) -> None:
    """See that native pixels are as long as their description says. Raises CannotAssemble."""
    size = len(dataset.PixelData or b"") if "PixelData" in dataset else bulk_size
    if size is None or uid.UID(syntax).is_encapsulated:
        return
    try:
        expected = get_expected_length(dataset)
    except (AttributeError, TypeError, ValueError):
        # Described in part or not at all.
        return
    if size < expected:
        raise CannotAssemble("The pixel data are shorter than their description says.", DATASET_DOES_NOT_MATCH)


def _part10(dataset: Dataset, syntax: str, vr: str, bulk: _Bulk | None) -> Iterator[bytes]:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = str(dataset.get("SOPClassUID", ""))
    meta.MediaStorageSOPInstanceUID = str(dataset.get("SOPInstanceUID", ""))
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = uid.PYDICOM_IMPLEMENTATION_UID
    before, after = Dataset(), Dataset()
    for element in dataset:
        (after if element.tag > int(PIXEL_DATA, 16) else before).add(element)
    try:
        _declare_unicode(before)
        _declare_unicode(after, is_whole=False)
        head = file_head(meta) + dataset_bytes(before, syntax)
        tail = dataset_bytes(after, syntax, character_set=UNICODE)
    except Exception as error:  # pydicom raises what it will on hostile values
        raise CannotAssemble("The metadata hold a value that can't be written.") from error
    yield head
    if bulk is not None:
        yield from _pixel_data(bulk, syntax, vr)
    yield tail


def _declare_unicode(dataset: Dataset, *, is_whole: bool = True) -> None:
    """Name Unicode, which the text came in (PS3.18 §F.2, PS3.19 §A.1.5), at the top and where another set is named.

    No other holds every letter.
    """
    if is_whole or "SpecificCharacterSet" in dataset:
        dataset[SPECIFIC_CHARACTER_SET] = DataElement(SPECIFIC_CHARACTER_SET, "CS", UNICODE)
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _declare_unicode(item, is_whole=False)


def _pixel_data(bulk: _Bulk, syntax: str, vr: str) -> Iterator[bytes]:
    tag = b"\xe0\x7f\x10\x00"
    if not uid.UID(syntax).is_encapsulated:
        size = sum(file.size for file in bulk.files)
        padded = size + size % 2
        if padded >= 0xFFFFFFFF:
            raise CannotAssemble("Native pixel data are at most 4 GB.", OUT_OF_RESOURCES)
        explicit = syntax != uid.ImplicitVRLittleEndian
        name = (vr if vr in {"OB", "OW"} else "OW").encode() + b"\0\0" if explicit else b""
        yield tag + name + struct.pack("<I", padded)
        for file in bulk.files:
            yield from _pieces(file.path)
        yield b"\0" * (size % 2)
        return
    # One fragment for each part; an empty offset table (PS3.5 §A.4).
    yield tag + b"OB\0\0\xff\xff\xff\xff" + ITEM + b"\0\0\0\0"
    for file in bulk.files:
        yield ITEM + struct.pack("<I", file.size + file.size % 2)
        yield from _pieces(file.path)
        yield b"\0" * (file.size % 2)
    yield SEQUENCE_END


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
