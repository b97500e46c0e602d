"""multipart/related bodies (RFC 2387, RFC 2046 §5.1), read as they come: memory holds one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

CHUNK = 1 << 20
LONGEST_HEADER = 16384


class BrokenBody(ValueError):
    """The body isn't the multipart message that its type announces. Parts that were whole before are not lost."""


class SilentSender(BrokenBody):
    """Nothing more of the body comes, though the sender is there."""


class Readable(Protocol):
    """What a request's body is read from."""

    def read(self, size: int = ..., /) -> bytes: ...


@dataclass
class Part:
    """One part: its headers in lower case, and its body, which must be read before the next part is taken."""

    headers: dict[str, str]
    chunks: Iterator[memoryview]


class Multipart:
    """Iterates over the parts of a body."""

    def __init__(self, stream: Readable, boundary: bytes) -> None:
        self.stream = stream
        self.delimiter = b"\r\n--" + boundary
        # The first delimiter has no line break before it unless there's a preamble.
        self.buffer = b"\r\n"
        # What lies before it in the buffer was given already.
        self.place = 0
        # Where delimiters begin in the buffer, the last first.
        self.delimiters: list[int] = []
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
        self.buffer = self.buffer[self.place :] + data
        self.place = 0
        self._find_delimiters()
        return bool(data)

    def _find_delimiters(self) -> None:
        # From the end, since most pieces have none, which is found out so in half the time.
        self.delimiters, end = [], len(self.buffer)
        while (place := self.buffer.rfind(self.delimiter, 0, end)) >= 0:
            self.delimiters.append(place)
            end = place

    def _until_delimiter(self) -> Iterator[memoryview]:
        while True:
            place = self._next_delimiter()
            end = place if place >= 0 else self._end_of_content()
            if end > self.place:
                content, self.place = memoryview(self.buffer)[self.place : end], end
                yield content
            if place >= 0:
                self.place = place + len(self.delimiter)
                return
            if not self._fill():
                raise BrokenBody("The body ends before its closing boundary.")

    def _next_delimiter(self) -> int:
        while self.delimiters and self.delimiters[-1] < self.place:
            self.delimiters.pop()
        return self.delimiters[-1] if self.delimiters else -1

    def _end_of_content(self) -> int:
        """Give the place in the buffer, which has no delimiter, where one that's cut off may begin."""
        begin = self.buffer.rfind(b"\r", max(self.place, len(self.buffer) - len(self.delimiter) + 1))
        return begin if begin >= 0 and self.delimiter.startswith(self.buffer[begin:]) else len(self.buffer)

    def _is_closed(self) -> bool:
        while len(self.buffer) - self.place < 2:
            if not self._fill():
                raise BrokenBody("The body ends inside a boundary.")
        return self.buffer.startswith(b"--", self.place)

    def _headers(self) -> dict[str, str]:
        while (end := self.buffer.find(b"\r\n\r\n", self.place, self.place + LONGEST_HEADER)) < 0:
            if len(self.buffer) - self.place >= LONGEST_HEADER:
                raise BrokenBody("A part's headers are too long.")
            if not self._fill():
                raise BrokenBody("The body ends inside a part's headers.")
        lines = self.buffer[self.place : end].decode("latin-1").split("\r\n")
        # The delimiter of an empty part begins with the line break that ends its headers.
        self.place = end + 2
        if not self.buffer.startswith(self.delimiter, self.place):
            self.place += 2
        pairs = (line.partition(":") for line in lines if ":" in line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}
