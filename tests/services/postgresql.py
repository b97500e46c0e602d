"""A real PostgreSQL for tests: ``python -m tests.services.postgresql COMMAND…`` runs a command beside one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.services.ports import free_port


class NotAvailable(RuntimeError):
    """The server can't be had on this machine; the message says why."""


def _binaries() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    raise NotAvailable("PostgreSQL isn't installed")


@contextmanager
def postgresql() -> Iterator[str]:
    """Start a server in a temporary folder and give its URL. Raises NotAvailable."""
    binaries = _binaries()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="atrium-postgresql-") as folder:
        # initdb refuses root; Debian's package brings the user postgres.
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data = f"{folder}/data"

        def run(*command: str) -> None:
            subprocess.run(
                command,
                check=True,
                user="postgres" if os.geteuid() == 0 else None,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

        run(f"{binaries}/initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(f"{binaries}/pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            run(f"{binaries}/createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "atrium")
            yield f"postgresql://postgres@127.0.0.1:{port}/atrium"
        finally:
            run(f"{binaries}/pg_ctl", "-D", data, "-m", "immediate", "stop")


@contextmanager
def own_database(url: str, *, template: str = "") -> Iterator[str]:
    """Make a database of one's own on the server of ``url``, give its URL, and drop it in the end."""
    name = f"own_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
    try:
        yield f"{url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def copied_database(url: str) -> str:
    """Copy the database of ``url``, which nobody else uses at the moment, and give the copy's name."""
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}_installed" TEMPLATE "{name}"')
    return f"{name}_installed"


if __name__ == "__main__":
    try:
        with postgresql() as url:
            sys.exit(
                subprocess.run(sys.argv[1:], env={**os.environ, "ATRIUM_DATABASE_URL": url}, check=False).returncode
            )
    except NotAvailable as reason:
        print(f"skipped: {reason}")
