"""UIDs in addresses."""

from __future__ import annotations

from django.urls import register_converter


class UidConverter:
    """``<uid:name>`` takes only what can be a UID (PS3.5 §9), so that nothing else reaches a view."""

    regex = r"[0-9.]{1,64}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(UidConverter, "uid")
