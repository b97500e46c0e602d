"""pynetdicom's hot loops, arranged anew: the one place where the library's inner parts are overridden.

pynetdicom 3.0 polls: each association runs two threads that sleep a millisecond between looks, reads the socket 4 kB at
a time, copies each PDU four times and opens a temporary file through pydicom for each object. What is changed here, and
why (figures in docs/performance.md):

* ``TunedSocket`` reads into one buffer, whole PDUs at a time, and gives a PDU a deadline, so that a peer that trickles
  bytes is dropped (the library's ARTIM timer isn't looked at while it waits for the rest of a PDU).
* ``TunedProvider`` (the DUL service provider, PS3.8 §7) sleeps in ``poll`` until the socket or another thread has work.
  P-DATA in state Sta6 goes straight to the DIMSE provider and straight out to the socket; every other event passes
  through the library's state machine as before. PDUs longer than what was negotiated are refused (PS3.8 §9.3.1).
* ``TunedDimse`` writes a C-STORE's fragments to the staging file as they come, and hashes them on the way.
* ``TunedAssociation`` serves what arrives when it arrives, instead of looking a thousand times a second.

All are subclasses; the library's files are untouched, and an association without TLS or with it behaves the same.
"""

from studies.dimse.transport.association import Request, TunedAssociation, associate
from studies.dimse.transport.server import TunedRequestHandler, TunedServer
from studies.dimse.transport.sockets import LARGEST_PDU, listening_socket

__all__ = [
    "LARGEST_PDU",
    "Request",
    "TunedAssociation",
    "TunedRequestHandler",
    "TunedServer",
    "associate",
    "listening_socket",
]
