"""De-identification of what leaves: the Basic Application Level Confidentiality Profile and options (PS3.15 Annex E).

The attributes and their actions (Table E.1-1) are dicom-anonymizer's; its own walk leaves nested data sets as they
are and makes UIDs at random, so that the walk and the replacements are ours. UIDs, patient IDs and shifts of dates come
from a keyed hash over the destination: the same study sent twice to one destination fits together there, and what two
destinations hold can't be put together without our key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from django.conf import settings
from pydicom import DataElement, Dataset, Sequence, uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import STR_VR

TABLE_EDITION = "dicomfields_2026c"
METHOD = "Atrium: PS3.15 Table E.1-1 (2026c)"
LONGEST_SHIFT_DAYS = 3650

# Images of these modalities may show names; so may whatever a screen or a scanner made.
BURNING_MODALITIES = {"US", "IVUS", "ES", "GM", "XC", "OT", "SC", "OP", "DMS", "SM", "ECG", "HD", "RF", "DOC", "VL"}
SECONDARY_CAPTURE = {
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
}
# Free text, pages and drawings; to clean them a person must read them.
READ_BY_PEOPLE = {"SR", "DOC", "PR", "KO", "PLAN"}


class NotDeidentifiable(ValueError):
    """The instance may show or tell who the patient is; the message says why, without telling who."""


@dataclass(frozen=True)
class Profile:
    """The options (PS3.15 §E.3) beyond the basic profile; every one is off unless chosen."""

    retain_modified_dates: bool = False
    retain_device: bool = False
    retain_institution: bool = False
    retain_patient_characteristics: bool = False
    retain_uids: bool = False
    retain_safe_private: bool = False
    clean_descriptors: bool = False
    allow_burned_in: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Profile:
        """Give the profile from kept options; unknown ones are left aside."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: bool(value) for name, value in options.items() if name in known})

    def as_options(self) -> dict[str, bool]:
        """Give the profile as it is kept."""
        return asdict(self)

    def codes(self) -> list[Any]:
        """Give the method's codes (PS3.16 CID 7050)."""
        chosen = [codes.DCM.BasicApplicationConfidentialityProfile]
        for is_on, code in (
            (self.clean_descriptors, codes.DCM.CleanDescriptorsOption),
            (self.retain_modified_dates, codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption),
            (self.retain_patient_characteristics, codes.DCM.RetainPatientCharacteristicsOption),
            (self.retain_device, codes.DCM.RetainDeviceIdentityOption),
            (self.retain_uids, codes.DCM.RetainUidsOption),
            (self.retain_safe_private, codes.DCM.RetainSafePrivateOption),
            (self.retain_institution, codes.DCM.RetainInstitutionIdentityOption),
        ):
            if is_on:
                chosen.append(code)
        return chosen


def _tags(*keywords: str) -> frozenset[int]:
    return frozenset(tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None)


# The columns of Table E.1-1 that the options stand for.
DEVICE = _tags(
    "StationName",
    "DeviceSerialNumber",
    "DeviceUID",
    "DeviceLabel",
    "DeviceDescription",
    "LongDeviceDescription",
    "ManufacturerDeviceIdentifier",
    "UniqueDeviceIdentifier",
    "GantryID",
    "DetectorID",
    "XRayDetectorID",
    "XRaySourceID",
    "GeneratorID",
    "CassetteID",
    "PlateID",
    "LensSerialNumber",
    "SourceSerialNumber",
    "TreatmentMachineName",
    "PerformedStationName",
    "PerformedStationAETitle",
    "PerformedStationNameCodeSequence",
    "ScheduledStationName",
    "ScheduledStationAETitle",
    "StationAETitle",
    "SecondaryCaptureDeviceID",
    "DateOfLastDetectorCalibration",
    "TimeOfLastDetectorCalibration",
    "CalibrationDateTime",
)
INSTITUTION = _tags(
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionCodeSequence",
    "InstitutionalDepartmentName",
    "InstitutionalDepartmentTypeCodeSequence",
)
PATIENT_CHARACTERISTICS = _tags(
    "PatientAge",
    "PatientSex",
    "PatientSize",
    "PatientWeight",
    "EthnicGroup",
    "EthnicGroupCodeSequence",
    "EthnicGroups",
    "SmokingStatus",
    "PregnancyStatus",
    "PatientSexNeutered",
)
DESCRIPTORS = _tags(
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionProtocolDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
    "ScheduledProcedureStepDescription",
    "DerivationDescription",
    "AcquisitionDeviceProcessingDescription",
    "ContrastBolusAgent",
    "DeviceSettingDescription",
    "ROIName",
    "ROIDescription",
    "StructureSetLabel",
    "StructureSetDescription",
)
# Of Table E.3.10-1: group, private creator, element's low byte.
SAFE_PRIVATE = {
    (0x0019, "GEMS_ACQU_01", 0x23),  # table speed
    (0x0019, "GEMS_ACQU_01", 0x24),  # mid scan time
    (0x0019, "GEMS_ACQU_01", 0x27),  # rotation speed
    (0x0019, "GEMS_ACQU_01", 0x9E),  # internal pulse sequence name
    (0x0025, "GEMS_SERS_01", 0x07),  # images in series
    (0x0043, "GEMS_PARM_01", 0x27),  # scan pitch ratio
    (0x0043, "GEMS_PARM_01", 0x39),  # b value
    (0x0019, "SIEMENS MR HEADER", 0x0C),  # b value
    (0x0019, "SIEMENS MR HEADER", 0x0D),  # diffusion directionality
    (0x0019, "SIEMENS MR HEADER", 0x0E),  # diffusion gradient direction
    (0x0019, "SIEMENS MR HEADER", 0x27),  # b matrix
    (0x2001, "Philips Imaging DD 001", 0x03),  # diffusion b factor
    (0x2001, "Philips Imaging DD 001", 0x04),  # diffusion direction
    (0x2005, "Philips MR Imaging DD 001", 0x0D),  # scale intercept
    (0x2005, "Philips MR Imaging DD 001", 0x0E),  # scale slope
    (0x7053, "Philips PET Private Group", 0x00),  # SUV factor
    (0x7053, "Philips PET Private Group", 0x09),  # activity concentration factor
    (0x00E1, "ELSCINT1", 0x21),  # dose length product
    (0x01E1, "ELSCINT1", 0x26),  # phantom type
}

Action = str
DUMMY, EMPTY, REMOVE, UID, KEEP, CLEAN, SHIFT = "D", "Z", "X", "U", "K", "C", "shift"
# Where the table leaves a choice, the one that keeps every IOD valid.
ACTION_OF_COLUMN = {
    "D_TAGS": DUMMY,
    "Z_TAGS": EMPTY,
    "X_TAGS": REMOVE,
    "U_TAGS": UID,
    "Z_D_TAGS": DUMMY,
    "X_Z_TAGS": EMPTY,
    "X_D_TAGS": DUMMY,
    "X_Z_D_TAGS": DUMMY,
    "X_Z_U_STAR_TAGS": "U*",
}


@lru_cache(maxsize=1)
def _table() -> tuple[dict[int, Action], list[tuple[int, int]]]:
    """Give Table E.1-1: action by tag, and the repeating groups to remove as (value, mask)."""
    actions: dict[int, Action] = {}
    repeating: list[tuple[int, int]] = []
    columns = dicom_anonymization_database_selector(TABLE_EDITION)
    for column, action in ACTION_OF_COLUMN.items():
        for tag in columns[column]:
            if len(tag) == 2:
                actions[tag[0] << 16 | tag[1]] = action
            else:
                repeating.append((tag[0] << 16 | tag[1], tag[2] << 16 | tag[3]))
    return actions, repeating


class Deidentifier:
    """De-identifies for one destination by one profile; use one for all instances that go there."""

    def __init__(self, destination: str, profile: Profile) -> None:
        self.profile = profile
        self._key = hmac.new(
            settings.SECRET_KEY.encode(), b"atrium de-identification\0" + destination.encode(), hashlib.sha256
        ).digest()

    def check(self, dataset: Dataset) -> None:
        """Raise NotDeidentifiable for what may show who the patient is in a way that no table removes."""
        modality = str(dataset.get("Modality", ""))
        if modality in READ_BY_PEOPLE or "EncapsulatedDocument" in dataset or "ContentSequence" in dataset:
            raise NotDeidentifiable(
                "Reports, documents and drawings hold free text that can't be cleaned automatically."
            )
        if self.profile.allow_burned_in:
            return
        burned = str(dataset.get("BurnedInAnnotation", "")).upper()
        if burned == "YES":
            raise NotDeidentifiable("The image says that identifying text is burned into it.")
        if burned != "NO" and (modality in BURNING_MODALITIES or dataset.get("SOPClassUID") in SECONDARY_CAPTURE):
            raise NotDeidentifiable(
                f"Images of this kind ({modality or 'secondary capture'}) often have names burned in, "
                "and this one doesn't say that it hasn't."
            )

    def uid(self, original: str) -> str:
        """Give the UID that stands for the original at this destination (PS3.5 §B.2)."""
        if not original or str(original).startswith("1.2.840.10008."):
            return original
        digest = self._hash("uid", str(original))[:16]
        return f"2.25.{int.from_bytes(digest, 'big')}"

    def patient_id(self, patient_id: str, issuer: str = "") -> str:
        """Give the patient's pseudonym at this destination: ten letters and digits."""
        return "P" + base64.b32encode(self._hash("patient", f"{issuer}|{patient_id}")).decode()[:10]

    def shift_of(self, patient: str) -> timedelta:
        """Give by how many days a patient's dates move into the past, the same for all of their studies."""
        days = int.from_bytes(self._hash("shift", patient)[:4], "big") % LONGEST_SHIFT_DAYS
        return timedelta(days=days + 1)

    def _hash(self, what: str, value: str) -> bytes:
        return hmac.new(self._key, f"{what}\0{value}".encode(), hashlib.sha256).digest()

    def apply(self, dataset: FileDataset) -> FileDataset:
        """De-identify a data set in place and give it. Raises NotDeidentifiable, leaving it as it was."""
        self.check(dataset)
        patient_id = str(dataset.get("PatientID", "") or "")
        issuer = str(dataset.get("IssuerOfPatientID", "") or "")
        patient = f"{issuer}|{patient_id}" if patient_id else str(dataset.get("StudyInstanceUID", ""))
        pseudonym = self.patient_id(patient_id or patient, issuer)
        walk = _Walk(self, _actions(self.profile), self.shift_of(patient), _identifying_words(dataset))
        walk.through(dataset)
        dataset.PatientName = pseudonym
        dataset.PatientID = pseudonym
        self._declare(dataset)
        self._renew_file_meta(dataset)
        return dataset

    def _declare(self, dataset: Dataset) -> None:
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = METHOD
        items = []
        for code in self.profile.codes():
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, "DCM", code.meaning[:64]
            items.append(item)
        dataset.DeidentificationMethodCodeSequence = Sequence(items)
        dataset.LongitudinalTemporalInformationModified = (
            "MODIFIED" if self.profile.retain_modified_dates else "REMOVED"
        )

    def _renew_file_meta(self, dataset: FileDataset) -> None:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta = meta
        dataset.preamble = b"\0" * 128


def _actions(profile: Profile) -> dict[int, Action]:
    actions = dict(_table()[0])
    chosen: list[tuple[bool, Iterable[int], Action]] = [
        (profile.retain_device, DEVICE, KEEP),
        (profile.retain_institution, INSTITUTION, KEEP),
        (profile.retain_patient_characteristics, PATIENT_CHARACTERISTICS, KEEP),
        (profile.clean_descriptors, DESCRIPTORS, CLEAN),
    ]
    for is_on, tags, action in chosen:
        if is_on:
            actions.update(dict.fromkeys(tags, action))
    if profile.retain_uids:
        actions = {tag: KEEP if action in {UID, "U*"} else action for tag, action in actions.items()}
    if profile.retain_modified_dates:
        born = _tags("PatientBirthDate", "PatientBirthTime")
        for tag in actions:
            if tag not in born and _vr(tag) in {"DA", "DT", "TM"}:
                actions[tag] = SHIFT
    return actions


@lru_cache(maxsize=2048)
def _vr(tag: int) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def _identifying_words(dataset: Dataset) -> set[str]:
    """Give the words, in capitals, by which the data set names people, numbers and places."""
    words: set[str] = set()
    for element in dataset.iterall():
        keyword = element.keyword
        if element.VR == "PN" or keyword in {
            "PatientID",
            "AccessionNumber",
            "StudyID",
            "InstitutionName",
            "InstitutionalDepartmentName",
            "StationName",
            "OtherPatientIDs",
            "PatientAddress",
        }:
            words |= {w.upper() for w in re.split(r"[\W_]+", str(element.value)) if len(w) > 1}
    return words


class _Walk:
    """Takes every element of a data set, nested ones too, through its action."""

    def __init__(
        self, deidentifier: Deidentifier, actions: Mapping[int, Action], shift: timedelta, words: set[str]
    ) -> None:
        self.deidentifier, self.actions, self.shift, self.words = deidentifier, actions, shift, words
        self.repeating = _table()[1]

    def through(self, dataset: Dataset, fallback: Action | None = None) -> None:
        """Change a data set in place; ``fallback`` is for what has no action of its own in a replaced sequence."""
        for tag in list(dataset.keys()):
            self._one(dataset, tag, fallback)

    def _one(self, dataset: Dataset, tag: BaseTag, fallback: Action | None) -> None:
        if tag.is_private:
            if not (self.deidentifier.profile.retain_safe_private and _is_safe(dataset, tag)):
                del dataset[tag]
            return
        if any(tag & mask == value for value, mask in self.repeating):
            del dataset[tag]
            return
        element = dataset[tag]
        # A person's name that the table doesn't know is a name all the same.
        action = self.actions.get(int(tag), EMPTY if element.VR == "PN" and fallback is None else fallback)
        if action == REMOVE:
            del dataset[tag]
        elif element.VR == "SQ":
            self._sequence(element, action)
        elif action is not None and action != KEEP:
            self._replace(element, action)

    def _sequence(self, element: DataElement, action: Action | None) -> None:
        if action == EMPTY:
            element.value = Sequence([])
            return
        for item in element.value:
            self.through(item, DUMMY if action == DUMMY else None)

    def _replace(self, element: DataElement, action: Action) -> None:
        if action in {UID, "U*"} or (action == DUMMY and element.VR == "UI"):
            element.value = _each(element.value, self.deidentifier.uid)
        elif action == EMPTY:
            element.value = None if element.VR not in STR_VR else ""
        elif action == CLEAN:
            element.value = _each(element.value, self._cleaned)
        elif action == SHIFT:
            element.value = _each(element.value, lambda value: self._shifted(value, element.VR))
        elif action == DUMMY:
            element.value = DUMMIES.get(element.VR, b"" if element.VR[0] == "O" or element.VR == "UN" else 0)

    def _cleaned(self, text: str) -> str:
        """Give the text without the data set's own identifying words, and without long numbers and dates."""
        kept = [
            word
            for word in str(text).split()
            if not ({w.upper() for w in re.split(r"[\W_]+", word)} & self.words)
            and not re.search(r"\d{5,}|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}", word)
        ]
        return " ".join(kept)

    def _shifted(self, value: Any, vr: str) -> str:
        text = str(value).replace(".", "", 2) if vr == "DA" else str(value)
        if vr == "TM" or not text:
            return text
        try:
            moved = datetime.strptime(text[:8], "%Y%m%d").date() - self.shift
        except (ValueError, OverflowError):
            return ""
        return f"{max(moved, date(1, 1, 1)):%Y%m%d}".rjust(8, "0") + text[8:]


DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "ANONYMIZED"),
    "AS": "000Y",
    "UR": "http://anonymized.invalid",
    "DS": "0",
    "IS": "0",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UN": b"",
}


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__") or hasattr(value, "components"):
        return change(value)
    return [change(one) for one in value]


def _is_safe(dataset: Dataset, tag: BaseTag) -> bool:
    if tag.is_private_creator:
        creator = str(dataset[tag].value)
        return any(group == tag.group and name == creator for group, name, _ in SAFE_PRIVATE)
    creator_element = dataset.get(Tag(tag.group, tag.element >> 8))
    if creator_element is None:
        return False
    return (tag.group, str(creator_element.value), tag.element & 0xFF) in SAFE_PRIVATE
