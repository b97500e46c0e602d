"""multipart/related bodies (RFC 2387, RFC 2046 §5.1), read as they come: memory holds one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

CHUNK = 1 << 18
LONGEST_HEADER = 16384


class BrokenBody(ValueError):
    """The body isn't the multipart message that its type announces. Parts that were whole before are not lost."""


class Readable(Protocol):
    """What a request's body is read from."""

    def read(self, size: int = ..., /) -> bytes: ...


@dataclass
class Part:
    """One part: its headers in lower case, and its body, which must be read before the next part is taken."""

    headers: dict[str, str]
    chunks: Iterator[bytes]


class Multipart:
    """Iterates over the parts of a body."""

    def __init__(self, stream: Readable, boundary: bytes) -> None:
        self.stream = stream
        self.delimiter = b"\r\n--" + boundary
        # The first delimiter has no line break before it unless there's a preamble.
        self.buffer = b"\r\n"
        self.is_at_end = False

    def __iter__(self) -> Iterator[Part]:
        for _ in self._until_delimiter():
            pass
        while not self._is_closed():
            part = Part(self._headers(), self._until_delimiter())
            yield part
            for _ in part.chunks:
                pass

    def _fill(self) -> bool:
        data = b"" if self.is_at_end else self.stream.read(CHUNK)
        self.is_at_end = not data
        self.buffer += data
        return bool(data)

    def _until_delimiter(self) -> Iterator[bytes]:
        while True:
            place = self.buffer.find(self.delimiter)
            if place >= 0:
                content, self.buffer = self.buffer[:place], self.buffer[place + len(self.delimiter) :]
                if content:
                    yield content
                return
            safe = len(self.buffer) - len(self.delimiter) + 1
            if safe > 0:
                content, self.buffer = self.buffer[:safe], self.buffer[safe:]
                yield content
            if not self._fill():
                raise BrokenBody("The body ends before its closing boundary.")

    def _is_closed(self) -> bool:
        while len(self.buffer) < 2:
            if not self._fill():
                raise BrokenBody("The body ends inside a boundary.")
        return self.buffer.startswith(b"--")

    def _headers(self) -> dict[str, str]:
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > LONGEST_HEADER:
                raise BrokenBody("A part's headers are too long.")
            if not self._fill():
                raise BrokenBody("The body ends inside a part's headers.")
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        # The delimiter of an empty part begins with the line break that ends its headers.
        self.buffer = self.buffer[end + 2 :]
        if not self.buffer.startswith(self.delimiter):
            self.buffer = self.buffer[2:]
        pairs = (line.partition(":") for line in lines if ":" in line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}
