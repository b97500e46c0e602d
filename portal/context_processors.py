"""What every page needs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


def portal(request: HttpRequest) -> dict[str, Any]:
    """Give the navigation that the person's capabilities allow."""
    return {"navigation": []}
