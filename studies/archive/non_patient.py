"""Objects of no patient: colour palettes, hanging protocols and the like, kept for a whole site (PS3.4 Annex GG)."""

from __future__ import annotations

from io import BytesIO

import pydicom
from django.db.models import QuerySet
from pydicom.uid import ExplicitVRLittleEndian

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.access import sites_where
from studies.archive.errors import NotTranscodable
from studies.archive.models import NonPatientInstance
from studies.archive.objects import stream_object
from studies.archive.transcoding import rewritten
from studies.archive.writing import file_head


def non_patient_instances_visible_to(principal: Principal, category: str) -> QuerySet[NonPatientInstance]:
    """Give a category's objects of the sites where the principal sees studies, the newest first."""
    sites = sites_where(principal, Capability.STUDY_VIEW)
    return NonPatientInstance.objects.filter(site__in=sites, category=category).order_by("-pk")


def file_in(instance: NonPatientInstance, transfer_syntax_uid: str) -> tuple[str, bytes] | None:
    """Give a Part 10 file and its transfer syntax: as stored for ``*``, by default Explicit VR Little Endian.

    None where it can't be given so (PS3.18 §8.7.3.5.2). Raises ObjectMissing.
    """
    content = b"".join(stream_object(instance.object_key, instance.object_length))
    dataset = pydicom.dcmread(BytesIO(content))
    stored = dataset.file_meta.TransferSyntaxUID
    if transfer_syntax_uid == "*" or (transfer_syntax_uid or ExplicitVRLittleEndian) == stored:
        return stored, content
    if transfer_syntax_uid not in {"", ExplicitVRLittleEndian}:
        return None
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    try:
        chunks = rewritten(dataset, stored, ExplicitVRLittleEndian)
    except NotTranscodable:
        return None
    return ExplicitVRLittleEndian, b"".join((file_head(dataset.file_meta), *chunks))
