"""``python -m benchmarks queries``: how searches grow with the archive, beside Orthanc, every answer checked.

Archives of growing size are made in bulk in SQLite and in PostgreSQL, and as tiny instances in Orthanc; the same
QIDO-RS queries go to each over HTTP, one after another on one connection. Authentication and audit are on for us and
off for Orthanc. Percentiles are of wall time as the client sees it; CPU is that of the server's processes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from benchmarks.peers import Peer, orthanc
from benchmarks.synthetic_archive import FAMILIES, FIRST_DAY, SyntheticStudy, all_studies
from tests.services.atrium import ROOT, Atrium, running_atrium
from tests.services.postgresql import NotAvailable, postgresql

PAGE = 50
ROUNDS = 200
OUR_SIZES = (1_000, 10_000, 100_000)
LARGE_SIZES = (1_000, 10_000, 100_000, 1_000_000)
THEIR_SIZES = (1_000, 5_000, 20_000)
PICTURE = ROOT / "docs" / "benchmarks" / "queries.svg"
QUERIES = ("patient id", "accession number", "name prefix", "dates and modality", "page in the middle", "all fields")


@dataclass
class Timing:
    """One kind of query on one archive: milliseconds of wall time, and of the server's CPU per query."""

    peer: str
    studies: int
    query: str
    p50: float
    p95: float
    slowest: float
    cpu: float


@dataclass
class Question:
    """A query's parameters and the Study Instance UIDs that answer it; in order only where an order was asked for."""

    parameters: dict[str, str]
    expected: list[str]
    in_order: bool = True


def questions(kind: str, count: int, rounds: int) -> Iterator[Question]:
    """Give random questions of a kind with their answers, the same ones for every peer."""
    chance = random.Random(f"{kind} {count}")
    ordered = all_studies(count)
    by_patient: dict[int, list[SyntheticStudy]] = {}
    by_name: dict[str, list[SyntheticStudy]] = {}
    by_day: dict[date, list[SyntheticStudy]] = {}
    for study in ordered:
        by_patient.setdefault(study.patient, []).append(study)
        by_name.setdefault(study.patient_name.split("^")[0], []).append(study)
        by_day.setdefault(study.day, []).append(study)
    for _ in range(rounds):
        study = ordered[chance.randrange(count)]
        if kind in {"patient id", "all fields"}:
            extra = {"includefield": "all"} if kind == "all fields" else {}
            yield Question({"PatientID": study.patient_id, **extra}, [s.uid for s in by_patient[study.patient]])
        elif kind == "accession number":
            yield Question({"AccessionNumber": study.accession_number}, [study.uid])
        elif kind == "name prefix":
            family = study.patient_name.split("^")[0]
            found = [s for name in FAMILIES if name.startswith(family) for s in by_name.get(name, ())]
            found.sort(key=lambda s: (s.day, s.number), reverse=True)
            yield Question({"PatientName": f"{family}*", "limit": str(PAGE)}, [s.uid for s in found[:PAGE]])
        elif kind == "dates and modality":
            first = FIRST_DAY + timedelta(days=chance.randrange(3590))
            last = first + timedelta(days=6)
            days = [first + timedelta(days=n) for n in range(6, -1, -1)]
            found = [s for day in days for s in by_day.get(day, ()) if "MR" in s.modalities]
            parameters = {"StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}", "ModalitiesInStudy": "MR", "limit": str(PAGE)}
            yield Question(parameters, [s.uid for s in found[:PAGE]])
        else:
            offset = chance.randrange(count // 4, count * 3 // 4)
            expected = [s.uid for s in ordered[offset : offset + PAGE]]
            yield Question({"limit": str(PAGE), "offset": str(offset)}, expected)


def measured(peer: Peer, count: int, rounds: int) -> list[Timing]:
    """Ask every kind of question and check every answer. Raises AssertionError for a wrong one."""
    timings = []
    for kind in QUERIES:
        asked = list(questions(kind, count, rounds + 5))
        for question in asked[:5]:
            _ask(peer, question)
        cpu, took = peer.cpu_seconds(), []
        for question in asked[5:]:
            took.append(_ask(peer, question))
        took.sort()
        timing = Timing(
            *(peer.name, count, kind, took[len(took) // 2], took[int(len(took) * 0.95)], took[-1]),
            cpu=(peer.cpu_seconds() - cpu) * 1000 / rounds,
        )
        print(
            f"{timing.peer:>22} {count:>9,} {kind:<20} p50 {timing.p50:7.1f}  p95 {timing.p95:7.1f}  "
            f"slowest {timing.slowest:7.1f}  CPU {timing.cpu:6.1f} ms",
            flush=True,
        )
        timings.append(timing)
    return timings


def _ask(peer: Peer, question: Question) -> float:
    """Ask one question and give the milliseconds it took. Orthanc gives no order, so that only ours is held to one."""
    start = time.perf_counter()
    answer = peer.session.get(
        f"{peer.root}/studies",
        params=question.parameters,
        headers={"Accept": "application/dicom+json"},
        timeout=300,
    )
    took = (time.perf_counter() - start) * 1000
    assert answer.status_code in {200, 204}, (answer.status_code, answer.text[:300])
    found = [study["0020000D"]["Value"][0] for study in answer.json()] if answer.content else []
    if peer.name.startswith("Atrium"):
        assert found == question.expected, (question.parameters, len(found), len(question.expected))
        assert all(study["00080050"]["Value"] for study in (answer.json() if answer.content else []))
    elif len(found) != len(question.expected):
        print(f"  {peer.name} gives {len(found)} of {len(question.expected)} for {question.parameters}", flush=True)
    return took


def _instance(study: SyntheticStudy, number: int, modality: str) -> bytes:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = f"{study.uid}.{number}.1"
    dataset.StudyInstanceUID = study.uid
    dataset.SeriesInstanceUID = f"{study.uid}.{number}"
    dataset.PatientName = study.patient_name
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyDate, dataset.StudyTime = f"{study.day:%Y%m%d}", f"{study.at:%H%M%S}"
    dataset.AccessionNumber, dataset.StudyID = study.accession_number, str(study.number)
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = modality, number + 1, 1
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    file = pydicom.FileDataset(None, dataset, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def fill_orthanc(peer: Peer, start: int, count: int) -> None:
    """Load studies ``start`` to ``count`` by Orthanc's REST interface, 4 at a time."""
    address = peer.root.replace("/dicom-web", "/instances")

    def send(number: int) -> None:
        study = SyntheticStudy(number)
        for place, modality in enumerate(study.modalities):
            answer = peer.session.post(address, _instance(study, place, modality), timeout=60)
            assert answer.status_code == 200, answer.text[:300]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(start, count)))


@contextmanager
def our_archive(folder: Path, count: int, name: str, **environment: str) -> Iterator[Peer]:
    """Start Atrium with an archive of ``count`` studies."""
    with running_atrium(folder, ATRIUM_WEB_WORKERS="2", **environment) as atrium:
        _fill(atrium, count)
        atrium.start("web")
        pids = [process.pid for process in atrium.processes.values()]
        peer = Peer(name, f"{atrium.url}/dicom-web", pids)
        peer.session.headers["Authorization"] = f"Bearer {atrium.token('radiologist')}"
        yield peer


def _fill(atrium: Atrium, count: int) -> None:
    command = [sys.executable, "-m", "benchmarks.synthetic_archive", str(count)]
    subprocess.run(command, env=atrium.environment, cwd=ROOT, check=True)


def run(
    *, our_sizes: tuple[int, ...], large_sizes: tuple[int, ...], their_sizes: tuple[int, ...], rounds: int
) -> list[Timing]:
    """Measure everything, one archive after another."""
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory(prefix="atrium-queries-") as name:
        folder = Path(name)
        for count in our_sizes:
            with our_archive(folder / f"sqlite-{count}", count, "Atrium, SQLite") as peer:
                timings += measured(peer, count, rounds)
        for count in large_sizes:
            try:
                with (
                    postgresql() as url,
                    our_archive(
                        folder / f"postgresql-{count}", count, "Atrium, PostgreSQL", ATRIUM_DATABASE_URL=url
                    ) as peer,
                ):
                    timings += measured(peer, count, rounds)
            except NotAvailable as reason:
                print(f"skipped: {reason}")
                break
        if their_sizes:
            (folder / "orthanc").mkdir()
            with orthanc(folder / "orthanc") as peer:
                loaded = 0
                for count in their_sizes:
                    fill_orthanc(peer, loaded, count)
                    loaded = count
                    timings += measured(peer, count, max(20, rounds // 5))
    return timings


def table(timings: list[Timing]) -> str:
    """Give the figures as a Markdown table."""
    lines = ["| server | studies | query | p50 ms | p95 ms | CPU ms |", "| --- | ---: | --- | ---: | ---: | ---: |"]
    lines += [f"| {t.peer} | {t.studies:,} | {t.query} | {t.p50:.1f} | {t.p95:.1f} | {t.cpu:.1f} |" for t in timings]
    return "\n".join(lines)


def ratios(timings: list[Timing]) -> str:
    """Give how many times longer Orthanc's largest archive takes than our largest, as a Markdown table."""
    theirs = [t for t in timings if t.peer == "Orthanc"]
    if not theirs:
        return ""
    at = max(t.studies for t in theirs)
    lines = [
        f"| query | Orthanc at {at:,}, p50 ms | ours at 100,000 (SQLite), p50 ms | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for query in QUERIES:
        their = next(t for t in theirs if t.studies == at and t.query == query)
        our = [t for t in timings if t.peer == "Atrium, SQLite" and t.query == query]
        if our:
            lines.append(f"| {query} | {their.p50:.1f} | {our[-1].p50:.1f} | {their.p50 / our[-1].p50:.1f} |")
    return "\n".join(lines)


def draw(timings: list[Timing], path: Path) -> None:
    """Draw how the p50 and p95 of each kind of query grow with the archive."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(2, 3, figsize=(13, 7), sharex=True)
    colours = {"Atrium, SQLite": "#1f6feb", "Atrium, PostgreSQL": "#1a7f37", "Orthanc": "#bf3989"}
    for plot, query in zip(plots.flat, QUERIES, strict=True):
        for peer, colour in colours.items():
            rows = sorted((t for t in timings if t.peer == peer and t.query == query), key=lambda t: t.studies)
            if rows:
                sizes = [t.studies for t in rows]
                plot.plot(sizes, [t.p50 for t in rows], "o-", color=colour, label=f"{peer}, p50")
                plot.plot(sizes, [t.p95 for t in rows], "o--", color=colour, alpha=0.5, label=f"{peer}, p95")
        plot.set_xscale("log")
        plot.set_yscale("log")
        plot.set_title(query)
        plot.grid(visible=True, which="both", alpha=0.2)
    for plot in plots[-1]:
        plot.set_xlabel("studies in the archive")
    for plot in plots[:, 0]:
        plot.set_ylabel("milliseconds")
    figure.legend(*plots.flat[0].get_legend_handles_labels(), loc="lower center", ncols=3)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    """Measure, print tables, draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks queries", description=__doc__)
    sizes: Callable[[str], tuple[int, ...]] = lambda text: tuple(int(n) for n in text.split(",") if n)  # noqa: E731
    parser.add_argument("--sqlite", type=sizes, default=OUR_SIZES, help="sizes, comma separated")
    parser.add_argument("--postgresql", type=sizes, default=LARGE_SIZES)
    parser.add_argument("--orthanc", type=sizes, default=THEIR_SIZES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--figures", type=Path, help="keep the figures as JSON; those of earlier runs there are kept")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    timings = run(
        our_sizes=options.sqlite, large_sizes=options.postgresql, their_sizes=options.orthanc, rounds=options.rounds
    )
    if options.figures:
        if options.figures.exists():
            measured_now = {(t.peer, t.studies) for t in timings}
            earlier = [Timing(**row) for row in json.loads(options.figures.read_text())]
            timings = [t for t in earlier if (t.peer, t.studies) not in measured_now] + timings
        options.figures.write_text(json.dumps([asdict(t) for t in timings], indent=1))
    print(table(timings))
    print(ratios(timings))
    draw(timings, options.picture)


if __name__ == "__main__":
    main()
