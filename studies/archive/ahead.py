"""What must be known to be whole before any of it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from tempfile import TemporaryFile
from typing import IO

from django.conf import settings

MOST_IN_MEMORY = 8 << 20


def made_ahead(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Make all chunks before the first is given, so that what one of them raises is raised here.

    Of what is beyond some megabytes memory holds one chunk: they wait in a file of the staging folder without a name.
    """
    remaining = iter(chunks)
    in_memory, room = [], MOST_IN_MEMORY
    for chunk in remaining:
        in_memory.append(chunk)
        room -= len(chunk)
        if room <= 0:
            return chain(in_memory, _through_file(remaining))
    return iter(in_memory)


def _through_file(chunks: Iterator[bytes]) -> Iterator[bytes]:
    settings.STAGING_ROOT.mkdir(parents=True, exist_ok=True)
    waiting = TemporaryFile(dir=settings.STAGING_ROOT)  # noqa: SIM115  closed below, or by the last
    try:
        lengths = [waiting.write(chunk) for chunk in chunks]
        waiting.seek(0)
    except BaseException:
        waiting.close()
        raise
    given = _given(waiting, lengths)
    # From here on it closes the file, even if nobody reads on.
    next(given)
    return given


def _given(waiting: IO[bytes], lengths: list[int]) -> Iterator[bytes]:
    with waiting:
        yield b""
        for length in lengths:
            yield waiting.read(length)
