"""The demo's studies are readable, believable, and the same on every import of a day."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path

import data_store
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from portal.demo.studies import REFERRING_PHYSICIAN, DemoStudy, demo_studies, total_instances

TODAY = date(2026, 11, 24)


def small_demo(today: date = TODAY) -> list[DemoStudy]:
    return list(demo_studies(today=today, ct_slices=3, ct_size=64))


@cache
def files() -> list[tuple[DemoStudy, bytes]]:
    return [(study, content) for study in small_demo() for content in study.instances()]


@cache
def datasets() -> list[tuple[DemoStudy, FileDataset]]:
    return [(study, dcmread(BytesIO(content))) for study, content in files()]


def test_every_study_gives_as_many_files_as_it_promises() -> None:
    for study in small_demo():
        assert sum(1 for _ in study.instances()) == study.instance_count
    assert total_instances(ct_slices=3) == len(files())
    assert 370 < total_instances() < 400


def test_every_image_decodes() -> None:
    for study, dataset in datasets():
        if "PixelData" in dataset:
            assert dataset.pixel_array.any(), study.description


def test_uids_are_unique_and_hang_together() -> None:
    uids = [dataset.SOPInstanceUID for _, dataset in datasets()]
    assert len(set(uids)) == len(uids)
    by_study = defaultdict(set)
    for study, dataset in datasets():
        by_study[dataset.AccessionNumber].add((dataset.StudyInstanceUID, dataset.PatientID, study.site))
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert all(len(identities) == 1 for identities in by_study.values())
    assert len(by_study) == len(small_demo())


def test_a_second_import_on_the_same_day_has_the_same_bytes() -> None:
    assert [content for study in small_demo() for content in study.instances()] == [content for _, content in files()]


def test_the_studies_of_another_day_keep_their_uids() -> None:
    tomorrow = [dcmread(BytesIO(c)) for s in small_demo(TODAY + timedelta(days=1)) for c in s.instances()]
    assert [d.SOPInstanceUID for d in tomorrow] == [d.SOPInstanceUID for _, d in datasets()]


def test_pixels_and_their_transfer_syntax_are_those_of_the_source() -> None:
    source = dcmread(Path(data_store.__file__).parent / "data" / "MR2_J2KR.dcm")
    shoulder = next(dataset for _, dataset in datasets() if dataset.StudyDescription == "MR right shoulder")
    assert shoulder.PixelData == source.PixelData
    assert shoulder.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID


def test_nothing_of_the_source_names_remains() -> None:
    for _, content in files():
        for name in (b"CompressedSamples", b"CQ500", b"Citizen", b"Sssssss", b"PANCREAS_0001", b"NAME^PATIENT"):
            assert name not in content


def test_dates_lie_in_the_last_thirty_days_but_for_the_prior() -> None:
    dates = sorted(
        {(dataset.AccessionNumber, dataset.StudyDate) for _, dataset in datasets()}, key=lambda pair: pair[1]
    )
    days = [(TODAY - date.fromisoformat(day)).days for _, day in dates]
    assert days[0] == 364
    assert all(0 <= age <= 30 for age in days[1:])
    assert days.count(0) >= 5


def test_sites_referrers_and_shared_patients_are_mixed_as_in_life() -> None:
    studies = {dataset.AccessionNumber: (study.site, dataset) for study, dataset in datasets()}
    north = [dataset for site, dataset in studies.values() if site == "north"]
    south = [dataset for site, dataset in studies.values() if site == "south"]
    assert 0.5 < len(north) / len(studies) < 0.7
    assert 0.25 < sum(d.ReferringPhysicianName == REFERRING_PHYSICIAN for d in north) / len(north) < 0.45
    assert not any(d.ReferringPhysicianName == REFERRING_PHYSICIAN for d in south)
    assert len({str(d.PatientName) for d in north} & {str(d.PatientName) for d in south}) >= 2
    assert {d.Modality for d in north + south} >= {"CT", "MR", "CR", "US", "NM", "ECG"}


def test_names_are_hard_ones() -> None:
    names = {dataset.PatientName for _, dataset in datasets()}
    assert any(name.ideographic and name.phonetic for name in names)
    assert any(name.name_prefix and name.name_suffix for name in names)
    assert any(50 < len(str(name)) <= 64 for name in names)


def test_viewers_find_geometry_in_every_ct_and_mr_image() -> None:
    for study, dataset in datasets():
        if dataset.Modality in ("CT", "MR"):
            assert dataset.FrameOfReferenceUID, study.description
            if "NumberOfFrames" in dataset:
                assert len(dataset.PerFrameFunctionalGroupsSequence) == dataset.NumberOfFrames
            else:
                assert "ImagePositionPatient" in dataset, study.description


@pytest.mark.parametrize("limit", [350 * 1024 * 1024])
def test_the_whole_demo_stays_below_its_size(limit: int) -> None:
    per_slice = 512 * 512 * 2 + 4096
    ct = sum(study.instance_count for study in list(demo_studies())[:2]) * per_slice
    real = sum(len(content) for study, content in files() if study.instance_count < 3)
    assert ct + real < limit
