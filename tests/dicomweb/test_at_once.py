"""Frames on the event loop: what a thread would send, and nothing where that takes a query, a disk or long."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from django.http import StreamingHttpResponse

from accounts import credentials
from portal.audit import viewing
from portal.audit.models import AuditEvent, ViewingWindow
from portal.audit.services import flush_counts, forget_recorded
from portal.storage import DurableFileSystemStorage
from portal.threads import Answer, ThreadedDjango
from studies.archive.deletion import delete_instances
from studies.archive.rejection import Reason
from studies.dicomweb import fast_path
from studies.ingest.rejection import reject_instances
from studies.models import Instance, Study
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY, SERIES = "1.2.3", "1.2.3.4"
ACCEPT = b"multipart/related; type=application/octet-stream; transfer-syntax=*"
PIXELS = np.random.default_rng(1).integers(0, 60000, (3, 32, 48), dtype=np.uint16)


def is_in_memory(path: Path) -> bool:
    """Say whether the kernel gives the file's first byte without a disk."""
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except OSError:
            return False


def forget_pages(path: Path) -> None:
    """Have the kernel drop what it holds of the file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture(autouse=True)
def _however_slow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "REMEMBERED", 600.0)
    now = time.time()
    monkeypatch.setattr(viewing, "time", SimpleNamespace(time=lambda: now, monotonic=time.monotonic))


@pytest.fixture(autouse=True)
def _inside_the_tests_own_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    # A server's thread gives its connection back between requests; this one holds the test's transaction.
    monkeypatch.setattr(fast_path, "close_old_connections", lambda: None)


@pytest.fixture(autouse=True)
def series(north: Any, ingest_files: Callable[..., Any], tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.write_bytes(b"x")
    if not is_in_memory(probe):
        pytest.skip("this file system can't say what is in memory")
    uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}
    ingest_files(
        north, *(make_instance(pixels=PIXELS + n, SOPInstanceUID=f"{SERIES}.{n}", **uids) for n in range(1, 4))
    )


@pytest.fixture
def token(token_of: Callable[[str], str]) -> str:
    return token_of("radiologist")


def asking(token: str, number: int = 1, frames: str = "1", **headers: str) -> dict[str, Any]:
    """Give the scope of a request for frames."""
    given = {"host": "testserver", "authorization": f"Bearer {token}", "x-request-id": "one-and-the-same", **headers}
    return {
        "method": "GET",
        "path": f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{number}/frames/{frames}",
        "query_string": b"",
        "scheme": "http",
        "client": ("127.0.0.1", 5000),
        "headers": [(b"accept", ACCEPT), *((name.encode(), value.encode()) for name, value in given.items())],
    }


@pytest.fixture
def begin(token: str, django_capture_on_commit_callbacks: Any) -> Callable[[], None]:
    """Fetch one frame in a thread's way, which has the trail begin and remembers where all of the series lie."""

    def fetch() -> None:
        with django_capture_on_commit_callbacks(execute=True):
            assert fast_path.answer(asking(token)) is not None

    return fetch


@pytest.mark.parametrize("frames", ["1", "3,1,3"])
def test_the_neighbours_of_a_frame_are_answered_without_a_query(
    frames: str, token: str, begin: Callable[[], None], django_assert_num_queries: Any
) -> None:
    assert fast_path.answer_at_once(asking(token)) is None
    begin()
    for number in (1, 2, 3):
        in_a_thread = fast_path.answer(asking(token, number, frames))
        with django_assert_num_queries(0):
            at_once = fast_path.answer_at_once(asking(token, number, frames))
        assert isinstance(at_once, Answer)
        assert at_once == in_a_thread
        for frame in frames.split(","):
            assert (PIXELS[int(frame) - 1] + number).tobytes() in at_once.body


def test_where_frames_lie_is_looked_for_once(
    token: str, begin: Callable[[], None], django_assert_num_queries: Any
) -> None:
    begin()
    with django_assert_num_queries(1):
        fast_path.answer(asking(token, 2))


def test_what_the_machine_has_to_read_from_disk_is_left_to_a_thread(
    token: str, begin: Callable[[], None], tmp_path: Path
) -> None:
    begin()
    probe = tmp_path / "probe"
    forget_pages(probe)
    if is_in_memory(probe):
        pytest.skip("this file system keeps its files in memory")

    def is_left() -> bool:
        credentials.forget_all()
        begin()
        for path in filter(Path.is_file, (tmp_path / "objects").rglob("*")):
            forget_pages(path)
        return fast_path.answer_at_once(asking(token)) is None

    # A disk may be there before the kernel has looked whether it is.
    assert any(is_left() for _ in range(20))
    # One file alone says little of the others.
    begin()
    assert fast_path.answer_at_once(asking(token)) is not None


def test_a_series_that_is_on_disk_is_left_to_threads_for_now(
    token: str, begin: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin()
    asked: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(fast_path.objects, "read_at_once", lambda _, offset, __: asked.append(offset))
        for _ in range(fast_path.MANY_MISSES + 5):
            assert fast_path.answer_at_once(asking(token)) is None
            begin()
    # The next file's name might be on disk, too: the event loop opens no more of them, whatever memory holds by now.
    assert len(asked) == fast_path.MANY_MISSES
    assert fast_path.answer_at_once(asking(token)) is None


def test_what_takes_long_to_copy_is_left_to_a_thread(
    token: str, begin: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin()
    monkeypatch.setattr(fast_path, "LARGEST_AT_ONCE", PIXELS[0].nbytes)
    assert fast_path.answer_at_once(asking(token, frames="1")) is not None
    assert fast_path.answer_at_once(asking(token, frames="1,2")) is None
    monkeypatch.setattr(fast_path, "LARGEST_AT_ONCE", 1 << 20)
    assert fast_path.answer_at_once(asking(token, frames=",".join("1" * 8))) is not None
    assert fast_path.answer_at_once(asking(token, frames=",".join("1" * 9))) is None


@pytest.mark.parametrize(
    ("number", "frames", "headers"),
    [
        (9, "1", {}),
        (1, "4", {}),
        (1, "0", {}),
        (1, "1,,2", {}),
        (1, "1", {"accept": "image/jpeg"}),
        (1, "1", {"range": "bytes=0-9"}),
        (1, "1", {"authorization": "Bearer atrium_void"}),
        (1, "1", {"authorization": ""}),
        (1, "1", {"user-agent": "another program"}),
    ],
)
def test_everything_else_is_left_to_a_thread(
    number: int, frames: str, headers: dict[str, str], token: str, begin: Callable[[], None]
) -> None:
    begin()
    assert fast_path.answer_at_once(asking(token, number, frames, **headers)) is None


def test_who_may_not_see_the_study_gets_nothing_that_another_was_sent(
    token: str, begin: Callable[[], None], token_of: Callable[[str], str]
) -> None:
    begin()
    stranger = token_of("southradiologist")
    assert fast_path.answer(asking(stranger)) is None
    assert fast_path.answer_at_once(asking(stranger)) is None


def test_a_viewing_that_the_trail_does_not_know_yet_is_left_to_a_thread(token: str, begin: Callable[[], None]) -> None:
    begin()
    forget_recorded()
    assert fast_path.answer_at_once(asking(token)) is None


def test_each_frame_is_counted(token: str, begin: Callable[[], None]) -> None:
    begin()
    for _ in range(2):
        assert fast_path.answer_at_once(asking(token, frames="1,2")) is not None
    flush_counts()
    window = ViewingWindow.objects.get(action=AuditEvent.Action.RETRIEVE)
    assert (window.frames, window.octets) == (5, 5 * PIXELS[0].nbytes)


@pytest.mark.parametrize("is_deleted", [True, False])
def test_what_is_deleted_or_rejected_is_forgotten_at_once_in_the_same_process(
    is_deleted: bool,
    token: str,
    begin: Callable[[], None],
    people: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    begin()
    with django_capture_on_commit_callbacks(execute=True):
        one = Instance.objects.filter(sop_instance_uid=f"{SERIES}.1")
        if is_deleted:
            delete_instances(study=Study.objects.get(), instances=one, principal=principal_of(people["admin"]))
        else:
            reject_instances(
                study=Study.objects.get(),
                instances=one,
                reason=Reason.PATIENT_SAFETY,
                principal=principal_of(people["technologist"]),
            )
    assert fast_path.answer_at_once(asking(token)) is None
    assert fast_path.answer(asking(token, 2)) is not None
    assert fast_path.answer(asking(token)) is None
    assert fast_path.answer_at_once(asking(token)) is None


def test_what_was_looked_for_before_it_was_forgotten_is_not_remembered() -> None:
    remembered: credentials.Remembered[int] = credentials.Remembered()
    since = remembered.generation
    remembered.clear()
    remembered.put("key", 1, since=since)
    assert remembered.get("key") is None
    remembered.put("key", 2, since=remembered.generation)
    assert remembered.get("key") == 2


def test_a_file_system_that_cannot_tell_what_is_in_memory_is_not_asked_again() -> None:
    processes = DurableFileSystemStorage(location="/proc")
    assert processes.may_read_at_once
    assert not processes.read_at_once("version", 0, memoryview(bytearray(5)))
    assert not processes.may_read_at_once


def test_of_what_is_asked_for_by_head_nothing_is_made() -> None:
    sent: list[Any] = []
    made: list[bytes] = []

    def body() -> Iterator[bytes]:
        made.append(b"a piece")
        yield made[-1]

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"} if sent else {"type": "http.request"}

    async def ask(method: str) -> None:
        streamed = [lambda _: StreamingHttpResponse(body())]
        django = ThreadedDjango(threads=1, uploads=None, shortcuts=streamed)  # type: ignore[arg-type]
        await django({**asking(""), "method": method}, receive, send)

    asyncio.run(ask("HEAD"))
    assert [message.get("body") for message in sent] == [None, b""]
    assert not made


def test_what_is_answered_at_once_enters_no_thread() -> None:
    def named(scope: Any) -> Answer:
        return Answer(200, [], threading.current_thread().name.encode())

    def asked(**shortcuts: Any) -> bytes:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        django = ThreadedDjango(threads=1, uploads=None, **shortcuts)  # type: ignore[arg-type]
        asyncio.run(django(asking(""), receive, send))
        body: bytes = sent[-1]["body"]
        return body

    assert asked(at_once=[named]) == threading.main_thread().name.encode()
    assert asked(at_once=[lambda scope: None], shortcuts=[named]).startswith(b"request")
