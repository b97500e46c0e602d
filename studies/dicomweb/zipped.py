"""A study or series as a ZIP archive of Part 10 files with a DICOMDIR, written while it's sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.http import StreamingHttpResponse
from pydicom.uid import ExplicitVRLittleEndian
from zipstream import ZIP_STORED, ZipStream

from studies.archive.dicomdir import Directory
from studies.archive.errors import NotTranscodable
from studies.archive.transcoding import transcoded_file
from studies.models import Instance, Study

ZIP = "application/zip"


def zipped(study: Study, instances: Iterable[Instance], syntax: str) -> StreamingHttpResponse:
    """Give the archive; files are stored, not deflated, so that it's as fast as the disk. ``syntax`` may be ``*``."""
    response = StreamingHttpResponse(_chunks(study, instances, syntax), content_type=ZIP)
    response["Content-Disposition"] = f'attachment; filename="{study.study_instance_uid}.zip"'
    return response


def _chunks(study: Study, instances: Iterable[Instance], wanted: str) -> Iterator[bytes]:
    archive = ZipStream(compress_type=ZIP_STORED)
    directory = Directory(study)
    series_id, series, number = None, 0, 0
    for instance in instances:
        if instance.series_id != series_id:
            series_id, series, number = instance.series_id, series + 1, 0
        number += 1
        # Names of at most eight capitals and digits: a file-set may have no others (PS3.10 §8.2).
        file_id = ["DICOM", f"SE{series:06}", f"IM{number:06}"]
        syntax = wanted if wanted not in {"", "*"} else instance.transfer_syntax_uid
        try:
            content = transcoded_file(instance, syntax)
        except NotTranscodable:
            syntax = ExplicitVRLittleEndian
            content = transcoded_file(instance, syntax)
        directory.add(instance, syntax, file_id)
        archive.add(content, "/".join(file_id))
        yield from archive.all_files()
    archive.add(directory.to_bytes(), "DICOMDIR")
    yield from archive.all_files()
    yield from archive.finalize()
