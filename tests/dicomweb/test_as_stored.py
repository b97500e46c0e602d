"""Whole studies as they are stored: one message of a known length, cut anywhere, read to where it's sent from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.storage import storages
from django.test import RequestFactory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import User
from portal import bodies
from portal.bodies import BrokenOff, PagedResponse
from studies.archive import objects
from studies.archive.objects import FileReader
from studies.dicomweb import wado
from studies.models import Instance
from tests.dicomweb.retrieving import STUDY, UIDS, body_of, parts_of
from tests.factories import make_instance, principal_of

pytestmark = pytest.mark.django_db
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
ONE_BY_ONE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_files(count: int, side: int = 24) -> list[bytes]:
    """Give instances of different lengths."""
    sizes = [(1, side + number % 3, side) for number in range(count)]
    pixels = [
        np.random.default_rng(number).integers(0, 4096, size).astype(np.uint16) for number, size in enumerate(sizes)
    ]
    return [make_instance(**UIDS, pixels=each, InstanceNumber=number) for number, each in enumerate(pixels, 1)]


def path_of(instance: Instance) -> Path:
    return Path(storages["objects"].path(instance.object_key))


def message_of(answer: PagedResponse, files: list[bytes]) -> bytes:
    boundary = answer["Content-Type"].partition("boundary=")[2]
    head = f"--{boundary}\r\nContent-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()


@pytest.fixture
def retrieve(people: dict[str, User]) -> Callable[[], PagedResponse]:
    """Give what gives the study's answer as the server takes it."""

    def answer() -> PagedResponse:
        request = RequestFactory().get("/", headers={"Accept": AS_STORED})
        request.principal = principal_of(people["radiologist"])  # type: ignore[attr-defined]
        response = wado.retrieved(request, STUDY)
        assert isinstance(response, PagedResponse)
        return response

    return answer


@pytest.fixture
def stored(north: Any, ingest_files: Any) -> list[bytes]:
    """Store nine files, five of them in one object."""
    files = make_files(9)
    ingest_files(north, *files[:5])
    for file in files[5:]:
        ingest_files(north, file)
    return files


@ONE_BY_ONE
@given(first=st.integers(150, 6000), doublings=st.integers(0, 4))
def test_wherever_it_is_cut_it_is_the_same_message(
    first: int, doublings: int, stored: list[bytes], retrieve: Callable[[], PagedResponse]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "GATHERED", first)
        patch.setattr(bodies, "PIECE", first << doublings)
        answer = retrieve()
        content = body_of(answer)
    assert content == message_of(answer, stored)
    assert answer["Content-Length"] == str(len(content))


def test_a_page_stays_as_it_is_until_the_next_is_made_and_few_are_kept(
    stored: list[bytes], retrieve: Callable[[], PagedResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "GATHERED", 400)
    monkeypatch.setattr(bodies, "PIECE", 400)
    pieces = retrieve().pieces
    before, copy = next(pieces), b""
    memory: dict[int, Any] = {}
    copy = bytes(before)
    for piece in pieces:
        assert before == copy
        before, copy = piece, bytes(piece)
        if isinstance(piece, bytearray):
            memory[id(piece)] = piece
    assert len(memory) == 2


def test_the_parts_are_the_files(stored: list[bytes], retrieve: Callable[[], PagedResponse]) -> None:
    assert [content for _, content in parts_of(retrieve())] == stored


def test_what_ends_too_early_breaks_off_where_it_ends(
    north: Any, ingest_files: Any, retrieve: Callable[[], PagedResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "GATHERED", 1000)
    files = make_files(3)
    for file in files:
        ingest_files(north, file)
    second = Instance.objects.get(instance_number=2)
    path_of(second).write_bytes(files[1][:1200])
    content = []
    with pytest.raises(BrokenOff):
        content += retrieve().streaming_content
    body = b"".join(content)
    assert body.endswith(files[1][:1200])
    assert files[0] in body
    assert files[2] not in body


def test_what_is_missing_leaves_nothing_behind_of_itself(
    stored: list[bytes], retrieve: Callable[[], PagedResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (6, 9):
        objects.remove(Instance.objects.get(instance_number=number).object_key)
    for first in (150, 1000, bodies.GATHERED):
        monkeypatch.setattr(bodies, "GATHERED", first)
        content = []
        with pytest.raises(BrokenOff):
            content += (answer := retrieve()).streaming_content
        there = [file for number, file in enumerate(stored, 1) if number not in {6, 9}]
        assert b"".join(content) == message_of(answer, there).rpartition(b"\r\n--")[0]


def test_who_stops_reading_leaves_no_file_open(stored: list[bytes], retrieve: Callable[[], PagedResponse]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    answer = retrieve()
    next(answer.pieces)
    answer.close()
    del answer
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_slow_storage_holds_nothing_back(
    stored: list[bytes], retrieve: Callable[[], PagedResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "HELD", -1.0)
    assert len(list(retrieve().pieces)) == len(stored) + 1


def test_storage_elsewhere_is_asked_for_as_much_as_goes_at_once(
    stored: list[bytes], retrieve: Callable[[], PagedResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = objects.read_range
    monkeypatch.setattr(FileReader, "_is_open", lambda *_: False)
    monkeypatch.setattr(objects, "read_range", lambda file, *span: asked.append(file.pk) or read(file, *span))
    monkeypatch.setattr(bodies, "GATHERED", 400)
    answer = retrieve()
    assert body_of(answer) == message_of(answer, stored)
    assert len(asked) == len(set(asked)) == len(stored)
