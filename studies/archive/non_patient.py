"""Objects of no patient: colour palettes, hanging protocols and the like, kept for a whole site (PS3.4 Annex GG)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import chain

import pydicom
from django.db.models import QuerySet
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.access import sites_where
from studies.archive.models import NonPatientInstance
from studies.archive.objects import stream_object
from studies.archive.transcoding import rewritten
from studies.archive.writing import file_head

META_GROUP = 2


def non_patient_instances_visible_to(principal: Principal, category: str) -> QuerySet[NonPatientInstance]:
    """Give a category's objects of the sites where the principal sees studies, the newest first."""
    sites = sites_where(principal, Capability.STUDY_VIEW)
    return NonPatientInstance.objects.filter(site__in=sites, category=category).order_by("-pk")


def transfer_syntax_of(instance: NonPatientInstance) -> str:
    """Give the transfer syntax that the file's meta information names. Raises ObjectMissing."""
    beginning = next(stream_object(instance.object_key, instance.object_length))
    meta = read_dataset(
        BytesIO(beginning[132:]), False, True, stop_when=lambda tag, vr, length: tag >> 16 != META_GROUP
    )
    return str(meta.TransferSyntaxUID)


def target_of(stored: str, asked: str) -> str | None:
    """Give the transfer syntax in which a file stored in one is given; None for one in which it can't be.

    As stored for ``*``, by default Explicit VR Little Endian (PS3.18 §8.7.3.5.2). What's deflated stays so: it may be
    a thousand times as long.
    """
    if asked in {"*", stored} or (not asked and stored == DeflatedExplicitVRLittleEndian):
        return stored
    if asked in {"", ExplicitVRLittleEndian} and stored != DeflatedExplicitVRLittleEndian:
        return str(ExplicitVRLittleEndian)
    return None


def file_in(instance: NonPatientInstance, stored: str, target: str) -> Iterator[bytes]:
    """Give the Part 10 file in chunks, in a transfer syntax that :func:`target_of` names.

    Raises ObjectMissing, NotTranscodable.
    """
    chunks = stream_object(instance.object_key, instance.object_length)
    if target == stored:
        return chunks
    dataset = pydicom.dcmread(BytesIO(b"".join(chunks)))
    dataset.file_meta.TransferSyntaxUID = UID(target)
    return chain([file_head(dataset.file_meta)], rewritten(dataset, stored, UID(target)))
