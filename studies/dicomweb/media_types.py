"""What a client accepts (RFC 9110 §12.5.1, PS3.18 §8.7)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from django.http import HttpRequest

from studies.archive.bulk import VIDEO_MEDIA_TYPES

# Media types of compressed frames by transfer syntax (PS3.18 Table 8.7.3-5).
FRAME_MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    **VIDEO_MEDIA_TYPES,
}
# What an image media type means without a transfer-syntax parameter (PS3.18 Table 8.7.3-5).
DEFAULT_SYNTAXES = {
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/jxl": "1.2.840.10008.1.2.4.110",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
}
# What stands between commas, and between semicolons, outside of quotes. Possessive: read in one go, however long.
_MEMBER = re.compile(r'(?:[^",]|"[^"]*"?)++')
_PIECE = re.compile(r'(?:[^";]|"[^"]*"?)++')
_TYPE = re.compile(r"[^\s/]+/[^\s/]+|\*")
_BLANK_IN_NAME = re.compile(r"(?<=[\w.]) (?=[\w.])")
# Longer headers aren't remembered: they're nobody's habit, and there may be many.
LONGEST_REMEMBERED = 1000


@dataclass(frozen=True)
class MediaRange:
    """One member of an Accept header; ``media_type`` is the part's type for multipart/related, in small letters."""

    media_type: str
    is_multipart: bool = False
    transfer_syntax: str = ""
    quality: float = 1.0
    parameters: dict[str, str] = field(default_factory=dict, compare=False)
    # Media types that the header refuses by name (q=0), whatever a wildcard of it would take.
    refused: frozenset[str] = frozenset()

    @property
    def takes_every_form(self) -> bool:
        """Say whether it's a wildcard of all media types, multipart ones too."""
        return self.media_type in {"*/*", "*"}

    def matches(self, media_type: str) -> bool:
        """Say whether the range takes the media type; what's refused by a more specific range isn't taken.

        Letters' case means nothing (RFC 9110 §8.3.1).
        """
        media_type = media_type.lower()
        every = f"{media_type.split('/')[0]}/*"
        if self.media_type in {media_type, every}:
            return self.media_type == media_type or media_type not in self.refused
        return self.takes_every_form and not self.refused & {media_type, every}


def default_syntax(media_type: str) -> str:
    """Give the transfer syntax that an image media type means by itself; empty where it means none."""
    return DEFAULT_SYNTAXES.get(media_type, "")


def accepted(request: HttpRequest) -> list[MediaRange]:
    """Give what the request accepts, the most wanted first; the query parameter ``accept`` comes before the header."""
    return list(ranges_of(with_plus(request.GET.get("accept", "")) or request.headers.get("Accept") or "*/*"))


def beside(forms: Iterable[str], asked: Iterable[MediaRange]) -> list[str]:
    """Give those of the forms, as in an Accept header, that weren't asked for: what was has been tried."""
    asked = list(asked)
    ranges = ((form, one) for form in forms for one in ranges_of(form))
    return [
        form
        for form, one in ranges
        if not any(wanted.matches(one.media_type) and wanted.transfer_syntax == one.transfer_syntax for wanted in asked)
    ]


def with_plus(text: str) -> str:
    """Give media types of a query with their plus signs: one is itself by RFC 3986, and a blank by forms."""
    return _BLANK_IN_NAME.sub("+", text)


def ranges_of(text: str) -> tuple[MediaRange, ...]:
    """Give the members of an Accept header, the most wanted first."""
    return _remembered(text) if len(text) <= LONGEST_REMEMBERED else _parsed(text)


def _parsed(text: str) -> tuple[MediaRange, ...]:
    ranges = []
    for member in _MEMBER.findall(text):
        kind, *rest = _PIECE.findall(member) or [""]
        if not _TYPE.fullmatch(kind.strip()):
            continue
        pairs = (piece.partition("=") for piece in rest)
        parameters = {name.strip().lower(): value.strip().strip('"').strip() for name, _, value in pairs}
        media_type = kind.strip().lower()
        is_multipart = media_type in {"multipart/related", "multipart/*"}
        if is_multipart:
            media_type = parameters.get("type", "*/*").lower()
        ranges.append(
            MediaRange(
                media_type, is_multipart, parameters.get("transfer-syntax", ""), _quality(parameters), parameters
            )
        )
    wanted = [r for r in ranges if r.quality > 0]
    refused = frozenset(r.media_type for r in ranges if r.quality == 0) - {r.media_type for r in wanted}
    if refused:
        wanted = [replace(r, refused=refused) for r in wanted]
    return tuple(sorted(wanted, key=lambda r: -r.quality))


_remembered = lru_cache(1024)(_parsed)


def _quality(parameters: dict[str, str]) -> float:
    try:
        return min(max(float(parameters.get("q", "1")), 0.0), 1.0)
    except ValueError:
        return 0.0


def takes_gzip(accept_encoding: str) -> bool:
    """Say whether an Accept-Encoding header takes gzip, which ``q=0`` refuses (RFC 9110 §12.5.3)."""
    for coding in accept_encoding.lower().split(","):
        name, *parameters = (piece.strip() for piece in coding.split(";"))
        if name == "gzip":
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False
