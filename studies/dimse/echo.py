"""Verification SCP (PS3.4 Annex A)."""

from __future__ import annotations

from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification

from studies.dimse.scp import SUCCESS, Service


def on_echo(event: Event) -> int:
    """Answer C-ECHO (PS3.7 §9.1.5)."""
    return SUCCESS


SERVICE = Service("Verification", [Verification], {evt.EVT_C_ECHO: on_echo})
