"""The servers that are measured: Atrium, Orthanc and, as the physical limit, nginx with the same bytes as files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.services.atrium import running_atrium
from tests.services.ports import free_port


@dataclass
class Peer:
    """A server under test: where its DICOMweb is, and its processes."""

    name: str
    root: str
    pids: list[int]
    session: requests.Session = field(default_factory=requests.Session)

    def cpu_seconds(self) -> float:
        """Give the CPU time of the processes and all below them."""
        return sum(_cpu_seconds(pid) for pid in self.pids)

    def resident_megabytes(self) -> float:
        """Give the memory of the largest process."""
        return max(_resident(pid) for pid in self.pids) / 1024


@dataclass
class Figure:
    """One measured figure: units of work a second and CPU milliseconds of the server a unit."""

    per_second: float
    cpu_ms: float


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return own + sum(_cpu_seconds(child) for child in _children(pid))
    except FileNotFoundError:
        return 0.0


def _resident(pid: int) -> int:
    try:
        own = int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
        return max([own, *(_resident(child) for child in _children(pid))])
    except (FileNotFoundError, IndexError):
        return 0


def fill_page_cache(folder: Path) -> None:
    """Let what memory is free hold a file's pages, as it does on a machine that's been up for days.

    A virtual machine's host may take free memory back, and lend each page anew when it's written: that costs more than
    all else that a server does to store a file, and differs from minute to minute.
    """
    free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemFree"))
    path = folder / f"pages-{time.monotonic_ns()}"
    with path.open("wb") as file:
        file.truncate(int(free.split()[1]) * 1024)
    with path.open("rb", buffering=0) as file:
        piece = bytearray(1 << 20)
        while file.readinto(piece):
            pass


def needed(name: str, package: str) -> str:
    """Give the path of a program, or end with the name of Debian's package that brings it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        sys.exit(f"{name} isn't installed: apt-get install {package}")
    return path


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"nothing listens on port {port}")


# CPU seconds in a second, of a peer that does nothing but wait.
IDLE = 0.1
QUIET_SECONDS = 6


@contextmanager
def orthanc(folder: Path) -> Iterator[Peer]:
    """Start Debian's Orthanc with DICOMweb, without authentication."""
    folder.mkdir(parents=True, exist_ok=True)
    http_port = free_port()
    configuration = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http_port,
        "DicomPort": free_port(),
        "AuthenticationEnabled": False,
        "Plugins": ["/usr/share/orthanc/plugins"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    process = subprocess.Popen(
        [needed("Orthanc", "orthanc orthanc-dicomweb"), str(folder / "orthanc.json")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(http_port)
        yield Peer("Orthanc", f"http://127.0.0.1:{http_port}/dicom-web", [process.pid])
    finally:
        process.terminate()
        process.wait()


@contextmanager
def atrium(folder: Path, **environment: str) -> Iterator[Peer]:
    """Start Atrium as it's delivered: authentication, audit and fsync on, web and worker."""
    with running_atrium(folder, "web", "worker", "scheduler", ATRIUM_WEB_WORKERS="2", **environment) as running:
        pids = [running.processes[part].pid for part in ("web", "worker")]
        peer = Peer("Atrium", f"{running.url}/dicom-web", pids)
        peer.session.headers["Authorization"] = f"Bearer {running.token('radiologist')}"
        yield peer


@contextmanager
def nginx(folder: Path, servers: str) -> Iterator[int]:
    """Start nginx with the body of a ``server`` block and give its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root, nginx would give its workers to a user who can't read the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} worker_processes 2; pid {folder}/pid; error_log {folder}/error; daemon off; events {{}}"
        f"http {{ access_log off; sendfile on; keepalive_requests 1000000; {temporary}"
        f"include /etc/nginx/mime.types; default_type application/octet-stream;"
        f"server {{ listen 127.0.0.1:{port}; {servers} }} }}"
    )
    process = subprocess.Popen([needed("nginx", "nginx"), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def settle(*peers: Peer) -> None:
    """Wait until the peers have done what they do after the last request, a minute at most.

    Atrium lets a series rest for three seconds before it builds its metadata, so one quiet second says nothing.
    """
    quiet = 0
    for _ in range(60):
        cpu = [peer.cpu_seconds() for peer in peers]
        time.sleep(1)
        is_quiet = all(peer.cpu_seconds() - before < IDLE for peer, before in zip(peers, cpu, strict=True))
        quiet = quiet + 1 if is_quiet else 0
        if quiet == QUIET_SECONDS:
            return


def measure(peer: Peer, units: int, work: Callable[[], None]) -> Figure:
    """Time one piece of work that does ``units`` units."""
    cpu, start = peer.cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return Figure(units / seconds, (peer.cpu_seconds() - cpu) * 1000 / units)


def wrk(folder: Path, port: int, paths: list[str], headers: dict[str, str], connections: int, seconds: int) -> int:
    """Fetch the paths round and round with wrk; give how many requests were answered. Ends on any error answer."""
    pairs = ",".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in headers.items())
    addresses = ",".join(json.dumps(path) for path in paths)
    script = folder / "wrk.lua"
    script.write_text(
        f"local p={{{addresses}}} local h={{{pairs}}} local n=0 "
        "request=function() n=n%#p+1 return wrk.format('GET',p[n],h) end"
    )
    command = [needed("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "60", "-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True)
    assert "Non-2xx" not in done.stdout, done.stdout
    return int(next(line.split()[0] for line in done.stdout.splitlines() if "requests in" in line))
