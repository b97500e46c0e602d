"""A file on its way in: staged, checked, and what became of it."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage, MPEGTransferSyntaxes

from accounts.models import Site
from accounts.principals import Principal
from studies.archive import objects, rejection
from studies.archive.packs import member_header, member_offset, pack_length
from studies.archive.rejection import RejectionNote
from studies.ingest.attributes import INDEXED, Attributes, sop_uids
from studies.ingest.errors import META_DOES_NOT_MATCH, Refusal
from studies.ingest.part10 import BEGINNING, Structure, frame_spans, read_structure

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


class Pack:
    """A staging file that several files of a request share, on its way to be one object (:mod:`studies.archive.packs`).

    ``count`` and ``end`` are of the files that came whole. It's open until closed: opening it for each file would let
    another thread in, which costs more than what is done with it. Raises OSError.
    """

    def __init__(self) -> None:
        self.path = objects.new_staging_path()
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self.count = self.end = 0
        self._mapped: mmap.mmap | None = None

    def part(self, offset: int, size: int) -> memoryview:
        """Give a file's bytes; nothing may come into the pack after. Raises OSError."""
        self._mapped = self._mapped or mmap.mmap(self.descriptor, self.end, access=mmap.ACCESS_READ)
        with memoryview(self._mapped) as whole:
            return whole[offset : offset + size]

    def finish(self, members: Iterable[tuple[str, int, int]]) -> None:
        """Make it a tar of its members: SOP Instance UID, offset, size of each. Raises OSError."""
        for uid, offset, size in members:
            header = member_header(uid, size)
            os.pwrite(self.descriptor, header, offset - len(header))
        os.ftruncate(self.descriptor, pack_length(self.end))

    def close(self) -> None:
        """Close it, and remove what nobody took from the staging folder."""
        os.close(self.descriptor)
        self._mapped = None
        self.path.unlink(missing_ok=True)


@dataclass
class StagedFile:
    """A file on its way in, whole but not yet anyone's.

    Who hashed it while it came says so: ``sha256`` of the file, ``dataset_sha256`` of what follows the file meta
    information. Otherwise it's done here. In a ``pack`` it lies at ``offset``, others beside it. ``failure`` is why it
    can't be made durable, where that's known.
    """

    path: Path
    size: int
    file_name: str = ""
    sha256: bytes = b""
    dataset_sha256: bytes = b""
    warning: int = 0
    offset: int = 0
    pack: Pack | None = None
    failure: OSError | None = None

    def outcome(self, status: Status, *, reason: str, dicom_status: int) -> Outcome:
        """Give what became of it where it couldn't be checked, with the UIDs that can be read of it all the same."""
        try:
            beginning = b"".join(_chunks(self.path, self.offset, min(self.size, BEGINNING)))
        except OSError:
            beginning = b""
        sop_class_uid, sop_instance_uid = sop_uids(beginning)
        return Outcome(
            status,
            self.file_name,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            reason=reason,
            dicom_status=dicom_status,
        )


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
            begin += self.staged.offset
            if self.is_placed:
                self.staged.dataset_sha256 = objects.digest(self.object_key, begin, length)
            else:
                hashed = hashlib.sha256()
                for chunk in _chunks(self.staged.path, begin, length):
                    hashed.update(chunk)
                self.staged.dataset_sha256 = hashed.digest()
        return self.staged.dataset_sha256


def stage(chunks: Iterable[bytes | memoryview], *, file_name: str = "", pack: Pack | None = None) -> StagedFile:
    """Write a stream to the staging folder, or to a pack's end. Raises OSError (a full disk), leaving nothing."""
    if pack is not None:
        offset = member_offset(pack.end)
        try:
            size, sha256 = _write(chunks, pack.descriptor, offset)
        except BaseException:
            os.ftruncate(pack.descriptor, pack.end)
            raise
        pack.count, pack.end = pack.count + 1, offset + size
        return StagedFile(pack.path, size, file_name[-300:], sha256, offset=offset, pack=pack)
    path = objects.new_staging_path()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        size, sha256 = _write(chunks, descriptor, 0)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return StagedFile(path, size, file_name[-300:], sha256)


def _write(chunks: Iterable[bytes | memoryview], descriptor: int, offset: int) -> tuple[int, bytes]:
    """Write a stream at an offset; give its size and SHA-256."""
    place, digest = offset, hashlib.sha256()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            written = os.pwrite(descriptor, view, place)
            place, view = place + written, view[written:]
        digest.update(chunk)
    return place - offset, digest.digest()


def take_out(file: StagedFile) -> None:
    """Copy a file out of its pack into a staging file of its own. Raises OSError, leaving nothing behind."""
    if file.pack is None:
        return
    path = objects.new_staging_path()
    digest = hashlib.sha256()
    try:
        with path.open("xb") as copy:
            for chunk in _chunks(file.path, file.offset, file.size):
                digest.update(chunk)
                copy.write(chunk)
        if file.sha256 and digest.digest() != file.sha256:
            raise OSError(errno.EIO, "The staging folder gives back other bytes than it was given.")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    file.path, file.offset, file.pack = path, 0, None


def _chunks(path: Path, begin: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while length > 0 and (chunk := file.read(min(length, 1 << 20))):
            length -= len(chunk)
            yield chunk


def begin_writing(files: Sequence[StagedFile]) -> None:
    """Begin to write staged files, or what has come of their packs, to disk while others of their batch still come.

    What fails at it is kept, for who places them.
    """
    for file in files:
        try:
            if file.pack is None or file is files[-1]:
                objects.begin_writing(file.path)
        except OSError as error:
            file.failure = error


def check(file: StagedFile) -> Incoming:
    """Prove that the file is a whole instance and read what it's indexed by. Raises Refusal."""
    if file.size == 0:
        raise Refusal("The file is empty.")
    with _bytes_of(file) as data:
        structure = read_structure(data, INDEXED)
        attributes = Attributes(structure)
        return Incoming(
            staged=file,
            attributes=attributes,
            structure=structure,
            sha256=file.sha256 or hashlib.sha256(data).digest(),
            placement=_placement(structure, attributes, data),
            note=_note(file) if attributes.sop_class_uid == KeyObjectSelectionDocumentStorage else None,
        )


@contextmanager
def _bytes_of(file: StagedFile) -> Iterator[memoryview]:
    if file.pack is not None:
        with file.pack.part(file.offset, file.size) as data:
            yield data
        return
    with (
        file.path.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
    ):
        yield data


def _note(file: StagedFile) -> RejectionNote | None:
    take_out(file)
    try:
        return rejection.read_note(pydicom.dcmread(file.path))
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
