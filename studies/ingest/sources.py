"""Files in folders and ZIPs, one after another."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHUNK = 1 << 18
MOST_MEMBERS = 100_000
LARGEST_MEMBER = 8 << 30
LARGEST_RATIO = 200
# What lies beside images on a CD and is none.
SKIPPED_NAMES = {"DICOMDIR", "AUTORUN.INF", ".DS_STORE", "THUMBS.DB"}


class UnacceptableZip(ValueError):
    """The ZIP is broken, encrypted or a bomb; the message says which."""


@dataclass
class Member:
    """A file that may be an instance; ``chunks`` can be read once."""

    name: str
    chunks: Iterator[bytes]


def files_of(path: Path) -> Iterator[Member]:
    """Give every file at a path: itself, a folder's, a ZIP's. Raises OSError, UnacceptableZip."""
    if path.is_dir():
        for inside in sorted(path.rglob("*")):
            if inside.is_file() and not is_skipped(inside.name):
                yield from files_of(inside)
    elif zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield from members_of(file)
    else:
        with path.open("rb") as file:
            yield Member(str(path), _chunks(file))


def members_of(file: IO[bytes]) -> Iterator[Member]:
    """Give every file in a ZIP. Its names are never used as paths. Raises UnacceptableZip."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and not is_skipped(m.filename)]
            if len(members) > MOST_MEMBERS:
                raise UnacceptableZip("The ZIP holds too many files.")
            for member in members:
                if member.flag_bits & 1:
                    raise UnacceptableZip("The ZIP is encrypted.")
                if member.file_size > max(member.compress_size, 4096) * LARGEST_RATIO:
                    raise UnacceptableZip("The ZIP would grow beyond all bounds.")
                with archive.open(member) as inside:
                    yield Member(member.filename, _bounded(inside, min(member.file_size, LARGEST_MEMBER)))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UnacceptableZip("The ZIP is broken.") from error


def is_skipped(name: str) -> bool:
    """Say whether a file of this name is left aside without a word."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1].upper()
    return last in SKIPPED_NAMES or name.startswith("__MACOSX/")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _bounded(file: IO[bytes], most: int) -> Iterator[bytes]:
    left = most
    try:
        for chunk in _chunks(file):
            left -= len(chunk)
            if left < 0:
                raise UnacceptableZip("A file in the ZIP is larger than it says.")
            yield chunk
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UnacceptableZip("A file in the ZIP is broken.") from error
