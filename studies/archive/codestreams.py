"""How large a compressed frame says that it is, read from its first bytes, before a decoder makes room for that."""

from __future__ import annotations

from collections.abc import Iterator

# Markers that no length follows (ITU T.81 Table B.1), and those that begin a frame: JPEG's and JPEG-LS's.
_ALONE = {0x01, *range(0xD0, 0xD9)}
_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG, _JPEG_2000, _JPEG_XL = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\x0a"
_BOXES = (b"\x00\x00\x00\x0cjP  ", b"\x00\x00\x00\x0cJXL ")
# JPEG XL's ratios of width to height (ISO/IEC 18181-1 Table 4), and how many bits its sizes have.
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIZE_BITS = (9, 13, 18, 30)


def announced_pixels(data: bytes) -> int | None:
    """Give rows times columns as a JPEG, JPEG-LS, JPEG 2000 or JPEG XL stream announces them; None where it doesn't."""
    if data.startswith(_BOXES):
        data = next((content for kind, content in _boxes(data) if kind in {b"jp2c", b"jxlc", b"jxlp"}), b"")
        # A part of a JPEG XL stream begins with its number.
        data = data[4:] if data[4:6] == _JPEG_XL else data
    if data.startswith(_JPEG_2000):
        right, lower, left, upper = (int.from_bytes(data[n : n + 4], "big") for n in (8, 12, 16, 20))
        return max(right - left, 0) * max(lower - upper, 0)
    if data.startswith(_JPEG_XL):
        return _jpeg_xl(int.from_bytes(data[2:12], "little"))
    return _jpeg(data) if data.startswith(_JPEG) else None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        length, kind, head = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        # The head of the stream is enough.
        yield kind, data[place + head : place + head + 64]
        if length < head:
            return
        place += length


def _jpeg(data: bytes) -> int | None:
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _FRAME:
            rows, columns = data[place + 5 : place + 7], data[place + 7 : place + 9]
            return int.from_bytes(rows, "big") * int.from_bytes(columns, "big")
        if marker == 0xFF:
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _jpeg_xl(bits: int) -> int:
    """Read the size header (ISO/IEC 18181-1 §3.2), the least significant bit first."""

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    is_small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take(_SIZE_BITS[take(2)]) + 1

    rows = side()
    ratio = take(3)
    return rows * (rows * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1] if ratio else side())
