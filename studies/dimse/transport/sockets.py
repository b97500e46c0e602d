"""Connections: large reads and writes within a deadline, small messages at once."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import Any

from pynetdicom.transport import AddressInformation, AssociationSocket

PDU_SECONDS = 60.0  # a PDU that has begun must be whole within this time
SOCKET_BUFFER = 1 << 20
LARGEST_PDU = 1 << 20  # what we announce as maximum length received (PS3.8 D.1)
BACKLOG = 128


class TunedSocket(AssociationSocket):
    """A socket that reads and sends in large pieces, within a deadline."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sending = threading.Lock()

    def prepare(self) -> None:
        """Send small messages at once (delayed ACKs otherwise cost 40 ms each), and hold a whole slice in flight."""
        if self.socket is not None:
            prepare(self.socket)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``; fewer when the peer closed. Raises TimeoutError when they don't come in time."""
        data = bytearray(nr_bytes)
        with memoryview(data) as view:
            read = self.recv_into(view)
        return data if read == nr_bytes else data[:read]

    def recv_into(self, view: memoryview) -> int:
        """Fill the view; give how much was read. Raises TimeoutError when the rest doesn't come in time."""
        assert self.socket is not None
        deadline = time.monotonic() + PDU_SECONDS
        read, wanted = 0, len(view)
        while read < wanted:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("the peer sends too slowly")
            self.socket.settimeout(remaining)
            count = self.socket.recv_into(view[read:])
            if not count:
                break
            read += count
            # Linux goes back to delayed ACKs by itself; a sender with Nagle's algorithm then waits 40 ms for ours.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return read

    def send(self, bytestream: bytes) -> None:
        """Send all; a broken connection becomes event Evt17."""
        try:
            assert self.socket is not None
            with self.sending:
                self.socket.settimeout(PDU_SECONDS)
                self.socket.sendall(bytestream)
        except (OSError, AssertionError):
            self.event_queue.put("Evt17")

    @property
    def is_encrypted(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket)

    @property
    def has_decrypted(self) -> bool:
        """Say whether TLS holds bytes that poll doesn't know of."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0


def prepare(connected: socket.socket) -> None:
    """Set what every connection of ours needs."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connected.setsockopt(socket.SOL_SOCKET, buffer, SOCKET_BUFFER)


def listening_socket(host: str, port: int) -> socket.socket:
    """Give a socket that listens; processes forked from here on share it. Raises OSError when the port is taken."""
    information = AddressInformation.from_addr_port(host, port)
    listening = socket.socket(information.address_family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(information.as_tuple)
    listening.listen(BACKLOG)
    # Of several processes that see a connection, one gets it; the others mustn't wait for the next.
    listening.setblocking(False)
    return listening
