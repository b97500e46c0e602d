"""Verification SCU: calls a node and says in plain words where it fails (PS3.4 Annex A; DICOMweb by a search)."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.utils.translation import gettext as _
from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from studies.dimse.calling import associated
from studies.dimse.client import Query
from studies.dimse.clients import client_of
from studies.dimse.errors import NodeRefuses, NodeUnavailable
from studies.dimse.models import Node
from studies.dimse.tls import client_context

SECONDS = 5


@dataclass(frozen=True)
class Step:
    """One step of a diagnosis: what was tried, whether it went well, and what to do if not."""

    name: str
    is_ok: bool
    text: str


def verify_node(node: Node) -> list[Step]:
    """Resolve, connect, associate, echo; the last step is the one that failed, or the echo."""
    steps: list[Step] = []
    attempts = (_resolve, _connect, _search) if node.is_dicomweb else (_resolve, _connect, _secure, _associate_and_echo)
    for attempt in attempts:
        steps += attempt(node)
        if steps and not steps[-1].is_ok:
            break
    return steps


def _address(node: Node) -> tuple[str, int]:
    if not node.is_dicomweb:
        return node.host, node.port or 0
    parts = urlsplit(node.base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _resolve(node: Node) -> list[Step]:
    name = _("Find the host")
    host, port = _address(node)
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    except (OSError, UnicodeError):
        text = _("No machine has the name “%(host)s”. Check its spelling and the name server.") % {"host": host}
        return [Step(name, False, text)]
    return [Step(name, True, str(address))]


def _connect(node: Node) -> list[Step]:
    name = _("Connect")
    try:
        socket.create_connection(_address(node), SECONDS).close()
    except TimeoutError:
        text = _("No answer within %(seconds)s seconds. The machine is off, or a firewall drops the connection.")
        return [Step(name, False, text % {"seconds": SECONDS})]
    except ConnectionRefusedError:
        text = _("The machine is there, but nothing listens at port %(port)s. Is the DICOM service started?")
        return [Step(name, False, text % {"port": _address(node)[1]})]
    except OSError:
        return [Step(name, False, _("The network has no way to this machine."))]
    return [Step(name, True, _("Port %(port)s is open.") % {"port": _address(node)[1]})]


def _secure(node: Node) -> list[Step]:
    """Shake hands by TLS, where the node is called by it."""
    name = _("Secure the connection (TLS)")
    try:
        tls = client_context(node)
    except OSError:
        return [Step(name, False, _("The certificate or key can't be read; see ATRIUM_DICOM_TLS_CERTIFICATE."))]
    if tls is None:
        return []
    context, host = tls
    try:
        with (
            socket.create_connection((node.host, node.port or 0), SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host) as secured,
        ):
            version = secured.version() or "TLS"
    except ssl.SSLCertVerificationError as error:
        text = _("Its certificate isn't trusted: %(reason)s. See ATRIUM_DICOM_TLS_CA.") % {
            "reason": error.verify_message
        }
        return [Step(name, False, text)]
    except (ssl.SSLError, OSError):
        return [Step(name, False, _("The node doesn't speak TLS at this port, or doesn't accept our certificate."))]
    return [Step(name, True, version)]


def _associate_and_echo(node: Node) -> list[Step]:
    name = _("Open an association")
    contexts = [build_context(Verification)]
    try:
        with associated(node, contexts, connect_seconds=SECONDS, answer_seconds=SECONDS) as association:
            accepted = Step(name, True, _("“%(title)s” accepts us.") % {"title": node.ae_title})
            try:
                status = association.send_c_echo()
            except (RuntimeError, ValueError):
                status = None
    except NodeUnavailable as error:
        return [Step(name, False, str(error))]
    if status and status.get("Status") == 0x0000:
        return [accepted, Step(_("Echo"), True, _("The node answers."))]
    return [accepted, Step(_("Echo"), False, _("The node accepted us but didn't answer the echo."))]


def _search(node: Node) -> list[Step]:
    """Ask a DICOMweb node for one study: there's no echo in DICOMweb."""
    name = _("Search (QIDO-RS)")
    try:
        client_of(node).find(Query(), at_most=1)
    except (NodeUnavailable, NodeRefuses) as error:
        return [Step(name, False, str(error))]
    return [Step(name, True, _("The node answers."))]
