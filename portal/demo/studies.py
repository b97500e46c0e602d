"""The demo's studies: the generated CT with its prior, and real images from pydicom's packages under invented names.

Everything follows from ``today``: the same day always gives the same bytes, so that importing twice changes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path

import data_store
import pydicom.data
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, EnhancedSRStorage, ExplicitVRLittleEndian

from portal.demo.phantom import DemoOrder, DemoPatient, ct_phantom, demo_uid, put_patient_and_order

# How the demo user `referrer` is named in the images.
REFERRING_PHYSICIAN = "Okafor^Ada^^Dr"
INSTITUTIONS = {"north": "North General Hospital", "south": "South Coast Clinic"}

PRIOR_SLICES = 60
# The prior shows the chest only, from the adrenals up, and the nodule when it was smaller.
PRIOR_COVERAGE = (300.0, 600.0)
PRIOR_NODULE_DIAMETER = 5.0

# What names or points to the source of a real image; none of it belongs to the invented study.
_FOREIGN_KEYWORDS = (
    "AdmittingDiagnosesDescription",
    "CTDIPhantomTypeCodeSequence",
    "AdditionalPatientHistory",
    "DeviceSerialNumber",
    "EthnicGroup",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "InstanceCreatorUID",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "IssuerOfPatientID",
    "MedicalAlerts",
    "NameOfPhysiciansReadingStudy",
    "Occupation",
    "OperatorsName",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientAddress",
    "PatientBirthTime",
    "PatientComments",
    "PatientTelephoneNumbers",
    "PerformedProcedureStepDescription",
    "PerformedProcedureStepID",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProtocolCodeSequence",
    "PerformingPhysicianName",
    "PhysiciansOfRecord",
    "ProcedureCodeSequence",
    "RequestingPhysician",
    "ReferencedImageSequence",
    "ReferencedPerformedProcedureStepSequence",
    "ReferencedRawDataSequence",
    "ReferencedStudySequence",
    "RequestAttributesSequence",
    "RequestedProcedureDescription",
    "SourceImageSequence",
    "StudyComments",
    "StationName",
    "CurrentPatientLocation",
    "ImageComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "AdmissionID",
    "PatientInstitutionResidence",
    "VisitComments",
    "TimezoneOffsetFromUTC",
    "ScheduledProcedureStepID",
    "ReasonForTheRequestedProcedure",
    "CommentsOnThePerformedProcedureStep",
    "ClinicalTrialSubjectID",
)


@dataclass(frozen=True)
class DemoStudy:
    """One study to import: ``instances()`` gives complete DICOM Part 10 files, one after the other."""

    site: str
    description: str
    instance_count: int
    instances: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class _Person:
    name: str
    birth_date: str
    sex: str
    north_id: str = ""
    south_id: str = ""

    def at(self, site: str) -> DemoPatient:
        return DemoPatient(self.name, self.north_id if site == "north" else self.south_id, self.birth_date, self.sex)


LINDQVIST = _Person("Lindqvist^Henrik^Olof", "19581103", "M", "NG204518", "SC071120")
MUELLER = _Person("Müller-Groß^Jürgen", "19680219", "M", "NG198733", "SC070356")
KOWALCZYK = _Person("Kowalczyk^Zbigniew", "19470630", "M", "NG211904")
OKONKWO = _Person("Okonkwo^Chidi^Emeka^Prof.^III", "19710812", "M", "NG207751")
NUNEZ = _Person("Núñez Álvarez^María José", "19900425", "F", "NG212230")
DANG = _Person("Đặng^Thị Hương", "20131209", "F", "NG212087")
HADDAD = _Person("Haddad^Sami", "19860117", "M", "NG209965")
FUJIMOTO = _Person("Fujimoto^Haruka=藤本^遥=ふじもと^はるか", "19840522", "F", south_id="SC072904")
NKOSI = _Person("Nkosi^Sipho^Bandile", "20040303", "M", south_id="SC073318")
FEATHERSTONE = _Person(
    "Featherstonehaugh-Montgomery^Alexandrina^Wilhelmina Theodora", "19930914", "F", south_id="SC073402"
)
PAPADOPOULOU = _Person("Παπαδοπούλου^Ελένη", "19610708", "F", south_id="SC068841")

BERGSTROEM = "Bergström^Lars^^Dr"
ACHTERBERG = "Achterberg^Saskia^^Dr"
MAHMOUD = "Mahmoud^Karim^^Prof"


@dataclass(frozen=True)
class RealStudy:
    """A study of real images under an invented name."""

    site: str
    person: _Person
    accession_number: str
    description: str
    days_ago: int
    at: time
    referring_physician: str
    # File names inside pydicom's packages, each with the series description it gets: one series of one instance each.
    files: tuple[tuple[str, str], ...]
    measurements: tuple[tuple[str, str, str, float], ...] = ()


REAL_STUDIES = (
    RealStudy(
        "north",
        KOWALCZYK,
        "NG26110902",
        "CT head without contrast",
        0,
        time(6, 25),
        BERGSTROEM,
        (("693_J2KR.dcm", "Axial 5 mm"),),
    ),
    RealStudy(
        "north",
        MUELLER,
        "NG26110903",
        "MR liver with contrast",
        0,
        time(6, 50),
        ACHTERBERG,
        (("MR-SIEMENS-DICOM-WithOverlays.dcm", "T1 fat-saturated, portal venous"),),
    ),
    RealStudy("north", NUNEZ, "NG26110904", "XR chest PA", 0, time(7, 40), MAHMOUD, (("RG1_J2KR.dcm", "PA"),)),
    RealStudy(
        "north",
        OKONKWO,
        "NG26110611",
        "MR right shoulder",
        3,
        time(11, 20),
        REFERRING_PHYSICIAN,
        (("MR2_J2KR.dcm", "T1 coronal oblique"),),
    ),
    RealStudy(
        "north",
        LINDQVIST,
        "NG26110437",
        "Transthoracic echocardiography",
        5,
        time(14, 5),
        REFERRING_PHYSICIAN,
        (("color3d_jpeg_baseline.dcm", "Apical four chamber"),),
        (
            ("59427-5", "Left ventricular internal dimension, diastole", "mm", 48.0),
            ("59428-3", "Left ventricular internal dimension, systole", "mm", 31.0),
            ("10230-1", "Left ventricular ejection fraction", "%", 61.0),
        ),
    ),
    RealStudy(
        "north", DANG, "NG26110315", "XR right lower leg AP", 6, time(16, 45), MAHMOUD, (("RG3_J2KR.dcm", "AP"),)
    ),
    RealStudy(
        "north",
        HADDAD,
        "NG26110108",
        "US lymph node, power Doppler",
        9,
        time(9, 30),
        BERGSTROEM,
        (("US1_J2KR.dcm", "Power Doppler"),),
    ),
    RealStudy(
        "north",
        MUELLER,
        "NG26109820",
        "Whole-body bone scintigraphy",
        12,
        time(13, 10),
        ACHTERBERG,
        (("JPEG-LL.dcm", "Anterior, 3 h"),),
    ),
    RealStudy(
        "south",
        FUJIMOTO,
        "SC2608801",
        "12-lead ECG",
        0,
        time(5, 55),
        "Delacroix^Élodie^^Dr",
        (("waveform_ecg.dcm", "Resting ECG"),),
    ),
    RealStudy(
        "south",
        FEATHERSTONE,
        "SC2608802",
        "US pelvis",
        0,
        time(7, 15),
        BERGSTROEM,
        (("gdcm-US-ALOKA-16.dcm", "Transabdominal"),),
    ),
    RealStudy(
        "south",
        NKOSI,
        "SC2608754",
        "CT spine, thoracolumbar junction",
        2,
        time(18, 35),
        "Delacroix^Élodie^^Dr",
        (("bad_sequence.dcm", "Axial, soft tissue"),),
    ),
    RealStudy(
        "south",
        PAPADOPOULOU,
        "SC2608510",
        "Transoesophageal echocardiography",
        14,
        time(10, 0),
        BERGSTROEM,
        (("color-pl.dcm", "Colour Doppler"),),
    ),
    RealStudy(
        "south",
        FUJIMOTO,
        "SC2608377",
        "MR head",
        20,
        time(8, 50),
        "Delacroix^Élodie^^Dr",
        (("emri_small_RLE.dcm", "T1 volume, reduced matrix"), ("MR_small_jpeg_ls_lossless.dcm", "Scout")),
    ),
    RealStudy(
        "south",
        MUELLER,
        "SC2608204",
        "CT abdomen with contrast",
        25,
        time(15, 25),
        ACHTERBERG,
        (("explicit_VR-UN.dcm", "Axial, portal venous"),),
    ),
    RealStudy(
        "south",
        LINDQVIST,
        "SC2608112",
        "Transthoracic echocardiography",
        28,
        time(12, 40),
        "Delacroix^Élodie^^Dr",
        (("JPGLosslessP14SV1_1s_1f_8b.dcm", "Suprasternal"),),
    ),
)


def demo_studies(*, today: date | None = None, ct_slices: int = 300, ct_size: int = 512) -> Iterator[DemoStudy]:
    """Give the demo's studies, the CT first; nothing is generated before a study's ``instances()`` is read."""
    day = today or date.today()
    ct = DemoOrder(
        "NG26110901",
        "CT chest, abdomen and pelvis with contrast",
        datetime.combine(day, time(5, 10)),
        INSTITUTIONS["north"],
        REFERRING_PHYSICIAN,
    )
    prior = DemoOrder(
        "NG25108244",
        "CT chest with contrast",
        datetime.combine(day - timedelta(days=364), time(9, 35)),
        INSTITUTIONS["north"],
        REFERRING_PHYSICIAN,
    )
    patient = LINDQVIST.at("north")
    prior_slices = min(PRIOR_SLICES, ct_slices)
    newest = partial(ct_phantom, patient=patient, order=ct, slices=ct_slices, rows=ct_size, columns=ct_size)
    older = partial(
        ct_phantom,
        patient=patient,
        order=prior,
        slices=prior_slices,
        rows=ct_size,
        columns=ct_size,
        coverage=PRIOR_COVERAGE,
        nodule_diameter=PRIOR_NODULE_DIAMETER,
    )
    yield DemoStudy("north", ct.study_description, ct_slices, partial(_written, newest))
    yield DemoStudy("north", prior.study_description, prior_slices, partial(_written, older))
    for study in REAL_STUDIES:
        count = len(study.files) + bool(study.measurements)
        yield DemoStudy(study.site, study.description, count, partial(_written, partial(_real_instances, study, day)))


def total_instances(*, ct_slices: int = 300) -> int:
    """Count the instances of all demo studies, without making them."""
    return sum(study.instance_count for study in demo_studies(ct_slices=ct_slices))


def _written(datasets: Callable[[], Iterator[FileDataset]]) -> Iterator[bytes]:
    for dataset in datasets():
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


def _real_instances(study: RealStudy, day: date) -> Iterator[FileDataset]:
    order = DemoOrder(
        study.accession_number,
        study.description,
        datetime.combine(day - timedelta(days=study.days_ago), study.at),
        INSTITUTIONS[study.site],
        study.referring_physician,
    )
    patient = study.person.at(study.site)
    for number, (name, series_description) in enumerate(study.files, start=1):
        with warnings.catch_warnings():
            # The values that pydicom complains of here are the ones that are replaced.
            warnings.simplefilter("ignore")
            dataset = dcmread(_packaged_file(name))
            _relabel(dataset, patient, order, number, series_description)
        yield dataset
    if study.measurements:
        yield _measurements(study, patient, order, len(study.files) + 1)


def _packaged_file(name: str) -> Path:
    for folder in (Path(data_store.__file__).parent / "data", Path(pydicom.data.__file__).parent / "test_files"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(name)


def _relabel(
    dataset: FileDataset, patient: DemoPatient, order: DemoOrder, number: int, series_description: str
) -> None:
    # Texts are decoded by their own character set before UTF-8 is declared.
    dataset.decode()
    dataset.remove_private_tags()
    for keyword in _FOREIGN_KEYWORDS:
        if keyword in dataset:
            delattr(dataset, keyword)
    put_patient_and_order(dataset, patient, order)
    _identify(dataset, order, number, series_description)
    for keyword in ("AcquisitionDate", "ContentDate"):
        setattr(dataset, keyword, dataset.StudyDate)
    for keyword in ("AcquisitionTime", "ContentTime"):
        setattr(dataset, keyword, dataset.StudyTime)
    if "AcquisitionDateTime" in dataset:
        dataset.AcquisitionDateTime = dataset.StudyDate + dataset.StudyTime
    _complete(dataset, order)


def _complete(dataset: FileDataset, order: DemoOrder) -> None:
    """Add what viewers rely on and the packaged files lack."""
    if dataset.Modality in ("CT", "MR"):
        dataset.FrameOfReferenceUID = demo_uid(order.accession_number, "frame of reference")
        dataset.PatientPosition = dataset.get("PatientPosition") or "HFS"
    if dataset.Modality == "CT" and "WindowCenter" not in dataset:
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
    if "PixelSpacing" in dataset and not all(dataset.PixelSpacing):
        del dataset.PixelSpacing
    if dataset.SOPClassUID == EnhancedMRImageStorage and "PerFrameFunctionalGroupsSequence" not in dataset:
        _add_functional_groups(dataset)


def _add_functional_groups(dataset: FileDataset) -> None:
    """Say where each frame lies (PS3.3 C.7.6.16): the packaged file has lost it."""
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [3.6, 3.6]
    measures.SliceThickness = 4
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence()
    for number in range(dataset.NumberOfFrames):
        position, content, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-115.2, -115.2, 4.0 * number]
        content.StackID = "1"
        content.InStackPositionNumber = number + 1
        frame.PlanePositionSequence = Sequence([position])
        frame.FrameContentSequence = Sequence([content])
        dataset.PerFrameFunctionalGroupsSequence.append(frame)


def _identify(dataset: FileDataset, order: DemoOrder, number: int, series_description: str) -> None:
    dataset.StudyInstanceUID = demo_uid(order.accession_number)
    dataset.SeriesInstanceUID = demo_uid(order.accession_number, number)
    dataset.SOPInstanceUID = demo_uid(order.accession_number, number, 1)
    dataset.SeriesNumber = number
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = series_description
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _measurements(study: RealStudy, patient: DemoPatient, order: DemoOrder, number: int) -> FileDataset:
    """Give the study's measurements as an Enhanced SR (PS3.3 A.35.2)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = EnhancedSRStorage
    dataset.Modality = "SR"
    dataset.Manufacturer = "Atrium demo"
    put_patient_and_order(dataset, patient, order)
    _identify(dataset, order, number, "Measurements")
    dataset.ContentDate, dataset.ContentTime = dataset.StudyDate, dataset.StudyTime
    dataset.ReferencedPerformedProcedureStepSequence = Sequence()
    dataset.PerformedProcedureCodeSequence = Sequence()
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.ValueType = "CONTAINER"
    dataset.ContinuityOfContent = "SEPARATE"
    dataset.ConceptNameCodeSequence = Sequence([_code("18745-0", "LN", "Cardiac ultrasound report")])
    dataset.ContentSequence = Sequence()
    for code, meaning, unit, value in study.measurements:
        item = Dataset()
        item.RelationshipType = "CONTAINS"
        item.ValueType = "NUM"
        item.ConceptNameCodeSequence = Sequence([_code(code, "LN", meaning)])
        measured = Dataset()
        measured.NumericValue = f"{value:g}"
        measured.MeasurementUnitsCodeSequence = Sequence([_code(unit, "UCUM", {"%": "percent"}.get(unit, unit))])
        item.MeasuredValueSequence = Sequence([measured])
        dataset.ContentSequence.append(item)
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item
