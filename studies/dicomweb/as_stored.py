"""Studies and series as they are stored: files read to where the message is sent from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing as closed_after

from portal.bodies import BrokenOff, Page, PagedResponse
from studies.archive.errors import ObjectMissing
from studies.archive.objects import FileReader, StoredFile
from studies.dicomweb.framing import DICOM, closing, message_type, part_head
from studies.dicomweb.retrieval import Counted, readable

logger = logging.getLogger("atrium.dicomweb")


def as_stored(
    listed: Sequence[Counted] | Sequence[StoredFile], files: Iterable[StoredFile], boundary: str
) -> PagedResponse:
    """Give the listed files as the parts of one message, whose length the index knows.

    One whose object is missing is left out, and the message broken off after the rest. Raises BrokenOff where nothing
    is there any more, ObjectMissing where no object is.
    """
    heads = {
        syntax: part_head(boundary, f"{DICOM}; transfer-syntax={syntax}")
        for syntax in {one.transfer_syntax_uid for one in listed}
    }
    response = PagedResponse(
        readable(_pieces(files, heads, closing(boundary))), content_type=message_type(DICOM, boundary)
    )
    parts = (len(heads[one.transfer_syntax_uid]) + one.object_length + 2 for one in listed)
    response["Content-Length"] = str(sum(parts) + len(closing(boundary)))
    return response


def _pieces(files: Iterable[StoredFile], heads: dict[str, bytes], end: bytes) -> Iterator[bytes | bytearray]:
    page, delimiter = Page(), b""
    failure: ObjectMissing | BrokenOff | None = None
    with closed_after(FileReader()) as reader:
        try:
            for file in files:
                head = delimiter + heads[file.transfer_syntax_uid]
                # In one page with the file's beginning, so that it isn't sent where that is missing.
                if len(page.room) <= len(head):
                    yield page.turn()
                before = page.room
                page.write(head)
                try:
                    yield from _file(file, reader, page)
                except ObjectMissing as error:
                    logger.error("object missing: %s", error)
                    page.room, failure = before, error
                else:
                    delimiter = b"\r\n"
        except BrokenOff as error:
            failure = error
    if failure is None:
        end = delimiter + end
        if len(page.room) < len(end):
            yield page.turn()
        page.write(end)
    if page.written:
        yield page.turn()
    if failure is not None:
        raise BrokenOff from failure


def _file(file: StoredFile, reader: FileReader, page: Page) -> Iterator[bytes | bytearray]:
    """Write a file, and give each page that is full. Raises ObjectMissing before any of it is, or BrokenOff."""
    offset = 0
    while offset < file.object_length:
        if not page.room:
            yield page.turn()
        try:
            count = reader.read_into(file, offset, page.room[: file.object_length - offset])
        except ObjectMissing as error:
            if not offset:
                raise
            logger.error("object missing: %s", error)
            raise BrokenOff from error
        page.room = page.room[count:]
        offset += count
        if page.is_due:
            yield page.turn()
