"""Packs: instances of one study that came in one request lie in one object, a POSIX tar of their Part 10 files.

An object for each costs a file system more than its bytes do, and a bucket a request. Every instance has its offset in
the pack, ``tar`` takes it apart, and its members are named by their SOP Instance UIDs. A pack is written once: what is
deleted of it has the others moved into objects of their own, and the pack removed.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable

from django.db.models import QuerySet

from studies.models import Instance

SUFFIX = ".tar"


def is_pack(object_key: str) -> bool:
    """Say whether an object is a pack."""
    return object_key.endswith(SUFFIX)


def pack_key(site_slug: str, study_instance_uid: str, digests: Iterable[bytes]) -> str:
    """Give the key of a pack of files with these SHA-256: the same files in the same order, the same key."""
    digest = hashlib.sha256(b"".join(digests)).hexdigest()
    return f"{site_slug}/{study_instance_uid}/{digest[:32]}{SUFFIX}"


def member_offset(end: int) -> int:
    """Give where the next member's bytes begin in a pack whose last one ends there."""
    return _aligned(end) + tarfile.BLOCKSIZE


def member_header(sop_instance_uid: str, size: int) -> bytes:
    """Give the block that lies before a member's bytes."""
    member = tarfile.TarInfo(f"{sop_instance_uid}.dcm")
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)  # ustar with sizes above 8 GB


def pack_length(end: int) -> int:
    """Give the length of a whole pack whose last member ends there: two empty blocks follow."""
    return _aligned(end) + 2 * tarfile.BLOCKSIZE


def _aligned(length: int) -> int:
    return -(-length // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def naming(object_key: str) -> QuerySet[Instance]:
    """Give the instances that lie in a pack; keys aren't indexed, but all of a pack are of the study in its key."""
    study_instance_uid = object_key.split("/")[-2]
    return Instance.objects.filter(series__study__study_instance_uid=study_instance_uid, object_key=object_key)
