"""What must be known to be whole before any of it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

MOST_IN_MEMORY = 8 << 20


def made_ahead(make: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """Make all chunks before the first is given, so that what one of them raises is raised here.

    Of what is more than some megabytes nothing is kept, neither in memory nor on the disk, which many readers, or an
    object made for it, could fill: it's made once more while it's given.
    """
    kept: list[bytes] = []
    length = 0
    for chunk in make():
        length += len(chunk)
        if length <= MOST_IN_MEMORY:
            kept.append(chunk)
        else:
            kept.clear()
    return iter(kept) if length <= MOST_IN_MEMORY else make()
