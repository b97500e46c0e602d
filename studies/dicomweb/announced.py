"""What a request's headers say of its body (RFC 9110 §8.4, §8.6)."""

from __future__ import annotations

from django.http import HttpRequest

from studies.dicomweb.errors import DicomWebError


def announced_length(request: HttpRequest) -> int:
    """Give the length of the body, 0 where it isn't known before. Raises DicomWebError 400, 415.

    A compressed body is refused by name, so that its sender doesn't take it for a broken file.
    """
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding not in {"", "identity"}:
        raise DicomWebError(
            415, "Send the body as it is, without a content coding.", headers={"Accept-Encoding": "identity"}
        )
    text = request.headers.get("Content-Length") or "0"
    if not (text.isascii() and text.isdigit()):
        raise DicomWebError(400, "Content-Length is a number.")
    return int(text)
