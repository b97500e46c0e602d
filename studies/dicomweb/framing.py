"""The form of what is sent as stored: one definition for the views and for the fast path.

The boundary of a multipart message follows from its ETag, so that the same request gives the same bytes.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from studies.archive.codecs import DECODABLE
from studies.archive.transcoding import can_transcode
from studies.dicomweb.media_types import FRAME_MEDIA_TYPES, LONGEST_REMEMBERED, MediaRange, ranges_of

DICOM, DICOM_JSON, OCTETS = "application/dicom", "application/dicom+json", "application/octet-stream"
AS_STORED = {"", "*"}
NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian}
# "Shall not be used with Web Services" (PS3.18 §8.7.3); what is stored so leaves so for ``transfer-syntax=*`` alone.
NOT_ON_THE_WEB = {ImplicitVRLittleEndian, ExplicitVRBigEndian}
# JPEG XL of a recompressed JPEG and in general are newer than pydicom's dictionary.
_JPEG_XL_THAT_MAY_LOSE = {"1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"}
MAY_HAVE_LOST = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K, *_JPEG_XL_THAT_MAY_LOSE}
# Pixels never change, a whole instance may be corrected; another person at the same screen has another cookie.
IMMUTABLE = {"Cache-Control": "private, max-age=86400, immutable", "Vary": "Accept, Cookie"}
REVALIDATED = {"Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"}
LARGEST_WHOLE = 64 << 20


def etag_of(sha256: bytes, *form: str) -> str:
    """Give the strong validator of an instance's bytes, or of a part of them in a form."""
    if not form:
        return f'"{sha256.hex()}"'
    return f'"{hashlib.sha256(sha256 + "|".join(form).encode()).hexdigest()[:40]}"'


def names(validators: str, etag: str, *, strongly: bool = False) -> bool:
    """Say whether a header names the validator (RFC 9110 §8.8.3.2).

    If-None-Match is compared weakly, If-Match ``strongly``: a weak validator equals none.
    """
    known = [tag.strip() for tag in validators.split(",")]
    if strongly:
        return "*" in known or (etag in known and not etag.startswith("W/"))
    return "*" in known or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in known]


def boundary_of(etag: str) -> str:
    """Give a boundary that can't be in the message, as it's a hash of the content's hash."""
    return hashlib.sha256(etag.encode()).hexdigest()[:32]


def message_type(part_type: str, boundary: str) -> str:
    """Give the Content-Type of a multipart message (RFC 2387)."""
    return f'multipart/related; type="{part_type}"; boundary={boundary}'


def file_syntax(stored: str, asked: str, *, has_frames: bool) -> str | None:
    """Give the transfer syntax in which a file is given; None when it can't be, as far as the transfer syntaxes tell.

    By default Explicit VR Little Endian, but for what may have been compressed with loss or can't be decoded here
    (PS3.18 §8.7.3.5.2); for ``*`` as it's stored. What has no pixels can't be compressed: it's given in the default.
    """
    if asked == "*":
        return stored
    if not asked:
        return ExplicitVRLittleEndian if stored in DECODABLE and stored not in MAY_HAVE_LOST else stored
    if asked in NOT_ON_THE_WEB:
        return None
    is_for_pixels = asked in FRAME_MEDIA_TYPES or not can_transcode(ExplicitVRLittleEndian, asked)
    target = ExplicitVRLittleEndian if is_for_pixels and not has_frames else asked
    return target if can_transcode(stored, target) else None


def file_type(syntax: str, asked: str) -> str:
    """Give the media type of a file; without a transfer syntax it's Explicit VR Little Endian."""
    is_plain = syntax == ExplicitVRLittleEndian and asked in AS_STORED
    return DICOM if is_plain else f"{DICOM}; transfer-syntax={syntax}"


def is_alone(wanted: MediaRange, media_type: str) -> bool:
    """Say whether a single frame goes without a multipart message around it: one that any media type may be, has."""
    return not wanted.is_multipart and wanted.media_type in {media_type.lower(), f"{media_type.split('/')[0]}/*"}


def part_head(boundary: str, content_type: str) -> bytes:
    """Give what stands before a part's content."""
    return f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()


def closing(boundary: str) -> bytes:
    """Give what ends the message."""
    return f"--{boundary}--\r\n".encode()


def frame_form(syntax: str, wanted: MediaRange, *, has_places: bool) -> tuple[str, bool] | None:
    """Give the content type of frames and whether they go as stored; None when the range can't be met.

    ``has_places``: native frames lie on byte borders at known offsets.
    """
    stored_type = FRAME_MEDIA_TYPES.get(syntax, OCTETS)
    if stored_type == OCTETS:
        if wanted.matches(OCTETS) and wanted.transfer_syntax in {*AS_STORED, ExplicitVRLittleEndian}:
            return f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}", syntax in NATIVE and has_places
        return None
    # An octet stream of any transfer syntax is the compressed one; OHIF asks so and reads the part's type.
    if wanted.transfer_syntax in {"*", syntax} and (wanted.matches(stored_type) or wanted.matches(OCTETS)):
        return f"{stored_type}; transfer-syntax={syntax}", True
    if wanted.transfer_syntax == "" and wanted.matches(stored_type):
        return f"{stored_type}; transfer-syntax={syntax}", True
    if wanted.transfer_syntax in {"", ExplicitVRLittleEndian} and wanted.media_type == OCTETS:
        return f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}", False
    return None


def stored_frame_form(syntax: str, accept: str, has_places: bool) -> str | None:
    """Give the content type of frames that an Accept header wants first, in one multipart message and as stored.

    None when what it wants first, of what can be given, is anything else, or can't be told quickly.
    """
    return _stored_frame_form(syntax, accept, has_places) if len(accept) <= LONGEST_REMEMBERED else None


@lru_cache(1024)
def _stored_frame_form(syntax: str, accept: str, has_places: bool) -> str | None:
    wanted = next(iter(ranges_of(accept)), None)
    # What isn't stored as it's wanted may still be made so, by the views.
    form = frame_form(syntax, wanted, has_places=has_places) if wanted is not None else None
    if wanted is None or form is None or not form[1] or is_alone(wanted, form[0].split(";")[0]):
        return None
    return form[0]
