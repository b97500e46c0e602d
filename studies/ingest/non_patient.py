"""The way in for objects of no patient (PS3.18 §12.4): checked, durable, then indexed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pydicom
from django.db import transaction
from pydicom import Dataset
from pydicom.uid import (
    ColorPaletteStorage,
    CTDefinedProcedureProtocolStorage,
    GenericImplantTemplateStorage,
    HangingProtocolStorage,
    ImplantAssemblyTemplateStorage,
    ImplantTemplateGroupStorage,
    InventoryStorage,
    ProtocolApprovalStorage,
    XADefinedProcedureProtocolStorage,
)

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.archive import objects
from studies.archive.models import NonPatientInstance
from studies.archive.writing import turn_words
from studies.ingest.errors import (
    CANNOT_UNDERSTAND,
    DATASET_DOES_NOT_MATCH,
    DUPLICATE_SOP_INSTANCE,
    NOT_AUTHORISED,
    Refusal,
)
from studies.ingest.part10 import read_structure
from studies.ingest.services import StagedFile
from studies.uids import is_uid

# The resources of PS3.18 Table 12.1.1-1 and the classes that each holds (PS3.4 Table GG.3-1).
CATEGORIES: dict[str, frozenset[str]] = {
    "color-palettes": frozenset({ColorPaletteStorage}),
    "defined-procedure-protocols": frozenset({CTDefinedProcedureProtocolStorage, XADefinedProcedureProtocolStorage}),
    "hanging-protocols": frozenset({HangingProtocolStorage}),
    "implant-templates": frozenset(
        {GenericImplantTemplateStorage, ImplantAssemblyTemplateStorage, ImplantTemplateGroupStorage}
    ),
    "inventories": frozenset({InventoryStorage}),
    "protocol-approvals": frozenset({ProtocolApprovalStorage}),
}
_NULL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
LARGEST = 64 << 20


def store_non_patient_instance(
    *, staged: StagedFile, category: str, site: Site, principal: Principal, only_uid: str = ""
) -> tuple[NonPatientInstance, bool]:
    """Keep a staged object and give its row and whether it's new; the staged file is consumed.

    One that is there already is left as it is, and another of its UID refused. Raises Refusal, OSError when storage
    can't take it.
    """
    try:
        if not principal.may(Capability.STUDY_UPLOAD, site.pk):
            raise Refusal("This account may not store at that site.", NOT_AUTHORISED)
        if staged.size > LARGEST:
            raise Refusal("The object is too large for one of no patient.")
        dataset, uid, sop_class = _read(staged)
        if sop_class not in CATEGORIES[category]:
            raise Refusal("The object is of another kind than this resource.", DATASET_DOES_NOT_MATCH)
        if not is_uid(uid) or (only_uid and uid != only_uid):
            raise Refusal("The SOP Instance UID is missing, invalid or another one.", DATASET_DOES_NOT_MATCH)
        digest = hashlib.sha256(staged.path.read_bytes())
        existing = NonPatientInstance.objects.filter(site=site, sop_instance_uid=uid).first()
        if existing is not None:
            return _same(existing, digest.digest()), False
        key = f"{site.slug}/non-patient/{category}/{uid}-{digest.hexdigest()[:16]}.dcm"
        content = _json(dataset)
        objects.place(key, staged.path)
    finally:
        staged.path.unlink(missing_ok=True)
    with transaction.atomic():
        kept, is_new = NonPatientInstance.objects.get_or_create(
            site=site,
            sop_instance_uid=uid,
            defaults={
                "category": category,
                "sop_class_uid": sop_class,
                "object_key": key,
                "object_length": staged.size,
                "sha256": digest.digest(),
                "attributes": content,
            },
        )
        if is_new:
            record(
                AuditEvent.Action.IMPORT,
                principal=principal,
                site_id=site.pk,
                details={"what": "non-patient instance", "category": category, "uid": uid},
            )
    return _same(kept, digest.digest()), is_new


def _same(kept: NonPatientInstance, sha256: bytes) -> NonPatientInstance:
    if bytes(kept.sha256) != sha256:
        raise Refusal("There is another object of this UID already.", DUPLICATE_SOP_INSTANCE)
    return kept


def _read(staged: StagedFile) -> tuple[Dataset, str, str]:
    """Give the data set, its SOP Instance UID and its SOP class. Raises Refusal, OSError."""
    read_structure(memoryview(staged.path.read_bytes()))
    try:
        dataset = pydicom.dcmread(staged.path)
        turn_words(dataset, dataset.file_meta.TransferSyntaxUID)
        return dataset, str(dataset.get("SOPInstanceUID", "")), str(dataset.get("SOPClassUID", ""))
    except Exception as error:  # pydicom raises what it will on hostile values
        raise Refusal("The data set can't be parsed.", CANNOT_UNDERSTAND) from error


def _json(dataset: Dataset) -> dict[str, Any]:
    try:
        text = json.dumps(dataset.to_json_dict(), allow_nan=False, ensure_ascii=False)
        # What no database keeps as text: halves of surrogate pairs, and the null character.
        content: dict[str, Any] = json.loads(_NULL.sub(r"\1", text.encode("utf-8", "replace").decode()))
    except Exception as error:  # pydicom raises what it will on hostile values
        raise Refusal("The data set has values that can't be read.", CANNOT_UNDERSTAND) from error
    return content
