"""The web server as clients meet it: long-lived connections, slow clients, large bodies."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from portal.live import POLICY_VIOLATION
from tests.factories import PASSWORD, make_instance
from tests.services.atrium import ROOT, Atrium, running_atrium
from tests.services.ports import free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    """Give an Atrium, one process of few threads, with the live connections of ``tests.services.live``."""
    with running_atrium(tmp_path_factory.mktemp("server"), ATRIUM_WEB_THREADS="4") as atrium:
        atrium.http_port = free_port()
        command = [str(Path(sys.executable).with_name("granian")), "--interface", "asgi", "--log-level", "error"]
        log = (atrium.data / "web.log").open("ab")
        atrium.processes["web"] = subprocess.Popen(
            [*command, "--port", str(atrium.http_port), "tests.services.live:application"],
            env=atrium.environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        atrium._wait_for_web()
        yield atrium


@pytest.fixture(scope="module")
def headers(server: Atrium) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token('radiologist')}"}


def open_request(server: Atrium, path: str, *headers: str) -> socket.socket:
    """Send a GET by hand and give the socket, of which nothing has been read."""
    opened = socket.create_connection(("127.0.0.1", server.http_port), 10)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.http_port}", *headers, "", ""]
    opened.sendall("\r\n".join(lines).encode())
    return opened


def resident_kilobytes(atrium: Atrium) -> int:
    """Give the memory of the web server's largest process."""
    (parent,) = [process.pid for process in atrium.processes.values()]
    children = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=True).stdout.split()
    sizes = [Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0] for pid in children]
    return max(map(int, sizes))


def search(server: Atrium, headers: dict[str, str]) -> float:
    """Search once and give the seconds it took."""
    start = time.perf_counter()
    answer = requests.get(f"{server.url}/dicom-web/studies?PatientID=X", headers=headers, timeout=10)
    assert answer.status_code in {200, 204}
    return time.perf_counter() - start


def read_until(opened: socket.socket, wanted: bytes) -> bytes:
    """Read until the words come. Raises TimeoutError."""
    data = b""
    while wanted not in data:
        piece = opened.recv(65536)
        assert piece, data
        data += piece
    return data


def test_64_live_connections_block_nobody_and_all_hear_the_news(server: Atrium, headers: dict[str, str]) -> None:
    bearer = f"Authorization: {headers['Authorization']}"
    handshake = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    with ExitStack() as stack:
        streams = [stack.enter_context(open_request(server, "/test/events", bearer)) for _ in range(32)]
        sockets = [
            stack.enter_context(open_request(server, "/test/messages", bearer, key, *handshake)) for _ in range(32)
        ]
        for opened in streams:
            read_until(opened, b": still here")
        for opened in sockets:
            assert b"101 Switching Protocols" in read_until(opened, b"\r\n\r\n")
        assert search(server, headers) < 5
        for opened in streams:
            assert b"id: " in read_until(opened, b"event: search")
        for opened in sockets:
            read_until(opened, b" search")


def test_a_stream_begins_after_the_event_last_seen(server: Atrium, headers: dict[str, str]) -> None:
    search(server, headers)
    with open_request(server, "/test/events?after=0", f"Authorization: {headers['Authorization']}") as opened:
        read_until(opened, b"event: search")


@pytest.mark.parametrize(("who", "status"), [("compliance", 403), (None, 401)])
def test_a_stream_is_refused_to_whom_it_isnt_for(server: Atrium, who: str | None, status: int) -> None:
    headers = {"Authorization": f"Bearer {server.token(who)}"} if who else {}
    assert requests.get(f"{server.url}/test/events", headers=headers, timeout=10).status_code == status


def test_what_comes_by_websocket_comes_by_no_other_way(server: Atrium, headers: dict[str, str]) -> None:
    address = f"{server.url}/dicom-web/subscribers/WATCH"
    answer = requests.get(address, headers=headers, timeout=10)
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")
    assert answer.headers["Content-Type"] == "application/problem+json"
    for method, status in (("OPTIONS", 204), ("POST", 405)):
        answer = requests.request(method, address, headers=headers, timeout=10)
        assert (answer.status_code, answer.headers["Allow"]) == (status, "GET, HEAD, OPTIONS")
    assert requests.get(address, timeout=10).status_code == 401
    assert requests.get(f"{server.url}/test/messages", headers=headers, timeout=10).status_code == 404


def test_another_sites_page_opens_no_websocket(server: Atrium) -> None:
    browser = requests.Session()
    browser.get(f"{server.url}/accounts/login/", timeout=10)
    form = {"login": "radiologist", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    browser.post(f"{server.url}/accounts/login/", form, timeout=10, allow_redirects=False)
    cookie = f"Cookie: atrium_session={browser.cookies['atrium_session']}"
    handshake = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    for origin, status in ((server.url, b"101"), ("https://evil.example", b"403")):
        with open_request(server, "/test/messages", cookie, key, f"Origin: {origin}", *handshake) as opened:
            assert read_until(opened, b"\r\n").startswith(b"HTTP/1.1 " + status)


def revoke(server: Atrium, token: str) -> None:
    """Revoke a token by another process, as an administrator's command would."""
    which = f"ApiToken.objects.filter(digest=token_digest('{token}')).delete()"
    imports = "from accounts.models import ApiToken; from accounts.services import token_digest"
    server.manage("shell", "--no-imports", "-c", f"{imports}; {which}")


def test_a_websocket_ends_with_its_token(server: Atrium) -> None:
    token = server.token("technologist")
    address = f"ws://127.0.0.1:{server.http_port}/dicom-web/subscribers/REVOKED"
    with connect(address, additional_headers={"Authorization": f"Bearer {token}"}) as listening:
        revoke(server, token)
        with pytest.raises(ConnectionClosed) as closed:
            listening.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == POLICY_VIOLATION


def test_slow_clients_hold_nobody_up(server: Atrium, headers: dict[str, str]) -> None:
    requests.post(
        f"{server.url}/dicom-web/studies",
        make_instance(StudyInstanceUID="1.2.3"),
        headers={**headers, "Content-Type": "application/dicom"},
        timeout=10,
    ).raise_for_status()
    with ExitStack() as stack:
        for _ in range(16):
            slow = open_request(server, "/dicom-web/studies/1.2.3", f"Authorization: {headers['Authorization']}")
            stack.enter_context(slow)
        assert search(server, headers) < 5


def test_slow_senders_of_forms_hold_nobody_up(server: Atrium, headers: dict[str, str]) -> None:
    head = "POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with ExitStack() as stack:
        for _ in range(16):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), 10))
            slow.sendall(f"{head}Content-Length: 1000\r\nCookie: csrftoken={'a' * 32}\r\n\r\nlogin=".encode())
        assert search(server, headers) < 5
