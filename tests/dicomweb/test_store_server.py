"""STOW-RS through the real server: many senders, senders that go, large bodies, the loss of power."""

from __future__ import annotations

import fcntl
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO

import pydicom
import pytest
import requests

from tests.factories import make_instance
from tests.portal.test_server import open_request, resident_kilobytes, search
from tests.services.atrium import Atrium, running_atrium

DICOM = 'multipart/related; type="application/dicom"; boundary=frontier'
LARGE = 300 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("store"), "web") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def headers(server: Atrium) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token('technologist')}"}


def message(*files: bytes) -> bytes:
    parts = b"".join(b"--frontier\r\nContent-Type: application/dicom\r\n\r\n" + f + b"\r\n" for f in files)
    return parts + b"--frontier--\r\n"


def send(server: Atrium, headers: dict[str, str], *files: bytes) -> requests.Response:
    return requests.post(
        f"{server.url}/dicom-web/studies", message(*files), headers={**headers, "Content-Type": DICOM}, timeout=60
    )


def instances(server: Atrium, headers: dict[str, str], study: str) -> set[str]:
    answer = requests.get(f"{server.url}/dicom-web/studies/{study}/instances", headers=headers, timeout=60)
    return {i["00080018"]["Value"][0] for i in answer.json()} if answer.status_code == 200 else set()


def large_instance() -> Iterator[bytes]:
    """Give an instance of 300 MB, of which memory never holds more than a piece."""
    dataset = pydicom.dcmread(BytesIO(make_instance(StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1")))
    dataset.NumberOfFrames = LARGE // 8192
    del dataset.PixelData
    buffer = BytesIO()
    dataset.save_as(buffer)
    yield buffer.getvalue() + b"\xe0\x7f\x10\x00OW\0\0" + (LARGE // 8192 * 8192).to_bytes(4, "little")
    for _ in range(LARGE // 8192 // 128):
        yield bytes(1 << 20)


def test_many_senders_into_one_study_lose_nothing(server: Atrium, headers: dict[str, str]) -> None:
    files = [make_instance(StudyInstanceUID="1.1", SeriesInstanceUID=f"1.1.{n % 3}") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda f: send(server, headers, f), files))
    assert {a.status_code for a in answers} == {200}
    assert len(instances(server, headers, "1.1")) == 40
    (study,) = requests.get(f"{server.url}/dicom-web/studies?StudyInstanceUID=1.1", headers=headers, timeout=30).json()
    assert study["00201208"]["Value"] == [40]


def test_on_sqlite_a_sender_waits_for_another_process_that_commits(server: Atrium, headers: dict[str, str]) -> None:
    if server.environment.get("ATRIUM_DATABASE_URL", ""):
        pytest.skip("only SQLite lets one process write at a time")
    with ThreadPoolExecutor(1) as pool, (server.data / "atrium.sqlite3.lock").open("ab") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        answer = pool.submit(send, server, headers, make_instance(StudyInstanceUID="1.8"))
        with pytest.raises(TimeoutError):
            answer.result(1.5)
        fcntl.flock(others, fcntl.LOCK_UN)
        assert answer.result(30).status_code == 200
    assert len(instances(server, headers, "1.8")) == 1


def test_a_lock_that_cannot_be_opened_holds_no_sender_up(server: Atrium, headers: dict[str, str]) -> None:
    lock = server.data / "atrium.sqlite3.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    try:
        assert send(server, headers, make_instance(StudyInstanceUID="1.7")).status_code == 200
    finally:
        lock.rmdir()
    assert len(instances(server, headers, "1.7")) == 1


def test_a_sender_that_goes_loses_no_part_that_was_whole(server: Atrium, headers: dict[str, str]) -> None:
    body = message(make_instance(StudyInstanceUID="1.2"), make_instance(StudyInstanceUID="1.2"))
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {DICOM}\r\n"
    head += f"Authorization: {headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.http_port), 10) as opened:
        opened.sendall(head.encode() + body[:-3000])
    deadline = time.monotonic() + 20
    while len(instances(server, headers, "1.2")) != 1:
        assert time.monotonic() < deadline


def test_continue_is_said_to_whom_may_store_only(server: Atrium, headers: dict[str, str]) -> None:
    body = make_instance(StudyInstanceUID="1.3")
    for credential, first in ((headers["Authorization"], b"HTTP/1.1 100"), ("Bearer no", b"HTTP/1.1 401")):
        head = "POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/dicom\r\n"
        head += f"Authorization: {credential}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.http_port), 20) as opened:
            opened.sendall(head.encode())
            assert opened.recv(4096).startswith(first)
            if first.endswith(b"100"):
                opened.sendall(body)
                assert b" 200 " in opened.recv(4096)


def test_memory_stays_flat_and_slow_readers_hold_nobody_up(server: Atrium, headers: dict[str, str]) -> None:
    search(server, headers)
    before = resident_kilobytes(server)
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak.append(resident_kilobytes(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answer = requests.post(
            f"{server.url}/dicom-web/studies",
            large_instance(),
            headers={**headers, "Content-Type": "application/dicom"},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        study = f"{server.url}/dicom-web/studies/1.9"
        with requests.get(study, headers=headers, stream=True, timeout=120) as whole:
            assert sum(len(chunk) for chunk in whole.iter_content(1 << 20)) > LARGE - (1 << 20)
        flat = max(peak)
        bearer = f"Authorization: {headers['Authorization']}"
        slow = [open_request(server, "/dicom-web/studies/1.9", bearer) for _ in range(40)]
        for opened in slow:
            assert opened.recv(16).startswith(b"HTTP/1.1 200")
        assert search(server, headers) < 5
        for opened in slow:
            opened.close()
    finally:
        done.set()
        watcher.join()
    assert flat - before < 100_000
    # 40 slow readers have a few pieces each, of up to a megabyte.
    assert max(peak) - flat < 40 * 12_000


def test_what_was_acknowledged_survives_the_loss_of_power(server: Atrium, headers: dict[str, str]) -> None:
    acknowledged: list[str] = []
    started = threading.Barrier(5)

    def sender(number: int) -> None:
        started.wait()
        for n in range(1000):
            uids = {"StudyInstanceUID": f"1.5.{number}", "SeriesInstanceUID": f"1.5.{number}.1"}
            content = make_instance(**uids, SOPInstanceUID=f"1.5.{number}.1.{n}")
            with suppress(requests.RequestException, http.client.HTTPException):
                if send(server, headers, content).status_code == 200:
                    acknowledged.append(f"1.5.{number}.1.{n}")
                    continue
            return

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    while len(acknowledged) < 25:
        time.sleep(0.01)
    server.kill("web")
    for thread in threads:
        thread.join()
    server.start("web")
    found = set().union(*(instances(server, headers, f"1.5.{number}") for number in range(4)))
    assert set(acknowledged) <= found
    for uid in found:
        series = uid.rsplit(".", 1)[0]
        address = f"{server.url}/dicom-web/studies/{series.rsplit('.', 1)[0]}/series/{series}/instances/{uid}/frames/1"
        assert requests.get(address, headers=headers, timeout=30).status_code == 200
