"""Storage SCP (PS3.4 Annex B): what is received is archived, bit by bit, before success is said."""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import DatabaseError
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AllStoragePresentationContexts, evt, register_uid
from pynetdicom.events import Event
from pynetdicom.service_class import StorageServiceClass

from studies.dimse.messages import IncomingObject, TooLarge
from studies.dimse.scp import NOT_AUTHORISED, SUCCESS, Service, caller_of, session_of, status
from studies.ingest.errors import OUT_OF_RESOURCES, PROCESSING_FAILURE
from studies.ingest.services import Source, StagedFile, WayIn, ingest

logger = logging.getLogger("atrium.dimse")

# Kept as sent: every syntax is taken for every class; explicit little endian first where a peer offers a choice.
TRANSFER_SYNTAXES = [
    uid.ExplicitVRLittleEndian,
    *(s for s in uid.AllTransferSyntaxes if s not in {uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian}),
    uid.ImplicitVRLittleEndian,
]
FULL_LEVEL = 2
# Retired classes that old devices and archives still send (PS3.6 Annex A).
RETIRED = {
    "1.2.840.10008.5.1.4.1.1.3": "RetiredUltrasoundMultiFrameImageStorage",
    "1.2.840.10008.5.1.4.1.1.5": "RetiredNuclearMedicineImageStorage",
    "1.2.840.10008.5.1.4.1.1.6": "RetiredUltrasoundImageStorage",
    "1.2.840.10008.5.1.4.1.1.8": "RetiredStandaloneOverlayStorage",
    "1.2.840.10008.5.1.4.1.1.9": "RetiredStandaloneCurveStorage",
    "1.2.840.10008.5.1.4.1.1.10": "RetiredStandaloneModalityLUTStorage",
    "1.2.840.10008.5.1.4.1.1.11": "RetiredStandaloneVOILUTStorage",
    "1.2.840.10008.5.1.4.1.1.12.3": "RetiredXRayAngiographicBiPlaneImageStorage",
    "1.2.840.10008.5.1.4.1.1.77.1": "RetiredVLImageStorage",
    "1.2.840.10008.5.1.4.1.1.77.2": "RetiredVLMultiFrameImageStorage",
    "1.2.840.10008.5.1.4.1.1.129": "RetiredStandalonePETCurveStorage",
    "1.2.840.10008.5.1.1.27": "RetiredStoredPrintStorage",
    "1.2.840.10008.5.1.1.29": "RetiredHardcopyGrayscaleImageStorage",
    "1.2.840.10008.5.1.1.30": "RetiredHardcopyColorImageStorage",
}
# Private ones are configured: ATRIUM_DICOM_STORAGE_CLASSES.
_MORE = {**RETIRED, **{u: f"PrivateStorage{n}" for n, u in enumerate(settings.ATRIUM.dicom_storage_classes)}}
SOP_CLASSES = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
for _uid, _keyword in _MORE.items():
    if _uid not in SOP_CLASSES:
        register_uid(_uid, _keyword, StorageServiceClass)
        SOP_CLASSES.append(_uid)


def on_store(event: Event) -> int | Dataset:
    """Archive what was received and give the status (PS3.4 Table B.2-1)."""
    incoming: IncomingObject = event.request.atrium_incoming
    try:
        answer = _store(event, incoming)
    finally:
        incoming.path.unlink(missing_ok=True)
    traffic = event.assoc.traffic
    if answer == SUCCESS:
        traffic.stored += 1
    else:
        traffic.failed += 1
        session_of(event).last_error = answer.ErrorComment if isinstance(answer, Dataset) else ""
    return answer


def _store(event: Event, incoming: IncomingObject) -> int | Dataset:
    caller = caller_of(event)
    if not caller.may_store:
        return status(NOT_AUTHORISED, "This AE title may not store.")
    try:
        if incoming.failure is not None:
            raise incoming.failure
        staged = StagedFile(incoming.path, incoming.size, sha256=incoming.sha256.digest())
        (outcome,) = ingest([staged], Source(WayIn.DIMSE, caller.site, caller.principal))
    except TooLarge:
        logger.warning(
            "an object is larger than ATRIUM_LARGEST_INSTANCE", extra={"ae_title": caller.principal.ae_title}
        )
        return status(OUT_OF_RESOURCES, f"Larger than {settings.ATRIUM.largest_instance} bytes.")
    except OSError:
        logger.exception("no room to store")
        return status(OUT_OF_RESOURCES, "The archive has no room.")
    except DatabaseError:
        logger.exception("the database failed")
        return status(PROCESSING_FAILURE, "The database isn't available.")
    return SUCCESS if outcome.is_in else status(outcome.dicom_status, outcome.reason)


def negotiate(sop_class: str, asked: bytes) -> bytes:
    """Say that all attributes are kept (level 2) and none is coerced (PS3.4 Table B.3-2)."""
    return bytes((FULL_LEVEL, 0, 0, 0, 0, 0))[: len(asked)]


SERVICE = Service(
    "Storage",
    SOP_CLASSES,
    {evt.EVT_C_STORE: on_store},
    TRANSFER_SYNTAXES,
    roles_reversible=True,
    negotiate=negotiate,
)
