"""What a store request brings (PS3.18 §10.5.1), staged part by part as it comes: memory holds one chunk at a time."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Generator, Iterable, Iterator
from email.message import Message
from typing import TypeVar

from django.conf import settings
from django.http import HttpRequest
from django.http.request import UnreadablePostError

from studies.dicomweb.announced import announced_length
from studies.dicomweb.errors import DicomWebError, is_silent
from studies.dicomweb.framing import DICOM, DICOM_JSON
from studies.dicomweb.multipart import CHUNK, BrokenBody, Multipart, Part, SilentSender
from studies.dicomweb.store_metadata import DICOM_XML, Assembly, CannotAssemble
from studies.ingest.attributes import sop_uids
from studies.ingest.errors import CANNOT_UNDERSTAND, OUT_OF_RESOURCES
from studies.ingest.part10 import BEGINNING
from studies.ingest.services import Outcome, Pack, StagedFile, Status, stage
from studies.ingest.sources import UnacceptableZip, members_of

logger = logging.getLogger("atrium.dicomweb")
ZIP = "application/zip"
ACCEPTED = [
    f'multipart/related; type="{DICOM}"',
    f'multipart/related; type="{DICOM_JSON}"',
    f'multipart/related; type="{DICOM_XML}"',
    DICOM,
    ZIP,
]
Chunk = TypeVar("Chunk", bound=bytes | memoryview)
# A part that became a file, or why it didn't.
Received = StagedFile | Outcome


class TooLarge(Exception):
    """The body, or one file in it, is larger than may be stored."""


class Room:
    """What may be stored at once, counted while it comes, so that no limit rests on what the client says of it."""

    def __init__(self) -> None:
        self._left: int = settings.ATRIUM.largest_store

    def take(self, size: int) -> None:
        """Count so many bytes. Raises TooLarge."""
        self._left -= size
        if self._left < 0:
            raise TooLarge("The request is larger than may be stored at once.")

    def taken_by(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass chunks on and count them. Raises TooLarge."""
        for chunk in chunks:
            self.take(len(chunk))
            yield chunk


class Body:
    """A request's body."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._room = Room()

    def read(self, size: int = CHUNK, /) -> bytes:
        """Give the next bytes. Raises BrokenBody when the client goes, TooLarge."""
        try:
            data: bytes = self._request.read(size)
        except UnreadablePostError as error:
            raise (SilentSender if is_silent(error) else BrokenBody)(str(error)) from error
        self._room.take(len(data))
        return data


class Packing:
    """Which pack the next file goes to: the first of a request lies alone, those that follow it come into packs."""

    def __init__(self) -> None:
        self._has_first = False
        self._pack: Pack | None = None

    def pack(self) -> Pack | None:
        """Give the pack for the next file, None for the first. Raises OSError."""
        if not self._has_first:
            self._has_first = True
            return None
        self._pack = self._pack or Pack()
        return self._pack

    def close(self) -> None:
        """Close the pack: what follows comes into another."""
        if self._pack is not None:
            self._pack.close()
            self._pack = None


def received(request: HttpRequest, packing: Packing | None = None) -> Generator[Received, None, None]:
    """Give every file of the body, staged, or why one wasn't taken. Without ``packing`` each lies alone.

    Raises DicomWebError for a body of no known kind; BrokenBody and TooLarge after the files that were whole.
    """
    if announced_length(request) > settings.ATRIUM.largest_store:
        raise _too_large()
    content_type = Message()
    content_type["Content-Type"] = request.headers.get("Content-Type", "")
    kind, body = content_type.get_content_type(), Body(request)
    if kind == DICOM:
        yield from _file(iter(lambda: body.read(CHUNK), b""), "")
    elif kind == ZIP:
        yield from _members(body)
    elif kind == "multipart/related":
        boundary = str(content_type.get_param("boundary") or "")
        if not 0 < len(boundary) <= 200:
            raise DicomWebError(400, "The Content-Type has no boundary.")
        parts = Multipart(body, boundary.encode("latin-1", "replace"))
        part_type = str(content_type.get_param("type") or DICOM).lower()
        if part_type == DICOM:
            for part in parts:
                yield from _file(part.chunks, part.headers.get("content-location", ""), packing)
        elif part_type in {DICOM_JSON, DICOM_XML}:
            yield from _assembled(request, parts)
        else:
            raise _unknown()
    else:
        raise _unknown()


def _unknown() -> DicomWebError:
    return DicomWebError(415, "This kind of body can't be stored.", available=ACCEPTED)


def _too_large() -> DicomWebError:
    return DicomWebError(413, "The request is larger than may be stored at once.", most=settings.ATRIUM.largest_store)


def _file(chunks: Iterable[bytes | memoryview], name: str, packing: Packing | None = None) -> Iterator[Received]:
    """Stage one file. One too large, or without room, is told of and its bytes are thrown away."""
    try:
        yield stage(bounded(chunks), file_name=name, pack=packing.pack() if packing else None)
    except FileTooLarge as error:
        sop_class_uid, sop_instance_uid = sop_uids(error.beginning)
        yield Outcome(
            Status.REFUSED,
            name[-300:],
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            reason="The file is larger than may be stored.",
            dicom_status=OUT_OF_RESOURCES,
        )
    except OSError:
        logger.exception("no room to stage")
        yield _failed("The archive has no room.", name)


class FileTooLarge(Exception):
    """One file of the body is larger than may be stored; ``beginning`` is what can name it."""

    def __init__(self, beginning: bytes) -> None:
        super().__init__()
        self.beginning = beginning


def bounded(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Pass chunks on up to the size of the largest file. Raises FileTooLarge."""
    left = settings.ATRIUM.largest_instance
    beginning = b""
    for chunk in chunks:
        left -= len(chunk)
        if len(beginning) < BEGINNING:
            beginning += chunk[: BEGINNING - len(beginning)]
        if left < 0:
            raise FileTooLarge(beginning)
        yield chunk


def _failed(reason: str, name: str, status: int = OUT_OF_RESOURCES) -> Outcome:
    return Outcome(Status.FAILED, name[-300:], reason=reason, dicom_status=status)


def _members(body: Body) -> Iterator[Received]:
    """Stage a ZIP, whose directory lies at its end, then each of its files."""
    try:
        whole = stage(iter(lambda: body.read(CHUNK), b""))
    except OSError:
        logger.exception("no room to stage")
        yield _failed("The archive has no room.", "")
        return
    room = Room()
    try:
        with whole.path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DicomWebError(400, "The body isn't a ZIP file.")
            for member in members_of(file):
                yield from _file(room.taken_by(member.chunks), member.name)
    except UnacceptableZip as error:
        yield _failed(str(error), "", CANNOT_UNDERSTAND)
    finally:
        whole.path.unlink(missing_ok=True)


def _assembled(request: HttpRequest, parts: Iterable[Part]) -> Iterator[Received]:
    """Take metadata first and bulk data after (PS3.18 §8.6.1.2, §10.5.1); give the instances made of them."""
    assembly = Assembly(request.build_absolute_uri())
    broken: BrokenBody | TooLarge | None = None
    try:
        try:
            for part in parts:
                try:
                    assembly.add(Part(part.headers, bounded(part.chunks)))
                except FileTooLarge:
                    assembly.lose(part, CannotAssemble("Bulk data are larger than may be stored.", OUT_OF_RESOURCES))
                except OSError as error:
                    logger.exception("no room to stage")
                    assembly.lose(part, error)
        except (BrokenBody, TooLarge) as error:
            broken = error
        yield from assembly.instances()
    finally:
        assembly.close()
    if broken is not None:
        raise broken
