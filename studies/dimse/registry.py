"""The services that the listener offers. A new service is a module with a ``SERVICE`` and a line here."""

from __future__ import annotations

from studies.dimse import echo, query, storage
from studies.dimse.scp import Service

SERVICES: tuple[Service, ...] = (
    echo.SERVICE,
    storage.SERVICE,
    query.SERVICE,
)
