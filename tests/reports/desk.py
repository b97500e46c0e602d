"""What the report room's tests share: a browser at the desk of one study."""

from __future__ import annotations

import re
from typing import Any

from django.test import Client

from tests.factories import PASSWORD

UID = "1.2.3"
DESK = f"/reports/{UID}"


def write(browser: Client, revision: int = 0, **values: Any) -> Any:
    """Save as the desk does."""
    return browser.post(f"{DESK}/save/", {"revision": revision, **values})


def sign(browser: Client, revision: int = 1, step: str = "sign", **more: Any) -> Any:
    """Sign as the desk does: with the warnings that it showed."""
    seen = re.findall(r'name="accepted" value="([^"]+)"', browser.get(f"{DESK}/checks/").content.decode())
    return browser.post(f"{DESK}/{step}/", {"revision": revision, "password": PASSWORD, "accepted": seen, **more})
