"""What the one way in promises."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from django.core.files.storage import storages
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from accounts.principals import Principal
from studies.archive import objects
from studies.archive.metadata import build_due_metadata
from studies.ingest import index, values
from studies.ingest.attributes import INDEXED, Attributes
from studies.ingest.errors import Refusal
from studies.ingest.models import QuarantinedFile
from studies.ingest.part10 import read_structure
from studies.ingest.services import Source, Status, WayIn, begin_writing, ingest, stage
from studies.ingest.values import Values
from studies.models import Instance, Patient, Series, Study
from tests.factories import SHARED, make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def manifest(shared: Path) -> list[dict[str, str]]:
    with (shared / "dicom" / "MANIFEST.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_bytes_are_kept_as_they_came(north: Any, ingest_files: Any) -> None:
    content = make_instance()
    (outcome,) = ingest_files(north, content)
    assert outcome.status is Status.STORED
    assert objects.read_instance(Instance.objects.get()) == content


def test_what_the_index_reads_of_a_file_is_what_pydicom_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    for path in [*SHARED.glob("dicom/**/*.dcm"), *(Path(p) for p in get_testdata_files("*.dcm"))]:
        content = path.read_bytes()
        try:
            structure = read_structure(memoryview(content), INDEXED)
            ours = Attributes(structure)
            whole = Attributes(replace(structure, wanted=dict(pydicom.dcmread(path)._dict)))
        except Refusal:
            continue
        levels = ("patient", "study", "series", "instance", "referring_physician_name", "frame_bits")
        read = [getattr(ours, level) for level in levels]
        with monkeypatch.context() as patch:
            patch.setattr(values, "plain_values", lambda element: None)
            assert read == [getattr(whole, level) for level in levels], path.name
        compared += 1
    assert compared > 50


@given(
    st.sampled_from(["AS", "CS", "DA", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI", "US", "DS", "UN", "SQ"]),
    st.one_of(st.binary(max_size=12), st.text("19.- ^=\\\x00\x1b\nA", max_size=12).map(str.encode)),
    st.sampled_from([b"", b"ISO_IR 100", b"ISO_IR 13", b"ISO 2022 IR 87", b"ISO_IR 192", b"GB18030", b"nonsense"]),
)
def test_a_value_that_is_read_as_it_stands_is_what_pydicom_reads(vr: str, content: bytes, character_set: bytes) -> None:
    keyword = "ContentLabel"
    tags = {0x00080005: ("CS", character_set), 0x00700080: (vr, content)}
    read = Values({t: RawDataElement(BaseTag(t), v, len(c), c, 0, False, True) for t, (v, c) in tags.items()})
    plainly = read.text(keyword, 99), read.integer(keyword), read.json([0x00700080])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "plain_values", lambda element: None)
        assert plainly == (read.text(keyword, 99), read.integer(keyword), read.json([0x00700080]))


def test_bytes_and_names_are_on_disk_before_the_index_knows_of_them(
    north: Any, ingest_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_synced: set[int] = set()
    names_synced: set[str] = set()
    durable: list[tuple[set[int], set[str]]] = []
    fdatasync, fsync, commit = os.fdatasync, os.fsync, index.commit

    def syncing_bytes(descriptor: int) -> None:
        fdatasync(descriptor)
        bytes_synced.add(os.fstat(descriptor).st_ino)

    def syncing_names(descriptor: int) -> None:
        names = os.listdir(descriptor)
        fsync(descriptor)
        names_synced.update(names)

    def committing(*arguments: Any) -> Any:
        durable.append((set(bytes_synced), set(names_synced)))
        return commit(*arguments)

    monkeypatch.setattr(os, "fdatasync", syncing_bytes)
    monkeypatch.setattr(os, "fsync", syncing_names)
    monkeypatch.setattr(index, "commit", committing)
    ingest_files(north, make_instance(), make_instance())
    staged = stage([make_instance()])
    begin_writing([staged])
    ingest([staged], Source(WayIn.STOW, north, Principal(ae_title="SCANNER")))
    paths = [Path(storages["objects"].path(i.object_key)) for i in Instance.objects.order_by("pk")]
    assert len(paths) == 3
    for path, (synced, names) in zip(paths, [durable[0], durable[0], durable[1]], strict=True):
        assert path.stat().st_ino in synced
        while path != Path(storages["objects"].location):
            assert path.name in names
            path = path.parent


def test_sending_again_changes_nothing(north: Any, ingest_files: Any) -> None:
    content = make_instance()
    ingest_files(north, content)
    (again,) = ingest_files(north, content)
    assert again.status is Status.DUPLICATE
    assert (Instance.objects.count(), Series.objects.get().number_of_instances) == (1, 1)


def test_the_same_instance_twice_in_one_batch_is_stored_once(north: Any, ingest_files: Any) -> None:
    content = make_instance()
    outcomes = ingest_files(north, content, content)
    assert [o.status for o in outcomes] == [Status.STORED, Status.DUPLICATE]
    assert Study.objects.get().number_of_instances == 1


def test_other_bytes_under_the_same_uid_are_a_flagged_second_version(north: Any, ingest_files: Any) -> None:
    uids = {"SOPInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    first, second = make_instance(**uids), make_instance(**uids, WindowCenter=40)
    ingest_files(north, first)
    (outcome,) = ingest_files(north, second)
    assert outcome.status is Status.CONFLICT
    versions = Instance.objects.order_by("version")
    assert [(v.version, v.is_current) for v in versions] == [(1, True), (2, False)]
    assert [objects.read_instance(v) for v in versions] == [first, second]
    study = Study.objects.get()
    assert study.has_conflict
    assert study.number_of_instances == 1


def test_one_study_at_two_sites_is_two_partitions(north: Any, south: Any, ingest_files: Any) -> None:
    content = make_instance()
    ingest_files(north, content)
    (outcome,) = ingest_files(south, content)
    assert outcome.status is Status.STORED
    assert Study.objects.count() == Patient.objects.count() == 2


def test_patients_without_an_id_are_not_merged(north: Any, ingest_files: Any) -> None:
    ingest_files(north, make_instance(PatientID=""), make_instance(PatientID=""))
    assert Patient.objects.count() == 2


def test_every_readable_real_file_goes_in(shared: Path, north: Any, ingest_files: Any) -> None:
    files = [shared / "dicom" / row["file"] for row in manifest(shared) if not row["file"].startswith("malformed/")]
    outcomes = ingest_files(north, *files)
    assert {o.file_name: o.reason for o in outcomes if not o.is_in} == {}
    assert Instance.objects.filter(is_current=True).count() > 50


def test_every_frame_that_was_found_is_the_one_that_pydicom_finds(shared: Path, north: Any, ingest_files: Any) -> None:
    files = sorted((shared / "dicom" / "codecs").glob("*.dcm"))
    ingest_files(north, *files)
    by_uid = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): f for f in files}
    for instance in Instance.objects.all():
        dataset = pydicom.dcmread(by_uid[instance.sop_instance_uid])
        frames = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=instance.number_of_frames)
        for number, frame in enumerate(frames, start=1):
            assert objects.read_frame(instance, number) == frame


def test_every_malformed_file_is_refused_with_a_reason_and_kept(shared: Path, north: Any, ingest_files: Any) -> None:
    files = sorted((shared / "dicom" / "malformed").iterdir())
    outcomes = ingest_files(north, *files)
    assert {o.file_name for o in outcomes if o.status is not Status.REFUSED} == set()
    assert all(o.reason for o in outcomes)
    kept = QuarantinedFile.objects.all()
    assert {Path(storages["quarantine"].path(k.object_key)).read_bytes() for k in kept} == {
        f.read_bytes() for f in files
    }
    assert Study.objects.count() == 0


@pytest.mark.parametrize("uid", ["../../etc", "1.2/3", "1..2", "x", "1" * 65])
def test_a_uid_that_could_be_a_path_is_refused(uid: str, north: Any, ingest_files: Any) -> None:
    with pydicom.config.disable_value_validation():
        content = make_instance(SeriesInstanceUID=uid)
    (outcome,) = ingest_files(north, content)
    assert outcome.status is Status.REFUSED


def test_the_same_data_set_under_other_file_meta_information_is_a_duplicate(north: Any, ingest_files: Any) -> None:
    content = make_instance()
    ingest_files(north, content)
    other = pydicom.dcmread(BytesIO(content))
    other.file_meta.ImplementationVersionName = "ANOTHER"
    buffer = BytesIO()
    other.save_as(buffer, enforce_file_format=True)
    (again,) = ingest_files(north, buffer.getvalue())
    assert buffer.getvalue() != content
    assert again.status is Status.DUPLICATE
    assert Instance.objects.count() == 1


def test_metadata_are_built_once_a_series_is_quiet(north: Any, ingest_files: Any) -> None:
    ingest_files(north, make_instance())
    assert build_due_metadata() == 0
    Series.objects.update(metadata_due_at=timezone.now())
    assert build_due_metadata() == 1
    series = Series.objects.get()
    assert series.metadata.revision == series.revision
    assert series.metadata_due_at is None
