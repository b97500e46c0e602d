"""A study or series as a ZIP archive of Part 10 files with a DICOMDIR, written while it's sent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from django.http import StreamingHttpResponse
from zipstream import ZIP_STORED, ZipStream

from portal.bodies import BrokenOff
from studies.archive.dicomdir import Directory
from studies.archive.errors import ObjectMissing
from studies.models import Instance, Study

logger = logging.getLogger("atrium.dicomweb")
ZIP = "application/zip"


class File(NamedTuple):
    """A Part 10 file on its way out, in its transfer syntax."""

    instance: Instance
    syntax: str
    chunks: Iterable[bytes]


def zipped(study: Study, files: Iterable[File]) -> StreamingHttpResponse:
    """Give the archive; files are stored, not deflated, so that it's as fast as the disk.

    Where an object is missing it's broken off, and no reader takes it for an archive.
    """
    response = StreamingHttpResponse(_whole_or_broken_off(_chunks(study, files)), content_type=ZIP)
    response["Content-Disposition"] = f'attachment; filename="{study.study_instance_uid}.zip"'
    return response


def _whole_or_broken_off(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except ObjectMissing as error:
        logger.exception("object missing: %s", error)
        raise BrokenOff from error


def _chunks(study: Study, files: Iterable[File]) -> Iterator[bytes]:
    archive = ZipStream(compress_type=ZIP_STORED)
    directory = Directory(study)
    series_id, series, number = None, 0, 0
    for file in files:
        if file.instance.series_id != series_id:
            series_id, series, number = file.instance.series_id, series + 1, 0
        number += 1
        # Names of at most eight capitals and digits: a file-set may have no others (PS3.10 §8.2).
        file_id = ["DICOM", f"SE{series:06}", f"IM{number:06}"]
        directory.add(file.instance, file.syntax, file_id)
        archive.add(file.chunks, "/".join(file_id))
        yield from archive.all_files()
    archive.add(directory.to_bytes(), "DICOMDIR")
    yield from archive.all_files()
    yield from archive.finalize()
