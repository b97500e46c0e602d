"""Ill will on the wire, before the real server: headers, bodies, ranges, smuggled requests, credentials that end."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO

import httpx
import numpy as np
import pydicom
import pytest
import requests
from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame
from pydicom.uid import JPEGLSLossless

from accounts.credentials import REMEMBERED
from portal.threads import MOST_STREAMS
from tests.dicomweb.retrieving import make_rle
from tests.factories import make_instance
from tests.portal.test_server import resident_kilobytes, revoke, search
from tests.services.atrium import Atrium, running_atrium
from tests.workitems.workitem_data import scheduled

STUDY = "/dicom-web/studies/1.2.3"
INSTANCE = f"{STUDY}/series/1.2.3.4/instances/1.2.3.4.5"
UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}

REMOVED = """
from studies.archive import objects
from studies.models import Instance
objects.remove(Instance.objects.get(series__series_instance_uid="{study}", instance_number=2).object_key)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("hostile"), "web", ATRIUM_WEB_THREADS="4") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def headers(server: Atrium) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {server.token('technologist')}"}
    requests.post(
        f"{server.url}/dicom-web/studies",
        make_instance(**UIDS),
        headers={**headers, "Content-Type": "application/dicom"},
        timeout=30,
    ).raise_for_status()
    return headers


def exchange(server: Atrium, request: bytes, *, seconds: float = 5) -> bytes:
    """Send bytes as they are and give all that comes back until the server closes or is silent."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.http_port), 10) as opened:
        opened.settimeout(seconds)
        try:
            opened.sendall(request)
            while piece := opened.recv(65536):
                answer += piece
        except OSError:
            pass
    return answer


def lines(*text: str) -> bytes:
    return "\r\n".join([*text, "", ""]).encode()


@pytest.mark.parametrize(
    "extra",
    [
        [f"Accept: {'a' * 60_000}"],
        [f"Accept: {'a' * 1_000_000}"],
        [f"X-{n}: {'y' * 100}" for n in range(5000)],
        [f"Cookie: {'; '.join(f'c{n}=1' for n in range(6000))}"],
        [f"Content-Type: a/b{';' * 60_000}"],
        [f"X-Forwarded-For: {', '.join(['1.2.3.4'] * 7000)}"],
    ],
    ids=["long Accept", "Accept of a megabyte", "many headers", "many cookies", "parameters", "forwarded"],
)
def test_headers_beyond_all_sense_are_refused_or_read_at_once(extra: list[str], server: Atrium) -> None:
    """By anybody, without a credential."""
    begun = time.monotonic()
    for path in (INSTANCE, f"{STUDY}/series/1.2.3.4/metadata", "/dicom-web/"):
        answer = exchange(server, lines(f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *extra))
        assert not answer or answer.split()[1] in {b"200", b"400", b"401", b"406", b"431"}, answer[:200]
    assert time.monotonic() - begun < 15
    assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200


def test_who_sends_too_many_headers_is_told(server: Atrium) -> None:
    answer = exchange(
        server, lines("GET /dicom-web/ HTTP/1.1", "Host: 127.0.0.1", f"X-Much: {'y' * 70_000}"), seconds=2
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"431"
    assert b"application/problem+json" in head
    assert json.loads(body)["title"] == "Request Header Fields Too Large"


def test_a_long_address_is_refused(server: Atrium) -> None:
    for path in (f"{STUDY}?{'a=b&' * 30_000}", f"/dicom-web/studies/{'1' * 100_000}"):
        answer = exchange(server, lines(f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"))
        assert not answer or answer.split()[1] in {b"400", b"401", b"404", b"414", b"431"}, answer[:200]


HEAD = ("Host: 127.0.0.1", "Content-Type: application/dicom")
HIDDEN = "GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "extra",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: +5"],
        ["Content-Length: 5, 6"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding:\tchunked", "Content-Length: 5"],
    ],
    ids=lambda extra: " / ".join(extra),
)
def test_no_second_request_hides_in_a_body(extra: list[str], server: Atrium, headers: dict[str, str]) -> None:
    """Where two readings of a body's length are possible, what one takes for its end is no request of the other."""
    request = lines("POST /dicom-web/studies HTTP/1.1", *HEAD, f"Authorization: {headers['Authorization']}", *extra)
    answer = exchange(server, request + b"0\r\n\r\n" + HIDDEN.encode(), seconds=2)
    assert b"500 " not in answer
    statuses = [part.split(b" ", 1)[0] for part in answer.split(b"HTTP/1.1 ")[1:]]
    if len(statuses) > 1:
        # Only by the one reading that RFC 9112 §6.3 allows: chunked goes before a length.
        assert any("chunked" in one and " :" not in one and "x" not in one for one in extra), answer
        assert statuses[1] == b"404"


def test_bodies_that_stall_hold_nobody_up(server: Atrium, headers: dict[str, str]) -> None:
    """Four threads, sixteen senders that stop in the midst of a body: of an instance, or of a form."""
    store = ["POST /dicom-web/studies HTTP/1.1", *HEAD, f"Authorization: {headers['Authorization']}"]
    form = ["POST /accounts/login/ HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/x-www-form-urlencoded"]
    with ExitStack() as stack:
        for number in range(16):
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), 10))
            if number % 2:
                opened.sendall(
                    lines(*store, "Transfer-Encoding: chunked") + b"80000\r\n" + b"x" * 0x80000 + b"\r\n5\r\nab"
                )
            else:
                cookie = f"Cookie: csrftoken={'a' * 32}"
                opened.sendall(lines(*form, cookie, "Content-Length: 9000000") + b"login=" + b"x" * 600_000)
        time.sleep(1)
        assert search(server, headers) < 5


def test_an_http2_connection_has_bounds(server: Atrium) -> None:
    """Of headers that are named again and again by a byte (RFC 7541 §4), and of requests that are never whole."""
    before = resident_kilobytes(server)
    encoder = Encoder()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.http_port), 10) as opened:
            opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
            for number in range(1, 401, 2):
                common = [(":scheme", "http"), (":authority", "127.0.0.1"), (":path", "/dicom-web/studies")]
                unfinished = HeadersFrame(number, flags=["END_HEADERS"])
                unfinished.data = encoder.encode([(":method", "POST"), *common])
                repeated = HeadersFrame(number + 400, flags=["END_HEADERS", "END_STREAM"])
                repeated.data = encoder.encode([(":method", "GET"), *common, ("cookie", "z" * 3900)]) + b"\xbe" * 3000
                try:
                    opened.sendall(unfinished.serialize() + repeated.serialize())
                except OSError:
                    break
            encoder = Encoder()
    assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200
    assert resident_kilobytes(server) - before < 60_000


def test_connections_that_say_nothing_keep_nobody_out(server: Atrium) -> None:
    with ExitStack() as stack:
        for _ in range(1200):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), 10))
        assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200


def test_requests_whose_sender_goes_before_their_body_comes_reach_no_view(server: Atrium) -> None:
    head = lines("POST /dicom-web/studies HTTP/1.1", *HEAD, "Content-Length: 9")
    refused = server.log("web").count("Forbidden (CSRF")
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.http_port), 10) as opened:
            opened.sendall(head)
    time.sleep(0.5)
    assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200
    assert server.log("web").count("Forbidden (CSRF") == refused


def test_a_large_workitem_is_read_to_its_end(server: Atrium, headers: dict[str, str]) -> None:
    content = scheduled().to_json_dict() | {"00091010": {"vr": "UT", "Value": ["x" * 3_000_000]}}
    body = json.dumps([content]).encode()
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    answer = requests.post(
        f"{server.url}/dicom-web/workitems",
        pieces,
        headers={**headers, "Content-Type": "application/dicom+json"},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text
    kept = requests.get(answer.headers["Location"], headers=headers, timeout=30).json()
    assert kept[0]["00091010"]["Value"] == content["00091010"]["Value"]


def test_a_body_without_end_costs_no_memory(server: Atrium, headers: dict[str, str]) -> None:
    before = resident_kilobytes(server)
    for kind in ("application/dicom+json", "application/json"):

        def endless() -> Iterator[bytes]:
            yield b'[{"00100010":{"vr":"PN","Value":[{"Alphabetic":"'
            for _ in range(64):
                yield b"x" * (1 << 20)

        try:
            answer = requests.post(
                f"{server.url}/dicom-web/workitems",
                endless(),
                headers={**headers, "Content-Type": kind},
                timeout=60,
            )
            assert answer.status_code == 413
        except requests.ConnectionError:
            # Refused before all was sent.
            pass
    assert resident_kilobytes(server) - before < 60_000


@pytest.mark.usefixtures("headers")
def test_a_token_that_is_revoked_ends_a_connection_that_is_kept(server: Atrium) -> None:
    token = server.token("technologist")
    with requests.Session() as kept:
        kept.headers["Authorization"] = f"Bearer {token}"
        paths = (STUDY, f"{INSTANCE}/frames/1", f"{STUDY}/series/1.2.3.4/metadata", "/dicom-web/studies?PatientID=P1")
        assert {kept.get(f"{server.url}{path}", timeout=10).status_code for path in paths} == {200}
        revoke(server, token)
        time.sleep(REMEMBERED)
        assert {kept.get(f"{server.url}{path}", timeout=10).status_code for path in paths} == {401}


@pytest.mark.parametrize("name", ["A" * 17, "%00", "..%2f..", "%0d%0aX: y", "é"])
def test_no_name_of_a_listener_breaks_it(name: str, server: Atrium, headers: dict[str, str]) -> None:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    handshake = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key)
    request = lines(
        f"GET /dicom-web/subscribers/{name} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: {headers['Authorization']}",
        *handshake,
    )
    assert b" 500 " not in exchange(server, request, seconds=1).split(b"\r\n")[0]
    posted = requests.post(
        f"{server.url}/dicom-web/workitems/1.2.840.10008.5.1.4.34.5/subscribers/{name}", headers=headers, timeout=10
    )
    assert posted.status_code in {400, 404}
    assert "ERROR" not in [json.loads(one)["levelname"] for one in server.log("web").splitlines() if one[:1] == "{"]


def test_what_cant_be_made_whole_is_broken_off_after_all_the_rest_and_told_of_the_next_time(
    server: Atrium, headers: dict[str, str]
) -> None:
    def send(number: int, *, damaged: tuple[int, ...] = ()) -> None:
        requests.post(
            f"{server.url}/dicom-web/studies",
            make_rle(number, damaged=damaged, pixels=pixels, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1"),
            headers={**headers, "Content-Type": "application/dicom"},
            timeout=30,
        ).raise_for_status()

    pixels = np.random.default_rng(5).integers(0, 4096, (1, 512, 400)).astype(np.uint16)
    for number in range(1, 6):
        send(number, damaged=(1,) if number == 2 else ())
    wanted = {**headers, "Accept": f'multipart/related; type="application/dicom"; transfer-syntax={JPEGLSLossless}'}
    statuses = []
    for _ in range(3):
        with requests.get(f"{server.url}/dicom-web/studies/1.2.9", headers=wanted, stream=True, timeout=30) as answer:
            statuses.append(answer.status_code)
            content = b""
            try:
                for piece in answer.iter_content(65536):
                    content += piece
            except requests.exceptions.ChunkedEncodingError:
                assert answer.status_code == 200
                assert not content.endswith(b"--\r\n")
            else:
                assert answer.status_code == 206
                assert "1 of 5 instances" in answer.headers["Warning"]
                assert content.endswith(b"--\r\n")
            boundary = answer.headers["Content-Type"].partition("boundary=")[2].encode()
            files = [part.partition(b"\r\n\r\n")[2] for part in content.split(b"--" + boundary)[1:5]]
            decoded = [pydicom.dcmread(BytesIO(file)) for file in files]
            assert [dataset.InstanceNumber for dataset in decoded] == [1, 3, 4, 5]
            assert all(np.array_equal(dataset.pixel_array, pixels[0]) for dataset in decoded)
    assert statuses == [200, 206, 206]


@pytest.mark.parametrize("pause", [0, 2])
def test_what_is_broken_off_over_http_2_is_all_there_but_for_its_end(
    pause: float, server: Atrium, headers: dict[str, str]
) -> None:
    study = f"1.2.10.{pause}"
    pixels = np.random.default_rng(5).integers(0, 4096, (1, 300, 300)).astype(np.uint16)
    for number in range(1, 5):
        content = make_rle(
            number, damaged=(1,) if number == 2 else (), pixels=pixels, StudyInstanceUID=study, SeriesInstanceUID=study
        )
        requests.post(
            f"{server.url}/dicom-web/studies",
            content,
            headers={**headers, "Content-Type": "application/dicom"},
            timeout=30,
        ).raise_for_status()
    accept = 'multipart/related; type="application/octet-stream"'
    with httpx.Client(http1=False, http2=True, headers={**headers, "Accept": accept}, timeout=30) as client:
        with client.stream("GET", f"{server.url}/dicom-web/studies/{study}") as answer:
            assert answer.status_code == 200
            pieces = answer.iter_raw()
            received = [next(pieces)]
            time.sleep(pause)
            with pytest.raises(httpx.RemoteProtocolError):
                received += pieces
        told = client.get(f"{server.url}/dicom-web/studies/{study}")
    assert told.status_code == 206
    content = b"".join(received)
    assert told.content.startswith(content)
    assert told.content[len(content) :].startswith(b"--")


@pytest.mark.parametrize("below", ["", "/series/1.2.3.4/instances/1.2.3.4.5/bulkdata/7FE00010"])
def test_by_head_the_headers_are_those_of_the_answer(below: str, server: Atrium, headers: dict[str, str]) -> None:
    asked = {**headers, "Accept": "application/octet-stream, */*; q=0.1"}
    head, get = (
        requests.request(method, f"{server.url}{STUDY}{below}", headers=asked, timeout=10) for method in ("HEAD", "GET")
    )
    assert (head.status_code, head.content) == (200, b"")
    own = {"date", "x-request-id", "transfer-encoding"}
    own |= set() if "bulkdata" in below else {"content-length"}
    shown = [{n.lower(): v for n, v in answer.headers.items() if n.lower() not in own} for answer in (head, get)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("is_http_2", [False, True])
def test_what_lacks_a_file_ends_before_the_length_it_was_told_to_have(
    is_http_2: bool, server: Atrium, headers: dict[str, str]
) -> None:
    study = f"1.2.11.{is_http_2:d}"
    files = [make_instance(StudyInstanceUID=study, SeriesInstanceUID=study, InstanceNumber=n) for n in range(1, 4)]
    for file in files:
        requests.post(
            f"{server.url}/dicom-web/studies",
            file,
            headers={**headers, "Content-Type": "application/dicom"},
            timeout=30,
        ).raise_for_status()
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    with httpx.Client(
        http1=not is_http_2, http2=is_http_2, headers={**headers, "Accept": accept}, timeout=30
    ) as client:
        whole = client.get(f"{server.url}/dicom-web/studies/{study}")
        assert whole.headers["Content-Length"] == str(len(whole.content))
        server.manage("shell", "--no-imports", "-c", REMOVED.format(study=study))
        received: list[bytes] = []
        with client.stream("GET", f"{server.url}/dicom-web/studies/{study}") as answer:
            assert answer.headers["Content-Length"] == whole.headers["Content-Length"]
            with pytest.raises(httpx.RemoteProtocolError):
                received += answer.iter_raw()
        assert [file in b"".join(received) for file in files] == [True, False, True]


def test_answers_that_are_broken_off_keep_no_thread_from_others(server: Atrium, headers: dict[str, str]) -> None:
    headers = {**headers, "Accept": 'multipart/related; type="application/dicom"'}
    for study, count in (("1.2.12.1", 3), ("1.2.12.2", 1)):
        for number in range(count):
            requests.post(
                f"{server.url}/dicom-web/studies",
                make_instance(StudyInstanceUID=study, SeriesInstanceUID=study, InstanceNumber=number + 1),
                headers={**headers, "Accept": "*/*", "Content-Type": "application/dicom"},
                timeout=30,
            ).raise_for_status()
    server.manage("shell", "--no-imports", "-c", REMOVED.format(study="1.2.12.1"))
    named = (f"{name}: {value}" for name, value in headers.items())
    request = lines("GET /dicom-web/studies/1.2.12.1 HTTP/1.1", "Host: localhost", *named)
    with ExitStack() as stack:
        # More than two processes have threads, and each reads what it gets.
        readers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), 30))
            for _ in range(2 * MOST_STREAMS + 20)
        ]
        for reader in readers:
            reader.sendall(request)
        for reader in readers:
            assert b"multipart/related" in reader.recv(65536)
        whole = requests.get(f"{server.url}/dicom-web/studies/1.2.12.2", headers=headers, timeout=30)
        assert whole.content.endswith(b"--\r\n")
        assert sum(map(is_ended, readers)) < len(readers) / 2


def is_ended(connection: socket.socket) -> bool:
    """Say whether the server has closed a connection, of which all that has come is read."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
