"""Verification SCU: calls a node and says in plain words where it fails (PS3.4 Annex A)."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from django.conf import settings
from django.utils.translation import gettext as _
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from studies.dimse.models import Node

SECONDS = 5
CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED = 7, 3


@dataclass(frozen=True)
class Step:
    """One step of a diagnosis: what was tried, whether it went well, and what to do if not."""

    name: str
    is_ok: bool
    text: str


def verify_node(node: Node) -> list[Step]:
    """Resolve, connect, associate, echo; the last step is the one that failed, or the echo."""
    steps: list[Step] = []
    for attempt in (_resolve, _connect, _associate_and_echo):
        steps += attempt(node)
        if not steps[-1].is_ok:
            break
    return steps


def _resolve(node: Node) -> list[Step]:
    name = _("Find the host")
    try:
        address = socket.getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM)[0][4][0]
    except (OSError, UnicodeError):
        text = _("No machine has the name “%(host)s”. Check its spelling and the name server.") % {"host": node.host}
        return [Step(name, False, text)]
    return [Step(name, True, str(address))]


def _connect(node: Node) -> list[Step]:
    name = _("Connect")
    try:
        socket.create_connection((node.host, node.port or 0), SECONDS).close()
    except TimeoutError:
        text = _("No answer within %(seconds)s seconds. The machine is off, or a firewall drops the connection.")
        return [Step(name, False, text % {"seconds": SECONDS})]
    except ConnectionRefusedError:
        text = _("The machine is there, but nothing listens at port %(port)s. Is the DICOM service started?")
        return [Step(name, False, text % {"port": node.port})]
    except OSError:
        return [Step(name, False, _("The network has no way to this machine."))]
    return [Step(name, True, _("Port %(port)s is open.") % {"port": node.port})]


def _associate_and_echo(node: Node) -> list[Step]:
    name = _("Open an association")
    ae = AE(settings.ATRIUM.ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = SECONDS
    ae.add_requested_context(Verification)
    association = ae.associate(node.host, node.port, ae_title=node.ae_title)
    if not association.is_established:
        return [Step(name, False, _why_not_associated(node, association.is_rejected, association.acceptor.primitive))]
    steps = [Step(name, True, _("“%(title)s” accepts us.") % {"title": node.ae_title})]
    try:
        status = association.send_c_echo()
    except (RuntimeError, ValueError):
        status = None
    finally:
        association.release()
    if status and status.Status == 0x0000:
        return [*steps, Step(_("Echo"), True, _("The node answers."))]
    return [*steps, Step(_("Echo"), False, _("The node accepted us but didn't answer the echo."))]


def _why_not_associated(node: Node, is_rejected: bool, primitive: object) -> str:
    ours, theirs = settings.ATRIUM.ae_title, node.ae_title
    if not is_rejected:
        return _("Something answers at this port, but it doesn't speak DICOM, or it needs TLS.")
    diagnostic = getattr(primitive, "diagnostic", None)
    if getattr(primitive, "result_source", None) == 1 and diagnostic == CALLING_NOT_RECOGNISED:
        return _("The node doesn't know us. Enter the AE title “%(ours)s” and our address there.") % {"ours": ours}
    if getattr(primitive, "result_source", None) == 1 and diagnostic == CALLED_NOT_RECOGNISED:
        return _("The node has another AE title than “%(theirs)s”. Capital and small letters differ.") % {
            "theirs": theirs
        }
    return _("The node refuses associations at the moment. Try again later, or ask its administrator.")
