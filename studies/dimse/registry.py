"""The services that the listener offers. A new service is a module with a ``SERVICE`` and a line here."""

from __future__ import annotations

from studies.dimse import commitment, echo, ian, modality_worklist, mpps, query, retrieve, storage, ups
from studies.dimse.scp import Service

SERVICES: tuple[Service, ...] = (
    echo.SERVICE,
    storage.SERVICE,
    query.SERVICE,
    retrieve.GET_SERVICE,
    retrieve.MOVE_SERVICE,
    modality_worklist.SERVICE,
    mpps.SERVICE,
    commitment.SERVICE,
    mpps.RETRIEVE_SERVICE,
    ups.SERVICE,
    ian.SERVICE,
)
