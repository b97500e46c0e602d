"""``make bench``: starts Atrium and Orthanc, loads both with the same CT, checks what comes back, prints ratios.

Authentication and audit are on for us and off for Orthanc. Machines are noisy: the ratios count, not the figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pydicom
import requests

from benchmarks import dimse
from portal.demo.studies import demo_studies
from tests.services.atrium import running_atrium
from tests.services.ports import free_port

STUDY_BOUNDARY = "bench"
BATCH = 20


@dataclass
class Peer:
    """A server under test: where its DICOMweb is, how to reach its C-STORE SCP, and its processes."""

    name: str
    root: str
    dicom_port: int
    ae_title: str
    pids: list[int]
    session: requests.Session = field(default_factory=requests.Session)

    def cpu_seconds(self) -> float:
        """Give the CPU time of the processes and all below them."""
        return sum(_cpu_seconds(pid) for pid in self.pids)


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100 + sum(_cpu_seconds(int(child)) for child in children)


@contextmanager
def orthanc(folder: Path) -> Iterator[Peer]:
    """Start Debian's Orthanc with DICOMweb, without authentication."""
    binary = shutil.which("Orthanc")
    if binary is None:
        sys.exit("Orthanc isn't installed: apt-get install orthanc orthanc-dicomweb")
    http_port, dicom_port = free_port(), free_port()
    configuration = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "AuthenticationEnabled": False,
        "Plugins": ["/usr/share/orthanc/plugins"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    process = subprocess.Popen(
        [binary, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", http_port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield Peer("Orthanc", f"http://127.0.0.1:{http_port}/dicom-web", dicom_port, "ORTHANC", [process.pid])
    finally:
        process.terminate()
        process.wait()


@dataclass
class Figure:
    """One measured figure: units of work a second and CPU milliseconds a unit."""

    per_second: float
    cpu_ms: float


def measure(peer: Peer, units: int, work: Callable[[], None]) -> Figure:
    """Time one piece of work that does ``units`` units."""
    cpu, start = peer.cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return Figure(units / seconds, (peer.cpu_seconds() - cpu) * 1000 / units)


def stow(peer: Peer, files: list[bytes], clients: int) -> None:
    """Store by STOW-RS, BATCH instances in a request."""
    batches = [files[n : n + BATCH] for n in range(0, len(files), BATCH)]

    def send(batch: list[bytes]) -> None:
        parts = [f"--{STUDY_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + f + b"\r\n" for f in batch]
        body = b"".join(parts) + f"--{STUDY_BOUNDARY}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={STUDY_BOUNDARY}'
        answer = peer.session.post(f"{peer.root}/studies", body, headers={"Content-Type": kind}, timeout=300)
        assert answer.status_code == 200, answer.text[:500]

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(send, batches))


def frames(peer: Peer, addresses: list[str], wanted: list[bytes], connections: int) -> None:
    """Fetch one frame of each instance and check its bytes."""
    accept = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}

    def fetch(job: tuple[str, bytes]) -> None:
        answer = peer.session.get(f"{peer.root}/{job[0]}/frames/1", headers=accept, timeout=120)
        assert job[1] in answer.content

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(fetch, zip(addresses, wanted, strict=True)))


def renamed(files: list[bytes], number: int) -> list[bytes]:
    """Give the same series under other UIDs, so that it's stored anew."""
    copies = []
    for content in files:
        dataset = pydicom.dcmread(BytesIO(content))
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"{getattr(dataset, keyword)[:58]}.{number}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        buffer = BytesIO()
        dataset.save_as(buffer)
        copies.append(buffer.getvalue())
    return copies


def storescu(peer: Peer, folder: Path) -> None:
    """Store a folder by dcmtk's storescu in one association."""
    binary = shutil.which("storescu")
    if binary is None:
        sys.exit("storescu isn't installed: apt-get install dcmtk")
    command = [binary, "-aet", "CT_NORTH", "-aec", peer.ae_title, "+sd", "127.0.0.1", str(peer.dicom_port)]
    subprocess.run([*command, str(folder)], check=True)


def run(peer: Peer, files: list[bytes], folders: list[Path]) -> dict[str, Figure]:
    """Do all the work with one peer."""
    count = len(files)
    first = pydicom.dcmread(BytesIO(files[0]))
    study, series = first.StudyInstanceUID, first.SeriesInstanceUID
    headers = [pydicom.dcmread(BytesIO(f)) for f in files]
    addresses = [f"studies/{study}/series/{series}/instances/{h.SOPInstanceUID}" for h in headers]
    pixels = [h.PixelData for h in headers]
    metadata = f"{peer.root}/studies/{study}/series/{series}/metadata"
    figures = {"STOW-RS, 1 client, instances/s": measure(peer, count, lambda: stow(peer, files, 1))}
    others = renamed(files, 7)
    figures["STOW-RS, 4 clients, instances/s"] = measure(peer, count, lambda: stow(peer, others, 4))
    figures["C-STORE, 1 association, instances/s"] = measure(peer, count, lambda: storescu(peer, folders[0]))

    def fetch_metadata(times: int) -> None:
        for _ in range(times):
            answer = peer.session.get(metadata, headers={"Accept": "application/dicom+json"}, timeout=120)
            assert len(answer.json()) == count

    figures["series metadata, first, /s"] = measure(peer, 1, lambda: fetch_metadata(1))
    figures["series metadata, again, /s"] = measure(peer, 10, lambda: fetch_metadata(10))
    for connections in (1, 8, 25):
        figures[f"frames, {connections} connections, /s"] = measure(
            peer, count, lambda n=connections: frames(peer, addresses, pixels, n)
        )

    def whole_study() -> None:
        accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        answer = peer.session.get(f"{peer.root}/studies/{study}", headers=accept, timeout=300)
        assert len(answer.content) > sum(map(len, pixels))

    figures["whole study, instances/s"] = measure(peer, count, whole_study)

    def search() -> None:
        for _ in range(50):
            (found,) = peer.session.get(f"{peer.root}/studies?StudyInstanceUID={study}", timeout=30).json()
            assert found["0020000D"]["Value"] == [study]

    figures["QIDO-RS by UID, /s"] = measure(peer, 50, search)
    return figures


def main() -> None:
    """Measure both and print a table; with ``dimse`` the DICOM network instead."""
    if sys.argv[1:2] == ["dimse"]:
        dimse.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    options = parser.parse_args()
    ct = next(s for s in demo_studies(ct_slices=options.slices) if s.instance_count == options.slices)
    files = list(ct.instances())
    with tempfile.TemporaryDirectory(prefix="atrium-bench-") as name:
        folder = Path(name)
        (folder / "ct").mkdir()
        for number, content in enumerate(renamed(files, 9)):
            (folder / "ct" / f"{number:04}.dcm").write_bytes(content)
        (folder / "orthanc").mkdir()
        with orthanc(folder / "orthanc") as peer:
            theirs = run(peer, files, [folder / "ct"])
        with running_atrium(folder / "atrium", "web", "dicom", ATRIUM_WEB_WORKERS="2") as atrium:
            pids = [process.pid for process in atrium.processes.values()]
            ours_peer = Peer("Atrium", f"{atrium.url}/dicom-web", atrium.dicom_port, "ATRIUM", pids)
            ours_peer.session.headers["Authorization"] = f"Bearer {atrium.token('radiologist')}"
            ours = run(ours_peer, files, [folder / "ct"])
    print(f"| {options.slices} slices | Orthanc | Atrium | ratio | CPU ms Orthanc | CPU ms Atrium |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title, figure in theirs.items():
        our = ours[title]
        print(
            f"| {title} | {figure.per_second:.1f} | {our.per_second:.1f} | {our.per_second / figure.per_second:.1f} "
            f"| {figure.cpu_ms:.1f} | {our.cpu_ms:.1f} |"
        )


if __name__ == "__main__":
    main()
