"""The S3 backend against a server over real HTTP: one client for all threads, ranges, what is missing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from werkzeug.serving import WSGIRequestHandler

from portal import storage as storage_module
from portal.environment import object_storage
from portal.storage import DurableFileSystemStorage, RangedS3Storage
from tests.services.s3 import s3_bucket

CONTENT = os.urandom(300_000)
THREADS, READS = 16, 25


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RangedS3Storage]:
    """Give a bucket that holds one object, on a server that keeps connections open."""
    monkeypatch.setattr(WSGIRequestHandler, "protocol_version", "HTTP/1.1")
    with s3_bucket() as url:
        storage = RangedS3Storage(**object_storage(url)["OPTIONS"])
        staged = tmp_path / "staged"
        staged.write_bytes(CONTENT)
        storage.place("a/b.dcm", staged)
        assert not staged.exists()
        yield storage
        storage.client.close()


def test_many_threads_read_ranges_by_one_client_over_few_connections(
    storage: RangedS3Storage, caplog: pytest.LogCaptureFixture
) -> None:
    clients = set()
    together = threading.Barrier(THREADS)

    def read(number: int) -> None:
        together.wait(10)
        for n in range(READS):
            offset = (number * READS + n) * 700
            assert storage.read_range("a/b.dcm", offset, 700) == CONTENT[offset : offset + 700]
        clients.add(storage.client)

    with caplog.at_level(logging.DEBUG, "urllib3.connectionpool"), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, range(THREADS)))
    assert len(clients) == 1
    opened = [record for record in caplog.records if record.getMessage().startswith("Starting new HTTP connection")]
    answered = [record for record in caplog.records if '"GET ' in record.getMessage()]
    assert len(answered) == THREADS * READS
    # Every thread may have needed one at the same moment, no read another.
    assert len(opened) <= THREADS
    assert not [record for record in caplog.records if "pool is full" in record.getMessage()]


def test_what_is_not_there_is_told_as_files_tell_it(storage: RangedS3Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_range("a/none.dcm", 0, 10)
    with pytest.raises(FileNotFoundError):
        storage.open_object("a/none.dcm")
    with pytest.raises(EOFError):
        storage.read_range("a/b.dcm", len(CONTENT) - 10, 20)
    with pytest.raises(EOFError):
        storage.read_range("a/b.dcm", len(CONTENT) + 10, 20)
    assert storage.read_range("a/b.dcm", len(CONTENT), 0) == b""


def test_an_object_is_streamed_and_removed(storage: RangedS3Storage) -> None:
    with storage.open_object("a/b.dcm") as stream:
        assert stream.read(1000) == CONTENT[:1000]
    storage.delete("a/b.dcm")
    assert not storage.exists("a/b.dcm")
    storage.delete("a/b.dcm")


def test_the_kernel_takes_the_call_that_begins_to_write_a_file(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.write_bytes(bytes(1 << 20))
    with staged.open("rb") as file:
        assert storage_module._sync_file_range(file.fileno(), 0, 0, 2) == 0
    DurableFileSystemStorage(location=str(tmp_path)).begin_writing(staged)
