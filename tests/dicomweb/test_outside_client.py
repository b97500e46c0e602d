"""DICOMweb as an outside client sees it: PyPI's dicomweb-client before a running Atrium."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient

from tests.factories import make_instance
from tests.services.atrium import Atrium


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
        back = requests.get(address, headers={**headers, "Accept": "application/dicom"}, timeout=60)
        assert back.content == content, path.name
