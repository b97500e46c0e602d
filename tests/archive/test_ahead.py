"""What must be whole before it's sent: it breaks at once or not at all, and isn't kept where it's much."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from studies.archive.ahead import MOST_IN_MEMORY, made_ahead
from studies.archive.errors import NotTranscodable

MEGABYTE = 1 << 20


@pytest.mark.parametrize("count", [1, 3, 8, 9, 40])
def test_what_breaks_late_breaks_at_once(count: int) -> None:
    def make() -> Iterator[bytes]:
        yield from (bytes(MEGABYTE) for _ in range(count))
        raise NotTranscodable

    with pytest.raises(NotTranscodable):
        made_ahead(make)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 40])
def test_all_comes_in_its_order(count: int) -> None:
    def make() -> Iterator[bytes]:
        return (bytes([number]) * MEGABYTE for number in range(count))

    given = made_ahead(make)
    assert [chunk[0] for chunk in given] == list(range(count))


def test_memory_stays_flat() -> None:
    def make() -> Iterator[bytes]:
        return (bytes(MEGABYTE) for _ in range(200))

    tracemalloc.start()
    try:
        assert sum(len(chunk) for chunk in made_ahead(make)) == 200 * MEGABYTE
        assert tracemalloc.get_traced_memory()[1] < MOST_IN_MEMORY + 4 * MEGABYTE
    finally:
        tracemalloc.stop()
