"""``python -m benchmarks plane``: the DICOMweb data plane of Atrium beside Orthanc's, and how far nginx is.

The same generated data for both: a CT of 300 slices of 512×512, 50 small studies, an ultrasound of 60 frames. What
comes back is compared with what was sent. Authentication, audit and fsync are on for us and off for Orthanc.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pydicom
from pydicom.uid import UltrasoundMultiFrameImageStorage

from benchmarks.peers import Figure, Peer, atrium, fill_page_cache, measure, nginx, orthanc, settle, wrk
from tests.factories import make_instance

BATCH = 20
# As long as clients make them: the shorter it is, the more a server must look at to find it.
BOUNDARY = "0f8d6b6a4f0e4a0c9d7c1b2a3e4f5061"
FRAMES = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}
GZIP = {"Accept-Encoding": "gzip"}
DICOM = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
US_FRAMES = 60
# Half a second of work is measured so many times, and its median given; of whole studies one time has five.
TIMES, WHOLE = 7, 5
# As long as wrk runs, a few times are enough.
TURNS = 3
CONNECTIONS = (1, 8, 25)
CT_STUDY = "1.2.826.0.1.3680043.10.1.1"


def ct_series(slices: int, study: str, **patient: str) -> list[bytes]:
    """Give a CT of 512×512 slices, 16 bit: a bright cylinder in noise, with the geometry that a viewer needs."""
    noise = np.random.default_rng(1)
    y, x = np.mgrid[-256:256, -256:256]
    files = []
    for number in range(1, slices + 1):
        inside = (x**2 + y**2) < (90 + 60 * np.sin(number / 50)) ** 2
        pixels = (inside * 1040 + 24 + noise.integers(0, 60, (512, 512))).astype(np.uint16)
        files.append(
            make_instance(
                pixels=pixels,
                StudyInstanceUID=study,
                SeriesInstanceUID=f"{study}.1",
                SOPInstanceUID=f"{study}.1.{number}",
                FrameOfReferenceUID=f"{study}.2",
                **{"PatientID": "BENCH", **patient},
                InstanceNumber=number,
                ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
                ImagePositionPatient=[-180, -180, number],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[0.7, 0.7],
                SliceThickness=1,
                SliceLocation=number,
                RescaleIntercept=-1024,
                RescaleSlope=1,
                WindowCenter=40,
                WindowWidth=400,
                KVP=120,
                Manufacturer="Bench",
                AcquisitionNumber=1,
                ContentDate="20260901",
                ContentTime=f"1015{number % 60:02}",
                PatientPosition="HFS",
            )
        )
    return files


def message_of(files: list[bytes]) -> bytes:
    """Give a STOW-RS body of the files."""
    parts = [f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + f + b"\r\n" for f in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def store(peer: Peer, files: list[bytes], clients: int, batch: int = BATCH) -> Callable[[], None]:
    """Give the work of storing the files, the bodies made beforehand."""
    bodies = [message_of(files[n : n + batch]) for n in range(0, len(files), batch)]
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'

    def send(body: bytes) -> None:
        answer = peer.session.post(f"{peer.root}/studies", body, headers={"Content-Type": kind}, timeout=300)
        assert answer.status_code == 200, answer.text[:500]

    def work() -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(send, bodies))

    return work


def fetch_all(peer: Peer, paths: list[str], wanted: list[bytes], connections: int) -> None:
    """Fetch each frame by a Python client and compare its bytes."""

    def fetch(job: tuple[str, bytes]) -> None:
        answer = peer.session.get(f"{peer.root}{job[0]}", headers=FRAMES, timeout=120)
        assert job[1] in answer.content

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(fetch, zip(paths, wanted, strict=True)))


def in_turns(
    peers: list[Peer], folder: Path, units: int, work_of: Callable[[Peer, int], Callable[[], None]]
) -> list[Figure]:
    """Measure short work of the peers TIMES times in turns, so that a slow minute is everyone's; give medians."""
    runs: list[list[Figure]] = [[] for _ in peers]
    for number in range(TIMES):
        for place in range(len(peers)):
            turn = (place + number) % len(peers)
            work = work_of(peers[turn], number)
            settle(*peers)
            fill_page_cache(folder)
            runs[turn].append(measure(peers[turn], units, work))
    return [median(of) for of in runs]


def median(runs: list[Figure]) -> Figure:
    """Give the medians of several runs of the same work."""
    return Figure(statistics.median(r.per_second for r in runs), statistics.median(r.cpu_ms for r in runs))


def run_in_turns(
    peers: list[Peer], folder: Path, ct: list[bytes], us: bytes
) -> tuple[list[dict[str, Figure]], dict[str, float]]:
    """Store, and retrieve whole studies: half a second of work, which one slow moment of the machine spoils.

    Beside the peers' figures stands how many megabytes a second of the same study, as one file, nginx sends.
    """
    count, figures = len(ct), [dict[str, Figure]() for _ in peers]
    study = pydicom.dcmread(BytesIO(ct[0])).StudyInstanceUID
    pixels = [pydicom.dcmread(BytesIO(f)).PixelData for f in ct]
    for peer in peers:
        # Neither's start is measured.
        store(peer, [us], 1)()
        store(peer, ct, 1)()
    for clients in (1, 4):
        title = f"STOW-RS, {clients} client{'s' if clients > 1 else ''}, instances"
        measured = in_turns(
            peers,
            folder,
            count,
            lambda peer, number, clients=clients: store(peer, ct_series(count, f"{study}.{clients}{number}"), clients),
        )
        for known, figure in zip(figures, measured, strict=True):
            known[title] = figure
    megabytes = WHOLE * sum(map(len, ct)) // 1_000_000
    before = [peer.resident_megabytes() for peer in peers]
    (folder / "www" / "studies").mkdir(parents=True)
    (folder / "www" / "studies" / study).write_bytes(message_of(ct))
    with nginx(folder / "nginx-whole", f"root {folder}/www;") as port:
        files = Peer("nginx", f"http://127.0.0.1:{port}", [])
        measured = in_turns([*peers, files], folder, megabytes, lambda peer, _: lambda: _whole(peer, study, pixels))
    of_nginx = measured.pop()
    for known, figure, peer, megabytes_before in zip(figures, measured, peers, before, strict=True):
        known["whole study, MB"] = figure
        print(
            f"  {peer.name}: {peer.resident_megabytes() - megabytes_before:+.0f} MB of memory for the whole study",
            flush=True,
        )
    return figures, {"whole study, MB": of_nginx.per_second}


def frame_paths(ct: list[bytes]) -> list[str]:
    """Give the path of each file's frame below the service."""
    headers = [pydicom.dcmread(BytesIO(f), stop_before_pixels=True) for f in ct]
    return [
        f"/studies/{h.StudyInstanceUID}/series/{h.SeriesInstanceUID}/instances/{h.SOPInstanceUID}/frames/1"
        for h in headers
    ]


def run(peer: Peer, ct: list[bytes], small: list[bytes], us: bytes) -> dict[str, Figure]:
    """Do what is done once with one peer, which has the series already."""
    figures: dict[str, Figure] = {}
    headers = [pydicom.dcmread(BytesIO(f)) for f in ct]
    series_path = f"/studies/{headers[0].StudyInstanceUID}/series/{headers[0].SeriesInstanceUID}"
    paths, pixels = frame_paths(ct), [h.PixelData for h in headers]
    count = len(ct)

    settle(peer)
    figures["STOW-RS, 50 small studies, 4 clients"] = measure(peer, len(small), store(peer, small, 4, 1))

    def metadata(times: int) -> None:
        for _ in range(times):
            answer = peer.session.get(
                f"{peer.root}{series_path}/metadata", headers={"Accept": "application/dicom+json"}, timeout=120
            )
            assert len(answer.content) > 1000

    # Once the series has been quiet for a few seconds, as when a person comes to read it.
    time.sleep(12)
    answer = peer.session.get(f"{peer.root}{series_path}/metadata", timeout=120).json()
    assert sorted(i["00080018"]["Value"][0] for i in answer) == sorted(str(h.SOPInstanceUID) for h in headers)
    figures["series metadata, 300 instances"] = measure(peer, 5, lambda: metadata(5))

    figures["frames, Python client, 8 connections"] = measure(peer, count, lambda: fetch_all(peer, paths, pixels, 8))
    movie = pydicom.dcmread(BytesIO(us))
    movie_path = (
        f"/studies/{movie.StudyInstanceUID}/series/{movie.SeriesInstanceUID}/instances/{movie.SOPInstanceUID}/frames/"
    )
    length = len(movie.PixelData) // US_FRAMES
    wanted = [movie.PixelData[n * length : (n + 1) * length] for n in range(US_FRAMES)]
    numbers = [f"{movie_path}{n + 1}" for n in range(US_FRAMES)]
    figures["ultrasound frames, Python client, 8 connections"] = measure(
        peer, US_FRAMES, lambda: fetch_all(peer, numbers, wanted, 8)
    )
    for title, figure in figures.items():
        print(f"  {peer.name}: {title}: {figure.per_second:.1f}/s, {figure.cpu_ms:.2f} ms", flush=True)
    return figures


def _whole(peer: Peer, study: str, pixels: list[bytes]) -> None:
    for _ in range(WHOLE):
        with peer.session.get(f"{peer.root}/studies/{study}", headers=DICOM, timeout=300, stream=True) as answer:
            size = sum(len(chunk) for chunk in answer.iter_content(1 << 20))
        assert size > sum(map(len, pixels))


def frames_in_turns(
    peers: list[Peer], folder: Path, ct: list[bytes], seconds: int
) -> tuple[list[dict[str, Figure]], dict[str, float]]:
    """Have wrk fetch the frames from the peers and, as files of the same bytes, from nginx: TURNS times, medians.

    nginx is asked between the peers, as what a machine can do differs from minute to minute.
    """
    (folder / "www").mkdir(parents=True)
    for number, content in enumerate(ct):
        (folder / "www" / f"{number}").write_bytes(content[-512 * 512 * 2 :] + b"-" * 200)
    figures, most = [dict[str, Figure]() for _ in peers], dict[str, float]()
    paths, files = frame_paths(ct), [f"/{number}" for number in range(len(ct))]
    with nginx(folder, f"root {folder}/www;") as port:
        for connections in CONNECTIONS:
            plain = f"frames, wrk, {connections} connections"
            zipped = f"frames, wrk as browsers ask, {connections} connections"
            runs: list[dict[str, list[Figure]]] = [{plain: [], zipped: []} for _ in peers]
            of_nginx = []
            for _ in range(TURNS):
                for peer, of_peer in zip(peers, runs, strict=True):
                    of_peer[plain].append(_frames(peer, folder, paths, FRAMES, connections, seconds))
                of_nginx.append(wrk(folder, port, files, {}, connections, seconds) / seconds)
                for peer, of_peer in zip(peers, runs, strict=True):
                    of_peer[zipped].append(_frames(peer, folder, paths, FRAMES | GZIP, connections, seconds))
            most[plain] = statistics.median(of_nginx)
            for known, peer, of_peer in zip(figures, peers, runs, strict=True):
                known |= {title: median(of) for title, of in of_peer.items()}
                ratios = (f.per_second / nginx_s for f, nginx_s in zip(of_peer[plain], of_nginx, strict=True))
                print(f"  {peer.name}: {plain}, of nginx: {', '.join(f'{r:.2f}' for r in ratios)}", flush=True)
    return figures, most


def _frames(peer: Peer, folder: Path, paths: list[str], headers: dict[str, str], connections: int, n: int) -> Figure:
    root, port = urlsplit(peer.root).path, urlsplit(peer.root).port
    assert port is not None
    given = {name: str(value) for name, value in peer.session.headers.items() if name == "Authorization"}
    cpu = peer.cpu_seconds()
    done = wrk(folder, port, [root + path for path in paths], headers | given, connections, n)
    return Figure(done / n, (peer.cpu_seconds() - cpu) * 1000 / max(done, 1))


def limit(folder: Path, ct: list[bytes]) -> dict[str, float]:
    """Give how many files a second the machine makes durable at most."""
    folder.mkdir(parents=True)
    return {
        "STOW-RS, 1 client, instances": _durable(folder / "one", ct, 1),
        "STOW-RS, 4 clients, instances": _durable(folder / "four", ct, 4),
    }


def _durable(folder: Path, ct: list[bytes], threads: int) -> float:
    """Do nothing but write the files, each with its own fdatasync; give files a second."""
    folder.mkdir()

    def write(number: int) -> None:
        with (folder / str(number)).open("wb", buffering=0) as file:
            file.write(ct[number])
            os.fdatasync(file.fileno())

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(len(ct))))
    return len(ct) / (time.perf_counter() - start)


def main(arguments: list[str] | None = None) -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks plane", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    options = parser.parse_args(arguments)
    ct = ct_series(options.slices, CT_STUDY)
    small = [make_instance(PatientID=f"S{n}") for n in range(50)]
    movie = np.random.default_rng(1).integers(0, 255, (US_FRAMES, 480, 320), dtype=np.uint16)
    us = make_instance(pixels=movie, Modality="US", SOPClassUID=UltrasoundMultiFrameImageStorage, PatientID="US")
    with tempfile.TemporaryDirectory(prefix="atrium-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        peers = [
            stack.enter_context(orthanc(folder / "orthanc")),
            stack.enter_context(atrium(folder / "atrium")),
        ]
        (theirs, ours), most = run_in_turns(peers, folder, ct, us)
        for peer, figures in zip(peers, (theirs, ours), strict=True):
            figures |= run(peer, ct, small, us)
        settle(*peers)
        by_wrk, frames_most = frames_in_turns(peers, folder / "nginx", ct, options.seconds)
        for figures, frames in zip((theirs, ours), by_wrk, strict=True):
            figures |= frames
        most |= frames_most | limit(folder / "durable", ct)
    print(f"| {options.slices} slices, units/s | Orthanc | Atrium | ratio | CPU ms/unit Orthanc | Atrium | limit |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for title, figure in theirs.items():
        our = ours[title]
        physical = f"{most[title]:.0f} ({our.per_second / most[title]:.2f})" if title in most else ""
        print(
            f"| {title} | {figure.per_second:.1f} | {our.per_second:.1f} | {our.per_second / figure.per_second:.1f} "
            f"| {figure.cpu_ms:.2f} | {our.cpu_ms:.2f} | {physical} |"
        )
