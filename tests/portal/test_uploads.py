"""Long uploads are spread over the web processes, whichever accepted their connections."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from portal.uploads import LINGER, PAUSE, Uploads
from tests.factories import make_instance
from tests.services.atrium import ROOT, Atrium, running_atrium

SIBLING = """
import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from portal.uploads import LINGER, PAUSE, Uploads

async def upload():
    uploads = Uploads(Path(sys.argv[1]), 2)
    with ExitStack() as stack:
        for number in range(int(sys.argv[2])):
            stack.enter_context(uploads.one(("127.0.0.1", number)))
        print("ready", flush=True)
        sys.stdin.read()

asyncio.run(upload())
"""


@contextmanager
def sibling(path: Path, uploads: int) -> Iterator[subprocess.Popen[str]]:
    """Give another process that has so many uploads under way."""
    command = [sys.executable, "-c", SIBLING, str(path), str(uploads)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    with closing(Uploads(tmp_path / "uploads", 2)) as uploads:
        yield uploads


def lets_one_go(uploads: Uploads, clients: int) -> bool:
    """Say whether the first of so many clients that upload is let go."""

    async def upload() -> bool:
        with ExitStack() as stack:
            for number in range(clients):
                stack.enter_context(uploads.one(("127.0.0.1", number)))
            return uploads.let_go(("127.0.0.1", 0))

    return asyncio.run(upload())


@pytest.mark.parametrize(("mine", "theirs", "is_let_go"), [(1, 0, False), (2, 0, True), (3, 2, False), (4, 2, True)])
def test_a_connection_is_let_go_when_a_sibling_that_took_it_would_still_have_fewer(
    tmp_path: Path, uploads: Uploads, mine: int, theirs: int, is_let_go: bool
) -> None:
    with sibling(tmp_path / "uploads", theirs):
        assert lets_one_go(uploads, mine) is is_let_go


def test_one_goes_at_a_time_and_a_client_counts_a_little_longer_than_its_upload(uploads: Uploads) -> None:
    async def upload() -> list[bool]:
        for number in range(4):
            with uploads.one(("127.0.0.1", number)):
                pass
        return [uploads.let_go(("127.0.0.1", number)) for number in range(2)]

    assert asyncio.run(upload()) == [True, False]


def test_several_uploads_of_one_connection_count_as_one(uploads: Uploads) -> None:
    client = ("127.0.0.1", 1)
    wrong: list[dict[str, object]] = []

    async def upload() -> bool:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        with uploads.one(client):
            with uploads.one(client):
                pass
            is_let_go = uploads.let_go(client)
        with uploads.one(client), uploads.one(client):
            pass
        await asyncio.sleep(LINGER + 0.2)
        return is_let_go

    assert not asyncio.run(upload())
    assert wrong == []


def test_who_follows_one_that_was_killed_takes_its_place(tmp_path: Path, uploads: Uploads) -> None:
    with sibling(tmp_path / "uploads", 5) as process:
        assert not lets_one_go(uploads, 3)
        process.kill()
        process.wait()
        with sibling(tmp_path / "uploads", 0):
            assert lets_one_go(uploads, 3)


def test_without_a_file_to_count_in_connections_stay_where_they_are(tmp_path: Path) -> None:
    assert not lets_one_go(Uploads(tmp_path / "missing" / "uploads", 2), 5)


CONNECTIONS, MOST_ROUNDS = 6, 60


def test_connections_that_upload_end_up_spread_over_the_processes(tmp_path: Path) -> None:
    with running_atrium(tmp_path, "web", ATRIUM_WEB_WORKERS="2") as atrium:
        head, rest = _request(atrium)
        opened: list[socket.socket | None] = [None] * CONNECTIONS
        counts: list[int] = []
        for _ in range(MOST_ROUNDS):
            opened = [one or socket.create_connection(("127.0.0.1", atrium.http_port), 30) for one in opened]
            for one in opened:
                assert one is not None
                one.sendall(head)
            counts = _counts(atrium)
            opened = [_finished(one, rest) for one in opened if one is not None]
            if max(counts) == min(counts):
                # Nobody has too many: all connections are kept.
                assert None not in opened
                break
            time.sleep(PAUSE)
        assert counts == [CONNECTIONS // 2] * 2
        for one in opened:
            if one is not None:
                one.close()


def _request(atrium: Atrium) -> tuple[bytes, bytes]:
    """Give a store request in two parts; the first is so long that a thread reads the body while it comes."""
    part = b"\r\n--frontier\r\nContent-Type: application/dicom\r\n\r\n" + make_instance() + b"\r\n--frontier--\r\n"
    preamble = b" " * 400_000
    lines = [
        "POST /dicom-web/studies HTTP/1.1",
        f"Host: 127.0.0.1:{atrium.http_port}",
        f"Authorization: Bearer {atrium.token('radiologist')}",
        'Content-Type: multipart/related; type="application/dicom"; boundary=frontier',
        f"Content-Length: {len(preamble) + len(part)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + preamble, part


def _counts(atrium: Atrium) -> list[int]:
    """Give how many uploads each process has under way, once all are."""
    path = atrium.data / f"uploads-{atrium.http_port}"
    for _ in range(200):
        counts = [count for (count,) in struct.iter_unpack("=I", path.read_bytes())]
        if sum(counts) == CONNECTIONS:
            return counts
        time.sleep(0.05)
    raise AssertionError(f"not all uploads have begun: {counts}")


def _finished(opened: socket.socket, rest: bytes) -> socket.socket | None:
    """End the upload, read its answer, and give the connection, None where the server closes it."""
    opened.sendall(rest)
    data = b""
    while b"\r\n\r\n" not in data:
        data += opened.recv(65536)
    head, _, content = data.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(content) < int(headers[b"content-length"]):
        content += opened.recv(65536)
    assert head.startswith(b"HTTP/1.1 200"), data
    if headers.get(b"connection") != b"close":
        return opened
    assert opened.recv(1) == b""
    opened.close()
    return None
