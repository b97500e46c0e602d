"""Some frames of a multi-frame instance by C-GET and C-MOVE (PS3.4 Annex Y), before pynetdicom."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom.sop_class import (
    CompositeInstanceRootRetrieveGet,
    CompositeInstanceRootRetrieveMove,
    CTImageStorage,
    SegmentationStorage,
    XRayAngiographicImageStorage,
)

from tests.dicomweb.retrieving import make_video
from tests.dimse.test_retrieve import Sink, get, move
from tests.dimse.test_store import store
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

GET, MOVE = CompositeInstanceRootRetrieveGet, CompositeInstanceRootRetrieveMove
ANGIO, TIMED, SINGLE = "1.2.826.0.1.7.1", "1.2.826.0.1.7.2", "1.2.826.0.1.7.3"
PIXELS = np.random.default_rng(7).integers(0, 4000, (12, 32, 48), dtype=np.uint16)
NODES = """
from accounts.models import Site
from studies.dimse.models import Node
Node.objects.create(ae_title="SINK", site=Site.objects.get(slug="north"), host="127.0.0.1", port={port},
    may_receive=True)
"""


def real(name: str) -> pydicom.FileDataset:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom's {name} isn't here")
    return pydicom.dcmread(path)


def small_segmentation() -> pydicom.FileDataset:
    """Give a segmentation whose frames, of 35 bits each, don't begin on a byte."""
    dataset = real("liver.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.9"
    dataset.Rows, dataset.Columns = 5, 7
    bits = np.random.default_rng(5).integers(0, 2, 3 * 35, dtype=np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    return dataset


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    server = sink.start()
    yield sink
    server.shutdown()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Atrium]:
    folder: Path = tmp_path_factory.mktemp("frames")
    angio: dict[str, Any] = {"SOPClassUID": XRayAngiographicImageStorage, "Modality": "XA"}
    files = {
        "angio": make_instance(
            pixels=PIXELS, SOPInstanceUID=ANGIO, FrameTime=100, FrameIncrementPointer=0x00181063, **angio
        ),
        "timed": make_instance(
            pixels=PIXELS,
            SOPInstanceUID=TIMED,
            FrameTimeVector=[0, *range(10, 120, 10)],
            FrameIncrementPointer=0x00181065,
            **angio,
        ),
        "single": make_instance(SOPInstanceUID=SINGLE),
    }
    small = small_segmentation()
    small.save_as(folder / "small", enforce_file_format=True)
    paths = [folder / "small"]
    names = ("emri_small_jpeg_2k_lossless.dcm", "liver.dcm")
    paths += [Path(found) for name in names if (found := get_testdata_file(name, download=False)) is not None]
    with running_atrium(tmp_path_factory.mktemp("retrieve-frames") / "atrium", "dicom") as atrium:
        atrium.manage("shell", "--no-imports", "-c", NODES.format(port=sink.port))
        for name, content in files.items():
            path = folder / name
            path.write_bytes(content)
            paths.append(path)
        for path in paths:
            assert store(atrium, path) == 0x0000
        yield atrium


def wanted(sop_instance_uid: str, **lists: Any) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "FRAME"
    identifier.SOPInstanceUID = sop_instance_uid
    for keyword, value in lists.items():
        setattr(identifier, keyword, value)
    return identifier


def got(atrium: Atrium, identifier: Dataset, sop_class: str = XRayAngiographicImageStorage, **more: Any) -> Dataset:
    received, statuses = get(atrium, identifier, GET, sop_class=sop_class, **more)
    assert statuses[-1].Status == 0x0000
    assert statuses[-1].NumberOfCompletedSuboperations == 1
    ((uid, dataset),) = received.items()
    assert dataset.SOPInstanceUID == uid != identifier.SOPInstanceUID
    return dataset


@pytest.mark.parametrize(
    ("lists", "numbers"),
    [
        ({"SimpleFrameList": [2, 3, 11]}, [2, 3, 11]),
        ({"SimpleFrameList": 12}, [12]),
        ({"SimpleFrameList": [11, 99]}, [11]),
        ({"CalculatedFrameList": [1, 12, 5]}, [1, 6, 11]),
        ({"CalculatedFrameList": [1, 2, 1, 10, 99, 1]}, [1, 2, 10, 11, 12]),
        ({"TimeRange": [0.2, 0.45]}, [3, 4, 5]),
    ],
)
def test_chosen_frames_come_as_an_instance_of_their_own(
    filled: Atrium, lists: dict[str, Any], numbers: list[int]
) -> None:
    new = got(filled, wanted(ANGIO, **lists))
    assert new.NumberOfFrames == len(numbers)
    pixels = np.frombuffer(new.PixelData, "<u2").reshape(-1, 32, 48)
    assert (pixels == PIXELS[[n - 1 for n in numbers]]).all()
    (item,) = new.FrameExtractionSequence
    assert item.MultiFrameSourceSOPInstanceUID == ANGIO
    ((keyword, value),) = lists.items()
    assert item[keyword].value == value
    assert (new.PatientID, new.StudyDescription) == ("P1", "CT thorax")
    assert got(filled, wanted(ANGIO, **lists)).SOPInstanceUID == new.SOPInstanceUID, "asked again, it's the same"


def test_times_are_told_anew(filled: Atrium) -> None:
    even = got(filled, wanted(ANGIO, CalculatedFrameList=[2, 12, 2]))
    assert (even.FrameDelay, even.FrameTime) == (100, 200)
    uneven = got(filled, wanted(ANGIO, SimpleFrameList=[1, 2, 5]))
    assert list(uneven.FrameTimeVector) == [0, 100, 300]
    assert uneven.FrameIncrementPointer == 0x00181065
    assert "FrameTime" not in uneven
    timed = got(filled, wanted(TIMED, TimeRange=[0.05, 0.12]))  # at 0, 10, 30, 60, 100, 150 ms
    assert (timed.NumberOfFrames, list(timed.FrameTimeVector), timed.FrameDelay) == (2, [0, 40], 60)


def test_functional_groups_go_with_their_frames(filled: Atrium) -> None:
    source = real("liver.dcm")
    new = got(filled, wanted(source.SOPInstanceUID, SimpleFrameList=[1, 3]), SegmentationStorage)
    groups = source.PerFrameFunctionalGroupsSequence
    assert [g.to_json() for g in new.PerFrameFunctionalGroupsSequence] == [groups[0].to_json(), groups[2].to_json()]
    assert new.SharedFunctionalGroupsSequence == source.SharedFunctionalGroupsSequence


def test_compressed_frames_stay_as_they_are_or_are_decoded(filled: Atrium) -> None:
    source = real("emri_small_jpeg_2k_lossless.dcm")
    identifier = wanted(source.SOPInstanceUID, SimpleFrameList=[4])
    frames = list(pydicom.encaps.generate_frames(source.PixelData, number_of_frames=10))
    kept = got(filled, identifier, source.SOPClassUID, syntaxes=JPEG2000Lossless)
    (frame,) = pydicom.encaps.generate_frames(kept.PixelData, number_of_frames=1)
    assert frame.rstrip(b"\0") == frames[3].rstrip(b"\0")
    decoded = got(filled, identifier, source.SOPClassUID, syntaxes=ImplicitVRLittleEndian)
    pixels = np.frombuffer(decoded.PixelData, "<u2").reshape(source.Rows, source.Columns)
    assert (pixels == source.pixel_array[3]).all()


def test_frames_of_single_bits_follow_one_another_without_a_gap(filled: Atrium) -> None:
    source = small_segmentation()
    new = got(filled, wanted(source.SOPInstanceUID, SimpleFrameList=[2, 3]), SegmentationStorage)
    new.file_meta = pydicom.dataset.FileMetaDataset()
    new.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assert (new.pixel_array == source.pixel_array[1:]).all()


def test_frames_are_moved(filled: Atrium, sink: Sink) -> None:
    source = real("emri_small_jpeg_2k_lossless.dcm")
    statuses = move(filled, "SINK", wanted(source.SOPInstanceUID, SimpleFrameList=[1, 10]), MOVE)
    assert (statuses[-1].Status, statuses[-1].NumberOfCompletedSuboperations) == (0x0000, 1)
    ((uid, content),) = sink.received.items()
    new = read_dataset(BytesIO(content), False, True)
    assert new.SOPInstanceUID == uid != source.SOPInstanceUID
    assert new.NumberOfFrames == 2


@pytest.mark.parametrize(
    ("identifier", "status"),
    [
        (wanted(ANGIO, SimpleFrameList=[13]), 0xAA00),
        (wanted(ANGIO, TimeRange=[5.0, 6.0]), 0xAA00),
        (wanted(SINGLE, SimpleFrameList=[1]), 0xAA01),
        (wanted(ANGIO), 0xAA04),
        (wanted(ANGIO, SimpleFrameList=[0]), 0xAA04),
        (wanted(ANGIO, SimpleFrameList=[3, 2]), 0xAA04),
        (wanted(ANGIO, SimpleFrameList=[1], TimeRange=[0.0, 1.0]), 0xAA04),
        (wanted(ANGIO, CalculatedFrameList=[1, 2]), 0xAA04),
        (wanted(ANGIO, CalculatedFrameList=[5, 2, 1]), 0xAA04),
        (wanted(ANGIO, TimeRange=[1.0]), 0xAA04),
        (wanted("", SimpleFrameList=[1]), 0xA900),
    ],
)
def test_what_can_not_be_had_is_said(filled: Atrium, identifier: Dataset, status: int) -> None:
    received, statuses = get(filled, identifier, GET, sop_class=XRayAngiographicImageStorage)
    assert (received, statuses[-1].Status) == ({}, status)


def test_frames_of_a_video_can_not_be_told_apart(filled: Atrium, tmp_path: Path) -> None:
    path = tmp_path / "video.dcm"
    path.write_bytes(make_video()[1])
    video = pydicom.dcmread(path, stop_before_pixels=True)
    assert store(filled, path) == 0x0000
    for chosen in ([1], [3, 12]):
        received, statuses = get(filled, wanted(video.SOPInstanceUID, SimpleFrameList=chosen), GET)
        assert ([s.Status for s in statuses], received) == ([0xAA02], {})
        assert "told apart" in statuses[0].ErrorComment


def test_frames_without_times_can_not_be_asked_for_by_time(filled: Atrium) -> None:
    source = real("liver.dcm")
    _, statuses = get(filled, wanted(source.SOPInstanceUID, TimeRange=[0.0, 1.0]), GET, sop_class=CTImageStorage)
    assert statuses[-1].Status == 0xAA03


def test_another_site_gets_no_frames(filled: Atrium) -> None:
    received, statuses = get(filled, wanted(ANGIO, SimpleFrameList=[1]), GET, ae_title="WS_SOUTH")
    assert (received, statuses[-1].Status) == ({}, 0x0000)
