"""The demo's CT: an invented patient's anatomy as DICOM images with right geometry and Hounsfield units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from portal.demo.anatomy import FIELD_OF_VIEW, Z_RANGE, Anatomy

RESCALE_INTERCEPT = -1024
# Centre, width and name of the presets that a viewer offers.
WINDOWS = ((40, 400, "SOFT TISSUE"), (-550, 1500, "LUNG"), (400, 2000, "BONE"))


@dataclass(frozen=True)
class DemoPatient:
    """An invented person, as written into the images."""

    patient_name: str
    patient_id: str
    birth_date: str
    sex: str


@dataclass(frozen=True)
class DemoOrder:
    """What was asked for, when, where and by whom."""

    accession_number: str
    study_description: str
    acquired: datetime
    institution: str
    referring_physician: str


def demo_uid(*parts: object) -> str:
    """Give the UID that always belongs to these parts (PS3.5 B.2)."""
    return str(generate_uid(entropy_srcs=["atrium-demo", *map(str, parts)]))


def put_patient_and_order(dataset: Dataset, patient: DemoPatient, order: DemoOrder) -> None:
    """Write the patient and general study modules (PS3.3 C.7.1.1, C.7.2.1)."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = patient.patient_name
    dataset.PatientID = patient.patient_id
    dataset.PatientBirthDate = patient.birth_date
    dataset.PatientSex = patient.sex
    born = datetime.strptime(patient.birth_date, "%Y%m%d")
    days = (order.acquired - born).days
    dataset.PatientAge = f"{int(days / 365.25):03d}Y" if days >= 730 else f"{int(days / 30.44):03d}M"
    dataset.AccessionNumber = order.accession_number
    dataset.StudyDescription = order.study_description
    dataset.StudyDate = dataset.SeriesDate = order.acquired.strftime("%Y%m%d")
    dataset.StudyTime = dataset.SeriesTime = order.acquired.strftime("%H%M%S")
    dataset.StudyID = order.accession_number[-8:]
    dataset.InstitutionName = order.institution
    dataset.ReferringPhysicianName = order.referring_physician


def ct_phantom(
    *,
    patient: DemoPatient,
    order: DemoOrder,
    slices: int = 300,
    rows: int = 512,
    columns: int = 512,
    coverage: tuple[float, float] = Z_RANGE,
    nodule_diameter: float = 9.0,
    seed: int = 11,
) -> Iterator[FileDataset]:
    """Give the slices of a contrast-enhanced CT, head first, each ready to be written as a DICOM file.

    The seed is the person's anatomy; the accession number makes the UIDs, so that the same call always gives the same
    bytes. ``coverage`` is the scanned length in mm above the hips.
    """
    thickness = (coverage[1] - coverage[0]) / slices
    study_uid = demo_uid(order.accession_number)
    series_uid = demo_uid(order.accession_number, "axial")
    frame_of_reference_uid = demo_uid(order.accession_number, "frame of reference")
    spacing = (FIELD_OF_VIEW / rows, FIELD_OF_VIEW / columns)
    anatomy = Anatomy(seed=seed, rows=rows, columns=columns, nodule_diameter=nodule_diameter)
    for number, (z, hounsfield) in enumerate(anatomy.volume(slices=slices, coverage=coverage), start=1):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = demo_uid(order.accession_number, "axial", number)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        put_patient_and_order(dataset, patient, order)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID = study_uid
        dataset.SeriesInstanceUID = series_uid
        dataset.FrameOfReferenceUID = frame_of_reference_uid
        dataset.PositionReferenceIndicator = ""
        _put_equipment_and_technique(dataset, order, thickness)
        dataset.InstanceNumber = number
        acquired = order.acquired + timedelta(seconds=40 + number * thickness / 60)
        dataset.AcquisitionDate = dataset.ContentDate = acquired.strftime("%Y%m%d")
        dataset.AcquisitionTime = dataset.ContentTime = acquired.strftime("%H%M%S.%f")
        dataset.ImagePositionPatient = [
            round(spacing[1] / 2 - FIELD_OF_VIEW / 2, 6),
            round(spacing[0] / 2 - FIELD_OF_VIEW / 2, 6),
            round(z - Z_RANGE[1], 6),
        ]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.SliceLocation = round(z - Z_RANGE[1], 6)
        dataset.PixelSpacing = list(spacing)
        _put_pixels(dataset, hounsfield)
        yield dataset


def _put_equipment_and_technique(dataset: Dataset, order: DemoOrder, thickness: float) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = "CT"
    dataset.SeriesNumber = 2
    dataset.SeriesDescription = f"Axial {thickness:g} mm, arterial phase"
    dataset.AcquisitionNumber = 1
    dataset.BodyPartExamined = "CHEST"
    dataset.ProtocolName = order.study_description
    dataset.PatientPosition = "HFS"
    dataset.Manufacturer = "Atrium demo"
    dataset.ManufacturerModelName = "Computed phantom"
    dataset.DeviceSerialNumber = "0001"
    dataset.SoftwareVersions = "1"
    dataset.StationName = "CT1"
    dataset.ContrastBolusAgent = "Iodinated contrast, 350 mg/ml"
    dataset.ContrastBolusRoute = "INTRAVENOUS"
    dataset.ContrastBolusVolume = 80
    dataset.SliceThickness = thickness
    dataset.KVP = 120
    dataset.DataCollectionDiameter = 500
    dataset.ReconstructionDiameter = FIELD_OF_VIEW
    dataset.GantryDetectorTilt = 0
    dataset.TableHeight = 150
    dataset.RotationDirection = "CW"
    dataset.ExposureTime = 500
    dataset.XRayTubeCurrent = 240
    dataset.Exposure = 120
    dataset.FilterType = "BODY"
    dataset.ConvolutionKernel = "STANDARD"


def _put_pixels(dataset: Dataset, hounsfield: np.ndarray) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = RESCALE_INTERCEPT
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter = [window[0] for window in WINDOWS]
    dataset.WindowWidth = [window[1] for window in WINDOWS]
    dataset.WindowCenterWidthExplanation = [window[2] for window in WINDOWS]
    dataset.PixelData = np.rint(hounsfield - RESCALE_INTERCEPT).astype("<u2").tobytes()
