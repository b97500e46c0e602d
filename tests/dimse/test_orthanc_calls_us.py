"""Orthanc as our client: it stores, searches and retrieves on real files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
import requests
from pydicom.data import get_testdata_file

from tests.services.atrium import Atrium
from tests.services.dicom_peers import Orthanc, orthanc

NODE = """
from accounts.models import Site
from studies.dimse.models import Node
Node.objects.update_or_create(ae_title="ORTHANC", defaults=dict(site=Site.objects.get(slug="north"),
    host="127.0.0.1", port={port}, may_store=True, may_query=True, may_retrieve=True))
"""
# Without group lengths, which dcmtk in Orthanc writes anew when it sends.
FILES = ("CT_small.dcm", "MR_small.dcm", "SC_rgb_jpeg_gdcm.dcm")


def call(peer: Orthanc, path: str, body: object) -> requests.Response:
    answer = requests.post(f"{peer.url}/{path}", json=body, timeout=60)
    answer.raise_for_status()
    return answer


def without_padding(content: bytes) -> pydicom.Dataset:
    """Give the data set as dcmtk sends it: without the padding at its end."""
    dataset = pydicom.Dataset(pydicom.dcmread(BytesIO(content)))
    if "DataSetTrailingPadding" in dataset:
        del dataset.DataSetTrailingPadding
    return dataset


def test_orthanc_stores_searches_and_gets_the_same_back(atrium: Atrium, tmp_path: Path) -> None:
    with orthanc(tmp_path, atrium.dicom_port) as peer:
        atrium.manage("shell", "--no-imports", "-c", NODE.format(port=peer.dicom_port))
        originals = {}
        for name in FILES:
            content = Path(get_testdata_file(name)).read_bytes()
            originals[str(pydicom.dcmread(BytesIO(content)).SOPInstanceUID)] = content
            peer.put(content)
        sent = {peer_id: peer.file(peer_id) for peer_id in peer.instances()}
        call(peer, "modalities/atrium/store", list(sent))
        for peer_id in sent:
            requests.delete(f"{peer.url}/instances/{peer_id}", timeout=30).raise_for_status()
        assert peer.instances() == []
        for content in originals.values():
            study = pydicom.dcmread(BytesIO(content)).StudyInstanceUID
            query = {"Level": "Study", "Query": {"StudyInstanceUID": study, "PatientName": ""}}
            found = call(peer, "modalities/atrium/query", query).json()["ID"]
            assert requests.get(f"{peer.url}/queries/{found}/answers", timeout=30).json() == ["0"]
            call(peer, f"queries/{found}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
        # Other tests put more into the same studies of the server that all share.
        back = {peer_id: peer.file(peer_id) for peer_id in sent}
        assert {k: without_padding(v) for k, v in back.items()} == {k: without_padding(v) for k, v in sent.items()}
