"""``python -m benchmarks dimse``: C-STORE, C-GET, C-MOVE and C-FIND of Atrium beside Orthanc, by dcmtk's tools.

Both get the same files; both sink what C-MOVE sends into dcmtk's storescp, which throws it away. We make every object
durable before success is said, keep an audit trail and check who calls; Orthanc, as Debian sets it up, does neither.
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
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom

from portal.demo.studies import demo_studies
from tests.services.atrium import running_atrium
from tests.services.ports import free_port

CALLING, SINK = "BENCH", "SINK"
NODES = """
from accounts.models import Site
from studies.dimse.models import Node
site = Site.objects.get(slug="north")
Node.objects.create(ae_title="BENCH", site=site, may_query=True, may_retrieve=True)
Node.objects.create(ae_title="SINK", site=site, host="127.0.0.1", port={port}, may_receive=True)
"""
FILL = """
from datetime import date, timedelta
from accounts.models import Site
from studies.models import Patient, Study
site = Site.objects.get(slug="north")
for start in range(0, {count}, 5000):
    numbers = range(start, min(start + 5000, {count}))
    patients = Patient.objects.bulk_create(
        Patient(site=site, identity=f"|F{{n}}", patient_id=f"F{{n}}", patient_name=f"Filler^{{n}}") for n in numbers)
    Study.objects.bulk_create(
        Study(site=site, patient=p, study_instance_uid=f"1.2.826.0.1.3680043.9.1.{{n}}", patient_id_value=f"F{{n}}",
              patient_name=f"Filler^{{n}}", patient_name_search=f"FILLER^{{n}}", accession_number=f"FA{{n}}",
              study_date=date(2000, 1, 1) + timedelta(days=n % 9000), modalities_in_study="CT")
        for n, p in zip(numbers, patients, strict=True))
"""


@dataclass
class Peer:
    """A server under test."""

    ae_title: str
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Give the CPU time of the process and all below it."""
        return _cpu_seconds(self.pid)


@dataclass
class Figure:
    """One measured figure: units of work a second and the server's CPU milliseconds a unit."""

    per_second: float
    cpu_ms: float


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = {child for task in tasks for child in (task / "children").read_text().split()}
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100 + sum(_cpu_seconds(int(child)) for child in children)


def tool(name: str) -> str:
    """Give a tool's path, or end with the package that has it."""
    found = shutil.which(name)
    if found is None:
        sys.exit(f"{name} isn't installed: apt-get install dcmtk orthanc")
    return found


def wait_for(port: int) -> None:
    """Wait until something listens. Raises RuntimeError."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"nothing listens at {port}")


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the end of the block."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


@contextmanager
def orthanc(folder: Path, sink_port: int) -> Iterator[Peer]:
    """Start Debian's Orthanc, open to everyone."""
    http_port, dicom_port = free_port(), free_port()
    configuration = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomModalities": {"sink": [SINK, "127.0.0.1", sink_port], "bench": [CALLING, "127.0.0.1", 1]},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    with process(tool("Orthanc"), str(path)) as running:
        wait_for(dicom_port)
        yield Peer("ORTHANC", dicom_port, running.pid)


def measure(peer: Peer, units: int, work: Callable[[], None]) -> Figure:
    """Time one piece of work that does ``units`` units."""
    cpu, start = peer.cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return Figure(units / seconds, (peer.cpu_seconds() - cpu) * 1000 / units)


def run(peer: Peer, folder: Path, count: int) -> dict[str, Figure]:
    """Do all the work with one peer; ``folder`` holds ``one`` and ``four/0`` to ``3``."""
    call = ["-aet", CALLING, "-aec", peer.ae_title, "127.0.0.1", str(peer.port)]
    study = pydicom.dcmread(next((folder / "one").iterdir()), stop_before_pixels=True).StudyInstanceUID

    def store(*folders: Path) -> None:
        senders = [subprocess.Popen([tool("storescu"), "+sd", *call, str(f)]) for f in folders]
        assert all(sender.wait() == 0 for sender in senders)

    def tell(name: str, *arguments: str) -> None:
        done = subprocess.run([tool(name), *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def find(times: int) -> None:
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "-k", "PatientName"]
        tell("findscu", "-S", "--repeat", str(times), *call, *keys)

    retrieve = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    quarters = sorted((folder / "four").iterdir())
    total = sum(len(list(q.iterdir())) for q in quarters)
    return {
        "C-STORE, 1 association, instances/s": measure(peer, count, lambda: store(folder / "one")),
        "C-STORE, 4 associations, instances/s": measure(peer, total, lambda: store(*quarters)),
        "C-GET, instances/s": measure(peer, count, lambda: tell("getscu", "-S", "--ignore", *call, *retrieve)),
        "C-MOVE, instances/s": measure(peer, count, lambda: tell("movescu", "-S", "-aem", SINK, *call, *retrieve)),
        "C-FIND of one study, /s": measure(peer, 200, lambda: find(200)),
    }


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


def write(folder: Path, files: list[bytes]) -> None:
    """Write the files into a new folder."""
    folder.mkdir(parents=True)
    for number, content in enumerate(files):
        (folder / f"{number:04}.dcm").write_bytes(content)


def main(arguments: list[str] | None = None) -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks dimse", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--studies", type=int, default=0, help="so many other studies lie in Atrium for C-FIND")
    parser.add_argument("--only-atrium", action="store_true")
    options = parser.parse_args(arguments)
    ct = next(s for s in demo_studies(ct_slices=options.slices) if s.instance_count == options.slices)
    files = list(ct.instances())
    sink_port = free_port()
    with tempfile.TemporaryDirectory(prefix="atrium-bench-") as name:
        folder = Path(name)
        write(folder / "one", renamed(files, 1))
        for number in range(4):
            write(folder / "four" / str(number), renamed(files, 2 + number)[number::2])
        (folder / "orthanc").mkdir()
        theirs: dict[str, Figure] = {}
        with process(tool("storescp"), "--ignore", "-pdu", "131072", "-aet", SINK, str(sink_port)):
            wait_for(sink_port)
            if not options.only_atrium:
                with orthanc(folder / "orthanc", sink_port) as peer:
                    theirs = run(peer, folder, options.slices)
            with running_atrium(folder / "atrium", "dicom") as atrium:
                atrium.manage("shell", "--no-imports", "-c", NODES.format(port=sink_port))
                if options.studies:
                    atrium.manage("shell", "--no-imports", "-c", FILL.format(count=options.studies))
                ours = run(Peer("ATRIUM", atrium.dicom_port, atrium.processes["dicom"].pid), folder, options.slices)
    print(f"| {options.slices} slices | Orthanc | Atrium | ratio | CPU ms Orthanc | CPU ms Atrium |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title, our in ours.items():
        their = theirs.get(title, Figure(float("nan"), float("nan")))
        print(
            f"| {title} | {their.per_second:.1f} | {our.per_second:.1f} | {our.per_second / their.per_second:.1f} "
            f"| {their.cpu_ms:.1f} | {our.cpu_ms:.1f} |"
        )


if __name__ == "__main__":
    main()
