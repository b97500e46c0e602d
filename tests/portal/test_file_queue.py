"""The queue of an embedded installation."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import ChannelError

from portal.celery import app


@pytest.fixture
def channels(tmp_path: Path) -> Any:
    options = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path), "control_folder": str(tmp_path / "c")}
    return [Connection(transport=app.conf.broker_transport, transport_options=options).channel() for _ in range(2)]


def test_a_message_that_is_being_written_is_not_there_yet(channels: Any) -> None:
    writer, reader = channels
    looked: list[str] = []

    class Content:
        def __json__(self) -> str:
            """Look for the message from the other side while it's written."""
            with pytest.raises(Empty):
                reader._get("tasks")
            looked.append("nothing")
            return "all of it"

    writer._put("tasks", {"body": Content()})
    assert looked == ["nothing"]
    assert reader._size("tasks") == 1
    assert reader._get("tasks") == {"body": "all of it"}


def test_a_message_that_cannot_be_put_is_told_of_and_leaves_nothing(
    channels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*paths: Path) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ChannelError):
        channels[0]._put("tasks", {"number": 1})
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_each_queue_gives_its_own_messages_once(channels: Any, tmp_path: Path) -> None:
    writer, reader = channels
    for number in range(3):
        writer._put("tasks", {"number": number})
        writer._put("network", {"number": 10 + number})
    numbers = sorted(reader._get("network")["number"] for _ in range(3))
    assert numbers == [10, 11, 12]
    assert {reader._get("tasks")["number"] for _ in range(3)} == {0, 1, 2}
    with pytest.raises(Empty):
        reader._get("tasks")
    assert not list(tmp_path.glob("*.part"))
