"""The generated CT is a patient that can be measured, not a picture."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.pixels import apply_rescale

from portal.demo.anatomy import FIELD_OF_VIEW, NODULE_CENTRE, Anatomy
from portal.demo.phantom import DemoOrder, DemoPatient, ct_phantom

PATIENT = DemoPatient("Lindqvist^Henrik", "NG204518", "19581103", "M")
ORDER = DemoOrder("NG1", "CT chest", datetime(2026, 11, 24, 8, 0), "North General Hospital", "Okafor^Ada^^Dr")


@cache
def small_ct() -> Sequence[FileDataset]:
    return tuple(ct_phantom(patient=PATIENT, order=ORDER, slices=12, rows=128, columns=128))


def mean_around(image: np.ndarray, x: float, y: float, radius: int = 4) -> float:
    scale = image.shape[0] / FIELD_OF_VIEW
    column, row = int((x + FIELD_OF_VIEW / 2) * scale), int((y + FIELD_OF_VIEW / 2) * scale)
    return float(image[row - radius : row + radius + 1, column - radius : column + radius + 1].mean())


def test_slices_lie_at_equal_distances_from_head_to_feet_in_one_frame_of_reference() -> None:
    series = small_ct()
    heights = [float(image.ImagePositionPatient[2]) for image in series]
    assert np.allclose(np.diff(heights), -float(series[0].SliceThickness))
    assert [image.InstanceNumber for image in series] == list(range(1, 13))
    assert {tuple(image.ImageOrientationPatient) for image in series} == {(1, 0, 0, 0, 1, 0)}
    assert len({image.FrameOfReferenceUID for image in series}) == 1
    assert len({(tuple(image.ImagePositionPatient[:2]), tuple(image.PixelSpacing)) for image in series}) == 1
    assert all(float(image.SliceLocation) == height for image, height in zip(series, heights, strict=True))


def test_the_image_is_centred_on_the_scanner_axis() -> None:
    image = small_ct()[0]
    middle = float(image.ImagePositionPatient[0]) + float(image.PixelSpacing[1]) * (image.Columns - 1) / 2
    assert middle == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("organ", "place", "low", "high"),
    [
        ("lung", (-95, 30, 440), -900, -780),
        ("liver", (-90, 0, 340), 45, 75),
        ("aorta", (24, 42, 470), 165, 200),
        ("left ventricle", (41, -25, 426), 155, 195),
        ("spleen", (104, 46, 350), 80, 115),
        ("psoas", (-46, 39, 200), 20, 70),
        ("bladder", (0, -28, 70), -5, 25),
        ("vertebra", (0, 42, 219), 120, 420),
        ("room air", (0, -150, 300), -1024, -970),
        ("stomach gas", (74, -50, 345), -1000, -700),
    ],
)
def test_organs_have_their_hounsfield_units(
    organ: str, place: tuple[float, float, float], low: float, high: float
) -> None:
    x, y, z = place
    image = Anatomy(seed=11, rows=256, columns=256).slice_at(z)
    assert low < mean_around(image, x, y, 2) < high, organ


def test_bone_reaches_cortical_density_in_every_slice_through_the_trunk() -> None:
    for image in small_ct():
        assert apply_rescale(image.pixel_array, image).max() > 450


def test_the_nodule_stands_out_of_the_lung_and_was_smaller_in_the_prior() -> None:
    def solid_pixels(diameter: float) -> int:
        with_nodule = Anatomy(seed=11, nodule_diameter=diameter).slice_at(NODULE_CENTRE[2])
        without = Anatomy(seed=11, nodule_diameter=0).slice_at(NODULE_CENTRE[2])
        return int(((with_nodule - without) > 400).sum())

    now, before = solid_pixels(9.0), solid_pixels(5.0)
    assert before > 10
    assert now > 2 * before


def test_neighbouring_slices_are_alike_and_distant_ones_are_not() -> None:
    anatomy = Anatomy(seed=11, rows=128, columns=128)
    here, near, far = (anatomy.slice_at(z) for z in (440, 442, 300))
    assert np.corrcoef(here.ravel(), near.ravel())[0, 1] > 0.98
    assert np.corrcoef(here.ravel(), far.ravel())[0, 1] < 0.93


def test_the_same_order_gives_the_same_bytes_and_another_order_other_uids() -> None:
    again = tuple(ct_phantom(patient=PATIENT, order=ORDER, slices=12, rows=128, columns=128))
    assert [image.SOPInstanceUID for image in again] == [image.SOPInstanceUID for image in small_ct()]
    assert [image.PixelData for image in again] == [image.PixelData for image in small_ct()]
    other_order = DemoOrder("NG2", "CT chest", ORDER.acquired, ORDER.institution, ORDER.referring_physician)
    other = next(ct_phantom(patient=PATIENT, order=other_order, slices=12, rows=32, columns=32))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert other[keyword].value != small_ct()[0][keyword].value


def test_an_image_written_and_read_back_keeps_pixels_windows_and_names() -> None:
    image = small_ct()[5]
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    back = dcmread(BytesIO(buffer.getvalue()))
    assert np.array_equal(back.pixel_array, image.pixel_array)
    assert back.RescaleIntercept == -1024
    assert list(back.WindowCenterWidthExplanation) == ["SOFT TISSUE", "LUNG", "BONE"]
    assert len(back.WindowCenter) == len(back.WindowWidth) == 3
    assert back.PatientName == PATIENT.patient_name
    assert len({image.SOPInstanceUID for image in small_ct()}) == 12


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian's dicom3tools) is not installed")
def test_an_outside_validator_finds_no_error_in_the_ct(tmp_path: Path) -> None:
    file = tmp_path / "ct.dcm"
    small_ct()[6].save_as(file, enforce_file_format=True)
    said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    assert "CTImage" in said.stdout + said.stderr
    assert "Error" not in said.stdout + said.stderr
