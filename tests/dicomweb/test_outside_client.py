"""DICOMweb as outside clients see it: Python's and JavaScript's dicomweb-client before a running Atrium."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient

from tests.factories import make_instance
from tests.services.atrium import ROOT, Atrium


@pytest.fixture(scope="module")
def client(atrium: Atrium) -> DICOMwebClient:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {atrium.token('radiologist')}"
    return DICOMwebClient(f"{atrium.url}/dicom-web", session=session)


def test_it_stores_finds_and_retrieves(client: DICOMwebClient) -> None:
    uids = {"StudyInstanceUID": "1.9.1", "SeriesInstanceUID": "1.9.1.1"}
    pixels = np.random.default_rng(3).integers(0, 4000, (2, 48, 64), dtype=np.uint16)
    sent = [
        pydicom.dcmread(BytesIO(make_instance(**uids, pixels=pixels, SOPInstanceUID=f"1.9.1.1.{n}", PatientID="OUT")))
        for n in (1, 2)
    ]
    stored = client.store_instances(sent)
    assert len(stored.ReferencedSOPSequence) == 2
    (study,) = client.search_for_studies(search_filters={"PatientID": "OUT"})
    assert study["0020000D"]["Value"] == ["1.9.1"]
    (series,) = client.search_for_series("1.9.1")
    assert series["0020000E"]["Value"] == ["1.9.1.1"]
    assert len(client.search_for_instances("1.9.1", "1.9.1.1")) == 2
    assert len(client.retrieve_series_metadata("1.9.1", "1.9.1.1")) == 2
    frames = client.retrieve_instance_frames("1.9.1", "1.9.1.1", "1.9.1.1.1", frame_numbers=[2, 1])
    assert frames == [pixels[1].tobytes(), pixels[0].tobytes()]
    back = client.retrieve_instance("1.9.1", "1.9.1.1", "1.9.1.1.2")
    assert back.PixelData == sent[1].PixelData
    assert len(client.retrieve_series("1.9.1", "1.9.1.1")) == 2
    rendered = client.retrieve_instance_rendered("1.9.1", "1.9.1.1", "1.9.1.1.1", media_types=("image/png",))
    assert rendered.startswith(b"\x89PNG")


def test_it_searches_with_all_that_the_client_can_ask(client: DICOMwebClient) -> None:
    files = [
        pydicom.dcmread(BytesIO(make_instance(StudyInstanceUID=f"1.9.8.{n}", PatientID=f"FIND{n}", PatientName=name)))
        for n, name in enumerate(("Weiß^Günther", "Weiss^Gunter", "Schwarz^Anna"))
    ]
    client.store_instances(files)

    def patients(**asked: Any) -> list[str]:
        return sorted(found["00100020"]["Value"][0] for found in client.search_for_studies(**asked))

    assert patients(search_filters={"PatientName": "Weis*"}) == ["FIND0", "FIND1"]
    assert patients(search_filters={"PatientName": "Wise"}, fuzzymatching=True) == ["FIND0", "FIND1"]
    assert patients(search_filters={"PatientID": "FIND?", "StudyDate": "20260901-"}) == ["FIND0", "FIND1", "FIND2"]
    assert patients(search_filters={"PatientID": "nobody"}) == []
    assert len(client.search_for_studies(search_filters={"PatientID": "FIND*"}, limit=2)) == 2
    assert len(client.search_for_studies(search_filters={"PatientID": "FIND*"}, limit=2, offset=2)) == 1
    (found,) = client.search_for_studies(search_filters={"PatientID": "FIND2"}, fields=["StudyDescription", "00101010"])
    assert pydicom.Dataset.from_json(found).StudyDescription == "CT thorax"
    assert len(client.search_for_series(search_filters={"PatientID": "FIND2"})) == 1
    assert len(client.search_for_instances(search_filters={"PatientID": "FIND2", "Modality": "CT"})) == 1


def test_every_readable_real_file_goes_in_by_stow_and_comes_back_bit_by_bit(
    shared: Path, atrium: Atrium, client: DICOMwebClient
) -> None:
    # At south, so that what other tests sent to north under these UIDs isn't met.
    headers: dict[str, Any] = {"Authorization": f"Bearer {atrium.token('southradiologist')}"}
    files = [p for p in sorted((shared / "dicom").rglob("*.dcm")) if "malformed" not in p.parts]
    assert len(files) > 60
    for path in files:
        content = path.read_bytes()
        sent = requests.post(
            f"{atrium.url}/dicom-web/studies",
            content,
            headers={**headers, "Content-Type": "application/dicom"},
            timeout=60,
        )
        assert sent.status_code == 200, (path.name, sent.text)
        address = sent.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
        back = requests.get(address, headers={**headers, "Accept": "application/dicom; transfer-syntax=*"}, timeout=60)
        assert back.content == content, path.name


@pytest.fixture(scope="module")
def client_of_javascript() -> list[str]:
    """Give the command of JavaScript's DICOMweb client, fetched by npm once, as its lock file pins it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm aren't installed")
    sources = Path(__file__).with_name("outside_client")
    pinned = hashlib.sha256((sources / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = ROOT / ".build" / f"outside-client-{pinned}"
    if not (folder / "node_modules" / ".package-lock.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(sources / name, folder)
        fetched = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if fetched.returncode:
            pytest.skip(f"npm can't fetch the client: {fetched.stderr[-300:]}")
    # Modules are looked for beside the script.
    shutil.copy(sources / "client.js", folder)
    return [node, str(folder / "client.js")]


def test_javascripts_client_and_dcmjs_store_find_and_read_all_forms(
    atrium: Atrium, client_of_javascript: list[str], tmp_path: Path
) -> None:
    uids = {
        "StudyInstanceUID": "1.9.20",
        "SeriesInstanceUID": "1.9.20.1",
        "PatientID": "NODE",
        "PatientName": "Weiß^Jö",
    }
    step = pydicom.Dataset()
    step.ScheduledProcedureStepID = "STEP"
    pixels = np.random.default_rng(7).integers(0, 4000, (2, 48, 64), dtype=np.uint16)
    for number in (1, 2):
        content = make_instance(
            **uids,
            pixels=pixels,
            SOPInstanceUID=f"1.9.20.1.{number}",
            InstanceNumber=number,
            PixelSpacing=[0.5, 0.25],
            RequestAttributesSequence=[step],
        )
        (tmp_path / f"{number}.dcm").write_bytes(content)
    files = [str(tmp_path / f"{number}.dcm") for number in (1, 2)]
    ran = subprocess.run(
        [*client_of_javascript, f"{atrium.url}/dicom-web", atrium.token("technologist"), *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    both = ["1.9.20.1.1", "1.9.20.1.2"]
    assert len(seen["stored"]["00081199"]["Value"]) == 2
    assert seen["studies"] == [["1.9.20", "CT thorax", "CT"]]
    assert seen["names"] == [["Weiß^Jö"], ["Weiß^Jö"] * 2, ["Weiß^Jö"] * 2]
    assert seen["series"] == [["1.9.20.1", "CT"]]
    assert seen["instances"] == [[uid, 48, 2] for uid in both]
    assert seen["metadata"] == [[uid, 48, 64, [0.5, 0.25]] for uid in both]
    assert seen["of"] == [both[0], "STEP"]
    assert sorted(seen["whole"]) == sorted(seen["retrieved"]) == both
    assert base64.b64decode(seen["pixels"]) == pixels.tobytes()
    assert [base64.b64decode(frame) for frame in seen["frames"]] == [pixels[1].tobytes(), pixels[0].tobytes()]
    assert [base64.b64decode(part) for part in seen["bulk"]] == [pixels.tobytes()]
    assert seen["png"] == "PNG"
    assert seen["nothing"] == 0
    assert seen["again"] == [f"{both[0]}.9", 48, ["Weiß^Jö"]]
