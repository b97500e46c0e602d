"""The one way by which we call DIMSE nodes: associations, no more at once than a node bears, seen by the monitor."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _
from pynetdicom import AE
from pynetdicom.presentation import PresentationContext

from studies.dimse import associations
from studies.dimse.errors import NodeBusy, NodeUnavailable
from studies.dimse.models import AssociationLog, Node
from studies.dimse.tls import client_context
from studies.dimse.transport import TunedAssociation, associate

CONNECT_SECONDS, ANSWER_SECONDS = 10, 120
# How long a call waits for its turn where the node has as many of ours as it bears.
TURN_SECONDS, LOOK_SECONDS = 15.0, 0.25
CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED = 7, 3
MOST_CONTEXTS = 128  # PS3.8 Table 9-18: odd context ids of one byte


def our_title(node: Node) -> str:
    """Give the AE title by which we call this node."""
    return node.calling_ae_title or settings.ATRIUM.ae_title


@contextmanager
def associated(
    node: Node,
    contexts: Sequence[PresentationContext],
    *,
    negotiation: Sequence[Any] = (),
    handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
    connect_seconds: float = CONNECT_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> Iterator[TunedAssociation]:
    """Hold an association with the node; it's released at the end, and aborted when the caller fails.

    Raises NodeUnavailable with the reason in plain words; NodeBusy, one of them, where no turn came in time.
    """
    try:
        tls = client_context(node)
    except OSError as error:
        raise NodeUnavailable(
            _("The certificate or key for TLS can't be read; see ATRIUM_DICOM_TLS_CERTIFICATE.")
        ) from error
    row = _turn(node)
    try:
        ae = AE(our_title(node))
        ae.connection_timeout = ae.acse_timeout = connect_seconds
        ae.dimse_timeout = ae.network_timeout = answer_seconds
        association = associate(
            ae,
            node.host,
            node.port or 0,
            node.ae_title,
            list(contexts),
            tls=tls,
            negotiation=tuple(negotiation),
            handlers=list(handlers),
        )
        if not association.is_established:
            raise NodeUnavailable(why_not_associated(node, association))
    except BaseException:
        associations.forget(row)
        raise
    live = associations.Live(row.pk, association)
    association.pulse = live.pulse
    was_aborted = True
    try:
        yield association
        was_aborted = not association.is_established
        if association.is_established:
            association.release()
    finally:
        if was_aborted and association.is_established:
            association.abort()
        association.dimse.discard_unfinished()
        live.close(was_aborted=was_aborted)


def _turn(node: Node) -> AssociationLog:
    deadline = time.monotonic() + TURN_SECONDS
    while (row := associations.reserved(node)) is None:
        if time.monotonic() > deadline:
            raise NodeBusy(
                _("The node bears %(most)s associations at once, and all are in use.")
                % {"most": node.maximum_associations}
            )
        time.sleep(LOOK_SECONDS)
    return row


def why_not_associated(node: Node, association: TunedAssociation) -> str:
    """Give in plain words why there's no association (PS3.8 §9.3.4)."""
    primitive = association.acceptor.primitive
    if association.is_rejected:
        diagnostic = getattr(primitive, "diagnostic", None)
        if getattr(primitive, "result_source", None) == 1 and diagnostic == CALLING_NOT_RECOGNISED:
            return _("The node doesn't know us. Enter the AE title “%(ours)s” and our address there.") % {
                "ours": our_title(node)
            }
        if getattr(primitive, "result_source", None) == 1 and diagnostic == CALLED_NOT_RECOGNISED:
            return _("The node has another AE title than “%(theirs)s”. Capital and small letters differ.") % {
                "theirs": node.ae_title
            }
        return _("The node refuses associations at the moment. Try again later, or ask its administrator.")
    if primitive is not None and not association.accepted_contexts and association.rejected_contexts:
        return _("The node answers, but offers nothing of what we ask of it.")
    try:
        socket.create_connection((node.host, node.port or 0), CONNECT_SECONDS).close()
    except OSError:
        return _("The node can't be reached at %(host)s, port %(port)s.") % {"host": node.host, "port": node.port}
    return _("Something answers at this port, but it doesn't speak DICOM, or TLS is on at one side only.")
