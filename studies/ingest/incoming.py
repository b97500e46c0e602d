"""A file on its way in: staged, checked, and what became of it."""

from __future__ import annotations

import hashlib
import mmap
import os
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pydicom
from django.conf import settings
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage, MPEGTransferSyntaxes

from accounts.models import Site
from accounts.principals import Principal
from studies.archive import objects, rejection
from studies.archive.rejection import RejectionNote
from studies.ingest.attributes import INDEXED, Attributes
from studies.ingest.errors import META_DOES_NOT_MATCH, Refusal
from studies.ingest.part10 import Structure, frame_spans, read_structure

MOST_FRAMES = 2**31 - 1


class WayIn(StrEnum):
    """By which door a file came."""

    DIMSE = "dimse"
    STOW = "stow"
    UPLOAD = "upload"
    IMPORT = "import"
    REPORT = "report"
    RETRIEVE = "retrieve"
    REJECTION = "rejection"


class Status(StrEnum):
    """What became of a file."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Source:
    """Where files come from and to which site they go."""

    way_in: WayIn
    site: Site
    principal: Principal


@dataclass
class StagedFile:
    """A file on its way in, whole but not yet anyone's.

    Who hashed it while it came says so: ``sha256`` of the file, ``dataset_sha256`` of what follows the file meta
    information. Otherwise it's done here.
    """

    path: Path
    size: int
    file_name: str = ""
    sha256: bytes = b""
    dataset_sha256: bytes = b""
    warning: int = 0
    synced: Future[None] | None = None


@dataclass
class Outcome:
    """What became of one file.

    ``reason`` and ``dicom_status`` are set for those refused or failed, ``warning`` for those stored with one.
    """

    status: Status
    file_name: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    reason: str = ""
    dicom_status: int = 0x0000
    warning: int = 0

    @property
    def is_in(self) -> bool:
        return self.status in {Status.STORED, Status.DUPLICATE, Status.CONFLICT}


@dataclass
class Incoming:
    """A staged file that was checked, and later where it lies."""

    staged: StagedFile
    attributes: Attributes
    structure: Structure
    sha256: bytes
    placement: dict[str, Any] = field(default_factory=dict)
    object_key: str = ""
    is_placed: bool = False
    note: RejectionNote | None = None

    @property
    def uids(self) -> tuple[str, str]:
        """Give the study's and the instance's UID."""
        return self.attributes.study_instance_uid, self.attributes.sop_instance_uid

    def outcome(self, status: Status, *, reason: str = "", dicom_status: int = 0) -> Outcome:
        """Give what became of it."""
        return Outcome(
            status,
            self.staged.file_name,
            self.attributes.study_instance_uid,
            self.attributes.series_instance_uid,
            self.attributes.sop_class_uid,
            self.attributes.sop_instance_uid,
            reason,
            dicom_status,
            self.staged.warning or (0 if self.attributes.matches_file_meta else META_DOES_NOT_MATCH),
        )

    def dataset_digest(self) -> bytes:
        """Give the SHA-256 of the data set alone; it's read for that only when the UID is there already."""
        if not self.staged.dataset_sha256:
            begin, length = self.structure.dataset_offset, self.staged.size - self.structure.dataset_offset
            if self.is_placed:
                self.staged.dataset_sha256 = objects.digest(self.object_key, begin, length)
            else:
                with self.staged.path.open("rb") as file:
                    file.seek(begin)
                    self.staged.dataset_sha256 = hashlib.file_digest(file, "sha256").digest()
        return self.staged.dataset_sha256


def stage(chunks: Iterable[bytes | memoryview], *, file_name: str = "") -> StagedFile:
    """Write a stream to the staging folder. Raises OSError (a full disk), leaving nothing behind."""
    path = new_staging_path()
    size, digest = 0, hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
            digest.update(chunk)
            size += len(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return StagedFile(path, size, file_name[-300:], digest.digest())


def new_staging_path() -> Path:
    """Give an unused path in the staging folder, on the same file system as embedded storage."""
    folder: Path = settings.STAGING_ROOT
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
    return folder / uuid.uuid4().hex


def begin_sync(files: Sequence[StagedFile]) -> None:
    """Begin to make staged files durable while others of their batch still come."""
    synced = objects.begin_sync([file.path for file in files])
    for file in files:
        file.synced = synced


def check(file: StagedFile) -> Incoming:
    """Prove that the file is a whole instance and read what it's indexed by. Raises Refusal."""
    if file.size == 0:
        raise Refusal("The file is empty.")
    with (
        file.path.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
    ):
        structure = read_structure(data, INDEXED)
        attributes = Attributes(structure)
        return Incoming(
            staged=file,
            attributes=attributes,
            structure=structure,
            sha256=file.sha256 or hashlib.sha256(data).digest(),
            placement=_placement(structure, attributes, data),
            note=_note(file.path) if attributes.sop_class_uid == KeyObjectSelectionDocumentStorage else None,
        )


def _note(path: Path) -> RejectionNote | None:
    try:
        return rejection.read_note(pydicom.dcmread(path))
    except Exception as error:  # pydicom raises what it will on hostile values
        raise Refusal("The key object selection can't be read.") from error


def _placement(structure: Structure, attributes: Attributes, data: memoryview) -> dict[str, Any]:
    """Find where the frames lie. Raises Refusal when there is less pixel data than announced."""
    pixel_data, frames = structure.pixel_data, attributes.announced_frames
    if pixel_data is None:
        # A deflated data set's pixels are found by decoding; without rows there are none.
        if not structure.deflated_pixels or not attributes.frame_bits:
            return {"number_of_frames": 0}
        _check_length(structure.deflated_pixels, attributes.frame_bits, frames)
        return {"number_of_frames": frames}
    if pixel_data.is_undefined:
        if UID(structure.transfer_syntax_uid) in MPEGTransferSyntaxes:
            # A video is one stream, however many pictures it shows (PS3.5 §8.2.5 to §8.2.8).
            frames = 1
        spans, fragmented = frame_spans(structure, data, frames)
        return {
            "number_of_frames": frames,
            "pixel_data_offset": pixel_data.offset,
            "frame_offsets": spans,
            "frames_are_fragmented": fragmented,
        }
    if not attributes.frame_bits:
        return {"number_of_frames": 0, "pixel_data_offset": pixel_data.offset}
    _check_length(pixel_data.length, attributes.frame_bits, frames)
    has_even_frames = attributes.frame_bits % 8 == 0
    return {
        "number_of_frames": frames,
        "pixel_data_offset": pixel_data.offset,
        "frame_length": (attributes.frame_bits + 7) // 8 if has_even_frames or frames == 1 else None,
    }


def _check_length(length: int, frame_bits: int, frames: int) -> None:
    """Refuse pixel data of fewer bytes than their frames need, or of more frames than the index counts."""
    if length * 8 < frame_bits * frames or frames > MOST_FRAMES:
        raise Refusal(f"The pixel data are cut short: {length} bytes for {frames} frames.")
