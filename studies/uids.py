"""UIDs (PS3.5 §9), in addresses and in what was sent."""

from __future__ import annotations

import re

from django.urls import register_converter

LONGEST_UID = 64
UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Say whether the text can be a UID; leading zeros, which some devices write, are let pass."""
    return len(text) <= LONGEST_UID and UID_FORM.fullmatch(text) is not None


class UidConverter:
    """``<uid:name>`` takes only what can be a UID, so that nothing else reaches a view."""

    regex = UID_FORM.pattern.replace("(", "(?:")

    def to_python(self, value: str) -> str:
        if not is_uid(value):
            raise ValueError("no UID")
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(UidConverter, "uid")
