"""Writers of all processes wait in one line for SQLite."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.db import DatabaseError

from portal.sqlite import base
from portal.sqlite.base import DatabaseWrapper

OPTIONS = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"}
DIES_WRITING = """
import fcntl, os, sys
lock = open(sys.argv[1], "ab")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.sqlite3"


@pytest.fixture
def database(path: Path, django_db_blocker: Any) -> Iterator[DatabaseWrapper]:
    with django_db_blocker.unblock():
        database = opened(path)
        with database.cursor() as cursor:
            cursor.execute("CREATE TABLE counted (number integer UNIQUE)")
        yield database
        database.close()


def opened(path: Path, timeout: float = 0.05) -> DatabaseWrapper:
    settings = dict.fromkeys(("USER", "PASSWORD", "HOST", "PORT"), "")
    return DatabaseWrapper(
        {
            **settings,
            "NAME": str(path),
            "OPTIONS": {**OPTIONS, "timeout": timeout},
            "TIME_ZONE": None,
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": False,
            "AUTOCOMMIT": True,
            "ATOMIC_REQUESTS": False,
        },
        alias=str(path),
    )


def write(database: DatabaseWrapper, number: int, seconds: float = 0) -> None:
    """Write in a transaction that lasts a while, as :func:`django.db.transaction.atomic` would."""
    database.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    try:
        with database.cursor() as cursor:
            cursor.execute("INSERT INTO counted VALUES (%s)", [number])
        time.sleep(seconds)
        database.commit()
    except BaseException:
        database.rollback()
        raise
    finally:
        database.set_autocommit(True)


def is_nobodys_turn(path: Path) -> bool:
    with Path(f"{path}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def numbers(database: DatabaseWrapper) -> list[int]:
    with database.cursor() as cursor:
        cursor.execute("SELECT number FROM counted ORDER BY number")
        return [number for (number,) in cursor.fetchall()]


def test_many_writers_wait_for_each_other_longer_than_sqlite_would(database: DatabaseWrapper, path: Path) -> None:
    def write_some(first: int) -> None:
        own = opened(path)
        for number in range(first, first + 10):
            write(own, number, seconds=0.01)
        own.close()

    writers = [Thread(target=write_some, args=(n * 10,)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert numbers(database) == list(range(80)), "none was told that the database is locked"


def test_a_turn_ends_with_the_transaction_however_that_ends(database: DatabaseWrapper, path: Path) -> None:
    write(database, 1)
    assert is_nobodys_turn(path)
    with pytest.raises(DatabaseError):
        write(database, 1)
    assert is_nobodys_turn(path)
    database.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    assert not is_nobodys_turn(path)
    database.close()
    assert is_nobodys_turn(path)


def test_a_turn_that_cannot_begin_is_given_up(database: DatabaseWrapper, path: Path) -> None:
    # A program that knows nothing of the lock, as a backup does.
    other = opened(path)
    with other.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match="locked"):
            write(database, 1)
        assert is_nobodys_turn(path)
        cursor.execute("ROLLBACK")
    other.close()
    write(database, 2)
    assert numbers(database) == [2]


def test_time_in_the_line_counts_so_that_a_line_ends_together(
    database: DatabaseWrapper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "LEAST_TIMEOUT", 0.1)
    refused = []

    def be_refused() -> None:
        own = opened(path, timeout=1.0)
        with pytest.raises(DatabaseError, match="locked"):
            write(own, 1)
        refused.append(time.monotonic() - begun_at)
        with own.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout")
            assert cursor.fetchone() == (1000,)
        own.close()

    with database.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        begun_at = time.monotonic()
        writers = [Thread(target=be_refused) for _ in range(5)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        cursor.execute("ROLLBACK")
    assert len(refused) == 5
    assert min(refused) > 0.9
    assert max(refused) < 2.5, "not five times as long"


def test_who_dies_in_its_turn_loses_it(database: DatabaseWrapper, path: Path) -> None:
    arguments = [sys.executable, "-c", DIES_WRITING, f"{path}.lock"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        assert not is_nobodys_turn(path)
        other.stdin.close()
        write(database, 1)
    assert numbers(database) == [1]


def test_without_the_lock_sqlites_own_waiting_does(database: DatabaseWrapper, path: Path) -> None:
    Path(f"{path}.lock").unlink(missing_ok=True)
    Path(f"{path}.lock").mkdir()
    write(database, 1)
    assert numbers(database) == [1]
