"""A real Atrium for tests: own folder, own ports, real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.console import Console
from tests.services.migrated import migrated
from tests.services.ports import free_port
from tests.services.postgresql import copied_database, own_database

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 60
PEOPLE = "from tests.services.people import install; install()"


@dataclass
class Atrium:
    """A running installation with the demo's people, password ``tests.factories.PASSWORD``."""

    data: Path
    http_port: int
    dicom_port: int
    environment: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    scheme: str = "http"
    host: str = "127.0.0.1"
    console: Console | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.http_port}"

    def manage(self, *arguments: str) -> str:
        """Run ``manage.py`` with the arguments and give what it printed. Raises CalledProcessError."""
        with self.turn:
            if self.console is None or self.console.environment != self.environment:
                if self.console is not None:
                    self.console.close()
                self.console = Console(ROOT, self.environment)
            return self.console.run(*arguments)

    def token(self, username: str) -> str:
        """Give a new bearer token of the person."""
        return self.manage("create_api_token", username, "--name", "test").strip().splitlines()[-1]

    def start(self, *parts: str) -> None:
        """Start parts (web, dicom, worker, scheduler), each a process of its own, and wait until they listen."""
        for part in parts:
            log = (self.data / f"{part}.log").open("ab")
            self.processes[part] = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "serve", part, "--skip-checks"],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            log.close()
        if "web" in parts:
            self._wait_for_web()
        if "dicom" in parts:
            self._wait_for_port(self.dicom_port)

    def kill(self, part: str) -> None:
        """End a part at once, as a loss of power would."""
        process = self.processes.pop(part)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all parts in order."""
        if self.console is not None:
            self.console.close()
            self.console = None
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()

    def log(self, part: str) -> str:
        """Give what a part has written."""
        return (self.data / f"{part}.log").read_text()

    def _wait_for_web(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                # Whatever certificate a test has made for itself.
                trusting = ssl._create_unverified_context() if self.scheme == "https" else None
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=2, context=trusting):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(f"the web server didn't start:\n{self.log('web')[-3000:]}")

    def _wait_for_port(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise RuntimeError(f"the DICOM listener didn't start:\n{self.log('dicom')[-3000:]}")


@contextmanager
def running_atrium(data: Path, *parts: str, **environment: str) -> Iterator[Atrium]:
    """Make an installation in ``data`` and start the parts; everything is stopped at the end.

    Beside a PostgreSQL (tests.services.postgresql) it has a database there, else SQLite.
    """
    with ExitStack() as stack:
        url = os.environ.get("ATRIUM_DATABASE_URL", "")
        is_usual = not {"ATRIUM_DATABASE_URL", "ATRIUM_SECRET_KEY"} & environment.keys() and not any(data.glob("*"))
        if url.startswith("postgresql") and "ATRIUM_DATABASE_URL" not in environment:
            template = _database if is_usual and _folder is not None else ""
            environment["ATRIUM_DATABASE_URL"] = stack.enter_context(own_database(url, template=template))
        with _running(data, *parts, is_usual=is_usual, **environment) as atrium:
            yield atrium


# An installation with the demo's people as it is before its first start, and its database's name on PostgreSQL: making
# one takes as long as most tests do.
_folder: Path | None = None
_database = ""


def _install(atrium: Atrium, *, is_usual: bool) -> None:
    global _folder, _database
    if is_usual and _folder is not None:
        shutil.copytree(_folder, atrium.data, dirs_exist_ok=True)
        return
    if "ATRIUM_DATABASE_URL" not in atrium.environment:
        shutil.copyfile(migrated(), atrium.data / "atrium.sqlite3")
    atrium.manage("migrate", "--verbosity", "0")
    atrium.manage("shell", "--no-imports", "-c", PEOPLE)
    if is_usual:
        _folder = Path(tempfile.mkdtemp(prefix="atrium-test-")) / "installed"
        shutil.copytree(atrium.data, _folder)
        if url := atrium.environment.get("ATRIUM_DATABASE_URL"):
            _database = copied_database(url)


@contextmanager
def _running(data: Path, *parts: str, is_usual: bool, **environment: str) -> Iterator[Atrium]:
    data.mkdir(parents=True, exist_ok=True)
    atrium = Atrium(data, free_port(), free_port())
    atrium.environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ATRIUM_")},
        "ATRIUM_DATA": str(data),
        "ATRIUM_HTTP_PORT": str(atrium.http_port),
        "ATRIUM_DICOM_PORT": str(atrium.dicom_port),
        "ATRIUM_DICOM_HOST": "127.0.0.1",
        "ATRIUM_WEB_WORKERS": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    try:
        _install(atrium, is_usual=is_usual)
        atrium.start(*parts)
        yield atrium
    finally:
        atrium.stop()
