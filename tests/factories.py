"""Makes what tests need: people, sites, instances."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import time
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from accounts.models import Role, Site, User
from accounts.principals import Principal, principal_of_user
from accounts.services import create_built_in_roles, create_user, grant_role
from studies.ingest.services import Outcome, Source, StagedFile, WayIn, ingest, stage
from studies.models import ReferringPhysician
from studies.person_names import searchable

PASSWORD = "quiet-reading-room-42"
REFERRER = "Okafor^Ada^^Dr"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

PEOPLE = {
    "radiologist": ("radiologist", ("north", "south")),
    "resident": ("resident", ("north",)),
    "technologist": ("technologist", ("north",)),
    "referrer": ("referrer", ("north",)),
    "southradiologist": ("radiologist", ("south",)),
    "compliance": ("compliance", ("north", "south")),
    "admin": ("administrator", (None,)),
}


def make_people(sites: dict[str, Site]) -> dict[str, User]:
    """Make the demo's people, a lead among them; the referrer is linked to the physician REFERRER at north."""
    roles: dict[str, Role] = create_built_in_roles()
    people = {
        name: create_user(
            username=name, password=PASSWORD, role=roles[role], sites=[sites[s] if s else None for s in at]
        )
        for name, (role, at) in PEOPLE.items()
    }
    for at in sites.values():
        grant_role(user=people["radiologist"], role=roles["lead_radiologist"], sites=[at])
    ReferringPhysician.objects.create(
        site=sites["north"], name=REFERRER, name_search=searchable(REFERRER), user=people["referrer"]
    )
    return people


def make_instance(
    *, pixels: np.ndarray | None = None, transfer_syntax_uid: str = ExplicitVRLittleEndian, **keywords: Any
) -> bytes:
    """Give a small CT image as a Part 10 file; keywords override or add attributes, None removes one."""
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) if pixels is None else pixels
    ds = Dataset()
    defaults: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "StudyDate": "20260901",
        "StudyTime": "101500",
        "StudyID": "1",
        "StudyDescription": "CT thorax",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": REFERRER,
        "Modality": "CT",
        "SeriesNumber": 1,
        "SeriesDescription": "axial",
        "InstanceNumber": 1,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    if pixels.ndim == 3:
        defaults["NumberOfFrames"] = pixels.shape[0]
    for keyword, value in {**defaults, **keywords}.items():
        if value is not None:
            setattr(ds, keyword, value)
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    meta.TransferSyntaxUID = transfer_syntax_uid
    file = FileDataset(None, ds, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def ingest_as(principal: Principal, site: Site, files: Iterable[bytes | Path]) -> list[Outcome]:
    """Put files through the one way in."""
    staged: list[StagedFile] = []
    for file in files:
        content = file.read_bytes() if isinstance(file, Path) else file
        staged.append(stage([content], file_name=file.name if isinstance(file, Path) else ""))
    return ingest(staged, Source(WayIn.IMPORT, site, principal))


def principal_of(user: User) -> Principal:
    """Give a user's principal as a request would."""
    return principal_of_user(user)


def one_time_code(secret: str) -> str:
    """Give what an authenticator app shows (RFC 6238), when it will show it for some seconds more."""
    if (left := 30 - time.time() % 30) < 8:
        time.sleep(left)
    digest = hmac.new(base64.b32decode(secret), struct.pack(">Q", int(time.time()) // 30), hashlib.sha1).digest()
    number = struct.unpack(">I", digest[(at := digest[-1] & 15) : at + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**6:06}"
