"""Workitem notifications over a WebSocket, before a real server and an outside client (PS3.18 §8.10.4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.services.atrium import Atrium
from tests.workitems.workitem_data import TRANSACTION, scheduled

GLOBAL = "1.2.840.10008.5.1.4.34.5"
Caller = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def tokens(atrium: Atrium) -> dict[str, str]:
    return {name: atrium.token(name) for name in ("technologist", "southradiologist", "referrer")}


@pytest.fixture(scope="module")
def call(atrium: Atrium, tokens: dict[str, str]) -> Caller:
    """Give a caller of UPS-RS as the technologist."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {tokens['technologist']}"
    session.headers["Content-Type"] = "application/dicom+json"

    def called(method: str, path: str, content: Any = None) -> requests.Response:
        body = json.dumps([content]) if content is not None else None
        return session.request(method, f"{atrium.url}/dicom-web/{path}", data=body, timeout=30)

    return called


@pytest.fixture(scope="module")
def made(call: Caller) -> str:
    answer = call("POST", "workitems", scheduled().to_json_dict())
    assert answer.status_code == 201
    return answer.headers["Location"].rsplit("/", 1)[-1]


def listen(atrium: Atrium, token: str, ae_title: str) -> ClientConnection:
    address = f"ws://127.0.0.1:{atrium.http_port}/dicom-web/subscribers/{ae_title}"
    return connect(address, additional_headers={"Authorization": f"Bearer {token}"}, open_timeout=20)


def hear(socket: ClientConnection, *, seconds: float = 20) -> tuple[str, int, str]:
    event = json.loads(socket.recv(timeout=seconds))
    assert list(event) == sorted(event)
    assert event["00000002"]["Value"] == ["1.2.840.10008.5.1.4.34.6.1"]
    state = event.get("00741000", {}).get("Value", [""])
    return event["00001000"]["Value"][0], event["00001002"]["Value"][0], state[0]


def hear_all(socket: ClientConnection) -> list[tuple[str, int, str]]:
    """Give what comes until it has been silent for two seconds."""
    heard = []
    with suppress(TimeoutError):
        while True:
            heard.append(hear(socket, seconds=2))
    return heard


def claim(call: Caller, uid: str) -> None:
    state = {
        "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00081195": {"vr": "UI", "Value": [TRANSACTION]},
    }
    assert call("PUT", f"workitems/{uid}/state", state).status_code == 200


def test_a_subscriber_hears_what_waited_and_what_happens(
    atrium: Atrium, tokens: dict[str, str], call: Caller, made: str
) -> None:
    subscribed = call("POST", f"workitems/{made}/subscribers/LISTENER")
    assert subscribed.headers["Content-Location"].endswith("/dicom-web/subscribers/LISTENER")
    with listen(atrium, tokens["technologist"], "LISTENER") as socket:
        assert hear(socket) == (made, 1, "SCHEDULED")
        claim(call, made)
        assert hear(socket) == (made, 1, "IN PROGRESS")
    # What was on its way when the line closed may come once more, nothing else.
    with listen(atrium, tokens["technologist"], "LISTENER") as again:
        assert set(hear_all(again)) <= {(made, 1, "IN PROGRESS")}


def test_a_global_subscriber_hears_of_new_workitems(atrium: Atrium, tokens: dict[str, str], call: Caller) -> None:
    assert call("POST", f"workitems/{GLOBAL}/subscribers/ALLEARS").status_code == 201
    with listen(atrium, tokens["technologist"], "ALLEARS") as socket:
        created = call("POST", "workitems", scheduled().to_json_dict())
        uid = created.headers["Location"].rsplit("/", 1)[-1]
        while (heard := hear(socket))[0] != uid:
            assert heard[1] == 1
        assert heard == (uid, 1, "SCHEDULED")
        assert hear(socket)[:2] == (uid, 5)


def test_nobody_hears_another_sites_events(atrium: Atrium, tokens: dict[str, str], call: Caller, made: str) -> None:
    call("POST", f"workitems/{made}/subscribers/EAVESDROP")
    with listen(atrium, tokens["southradiologist"], "EAVESDROP") as socket, pytest.raises(TimeoutError):
        socket.recv(timeout=2)


@pytest.mark.parametrize("who", ["referrer", "nobody"])
def test_who_has_no_worklist_is_not_let_in(who: str, atrium: Atrium, tokens: dict[str, str]) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed)), listen(atrium, tokens.get(who, "wrong"), "X") as socket:
        socket.recv(timeout=5)
