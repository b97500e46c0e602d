"""Real peers on free ports: dcmtk's storescp and dcmqrscp, Debian's Orthanc."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.services.ports import free_port

START_SECONDS = 30


def tool(name: str) -> str:
    """Give the path of a program; without it the test is skipped."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} isn't installed")
    return found


def wait_for_port(port: int) -> None:
    """Wait until somebody listens. Raises RuntimeError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens at port {port}")


@contextmanager
def storescp(folder: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """Run a storescp that writes what it gets to the folder; give its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [tool("storescp"), "-od", str(folder), "-aet", "STORESCP", *options, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def dcmqrscp(folder: Path, peer_port: int) -> Iterator[int]:
    """Run a dcmqrscp with AE title QRSCP; it knows us as ATRIUM at ``peer_port``. Give its port."""
    port = free_port()
    (folder / "store").mkdir(parents=True)
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nus = (ATRIUM, 127.0.0.1, {peer_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQRSCP {folder / 'store'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    command = [tool("dcmqrscp"), "-c", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait()


@dataclass
class Orthanc:
    """A running Orthanc, its AE title ORTHANC."""

    http_port: int
    dicom_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def put(self, content: bytes) -> None:
        """Put an instance in by its REST API."""
        requests.post(f"{self.url}/instances", data=content, timeout=30).raise_for_status()

    def instances(self) -> list[str]:
        """Give its own ids of all instances."""
        return list(requests.get(f"{self.url}/instances", timeout=30).json())

    def file(self, orthanc_id: str) -> bytes:
        """Give an instance's file."""
        return requests.get(f"{self.url}/instances/{orthanc_id}/file", timeout=30).content


@contextmanager
def orthanc(folder: Path, peer_port: int = 11112) -> Iterator[Orthanc]:
    """Run an Orthanc that knows us as ATRIUM at ``peer_port``."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Orthanc(free_port(), free_port())
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": running.http_port,
        "DicomPort": running.dicom_port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": ["/usr/share/orthanc/plugins"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full"},
        "DicomModalities": {"atrium": ["ATRIUM", "127.0.0.1", peer_port]},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(config))
    log = (folder / "log").open("wb")
    process = subprocess.Popen([tool("Orthanc"), str(path)], stdout=log, stderr=log)
    log.close()
    try:
        wait_for_port(running.http_port)
        wait_for_port(running.dicom_port)
        yield running
    finally:
        process.terminate()
        process.wait()
