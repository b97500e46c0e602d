"""WADO-URI (PS3.18 §9): every parameter, and honest refusals."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from studies.models import Instance
from tests.dicomweb.retrieving import SERIES, STUDY, UIDS, body_of
from tests.factories import make_instance

pytestmark = pytest.mark.django_db
PIXELS = np.stack(
    [np.kron(np.array([[0, 100], [200, 300]]), np.ones((30, 40))).astype(np.uint16), np.zeros((60, 80), np.uint16)]
)


@pytest.fixture
def get(north: Any, ingest_files: Any, client_of: Callable[[str], Client]) -> Callable[..., Any]:
    content = make_instance(**UIDS, SOPInstanceUID="1.2.3.4.5", pixels=PIXELS, WindowCenter=150.5, WindowWidth=301)
    ingest_files(north, content)
    browser = client_of("radiologist")

    def ask(**parameters: str) -> Any:
        return browser.get(
            "/wado",
            {"requestType": "WADO", "studyUID": STUDY, "seriesUID": SERIES, "objectUID": "1.2.3.4.5", **parameters},
        )

    return ask


def picture(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, body_of(answer)
    return np.asarray(Image.open(BytesIO(answer.content)))


def test_dicom_as_stored_and_transcoded(get: Any) -> None:
    stored = get(contentType="application/dicom")
    assert pydicom.dcmread(BytesIO(body_of(stored))).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    other = get(contentType="application/dicom", transferSyntax=JPEG2000Lossless)
    assert pydicom.dcmread(BytesIO(body_of(other))).file_meta.TransferSyntaxUID == JPEG2000Lossless
    refused = get(contentType="application/dicom", transferSyntax="1.2.3")
    assert (refused.status_code, refused.json()["available"]) == (406, ["application/dicom"])
    assert get(contentType="application/dicom", rows="10").status_code == 400


def test_a_picture_by_default(get: Any) -> None:
    assert get()["Content-Type"] == "image/jpeg"
    assert get(contentType="image/jp2, image/png;q=0.5")["Content-Type"] == "image/png"
    assert get(contentType="image/jp2").status_code == 406


def test_frame_size_window_and_region(get: Any) -> None:
    png = {"contentType": "image/png"}
    assert picture(get(**png, frameNumber="2")).max() == 0
    assert get(**png, frameNumber="3").status_code == 404
    assert get(**png, frameNumber="0").status_code == 400
    assert picture(get(**png, frameNumber="1", rows="30")).shape == (30, 40)
    assert picture(get(**png, frameNumber="1", columns="20")).shape == (15, 20)
    assert picture(get(**png, frameNumber="1", rows="10", columns="80")).shape == (10, 13)
    assert picture(get(**png, frameNumber="1", windowCenter="1000", windowWidth="10")).max() == 0
    assert get(**png, windowCenter="1000").status_code == 400
    part = picture(get(**png, frameNumber="1", region="0.5,0.5,1,1"))
    assert part.shape == (30, 40)
    assert part.min() == 255
    assert get(**png, region="0.5,0.5,0.2,1").status_code == 400
    assert get(**png, region="x").status_code == 400


def test_quality_annotation_and_charset(get: Any) -> None:
    assert len(get(frameNumber="1", imageQuality="5").content) < len(get(frameNumber="1", imageQuality="100").content)
    assert get(imageQuality="200").status_code == 400
    assert not np.array_equal(
        picture(get(contentType="image/png", frameNumber="2", annotation="patient")),
        picture(get(contentType="image/png", frameNumber="2")),
    )
    assert get(charset="utf-8").status_code == 200
    assert get(charset="iso-8859-1").status_code == 406


def test_anonymizing_is_refused_honestly(get: Any) -> None:
    assert get(contentType="application/dicom", anonymize="yes").status_code == 501
    assert get(contentType="application/dicom", anonymize="no").status_code == 200
    assert get(anonymize="perhaps").status_code == 400


@pytest.mark.parametrize("missing", ["requestType", "studyUID", "seriesUID", "objectUID"])
def test_what_is_needed_is_asked_for(missing: str, get: Any) -> None:
    assert get(**{missing: ""}).status_code == 400


def test_what_isnt_there_is_404(get: Any) -> None:
    assert get(objectUID="1.2.9").status_code == 404
    assert Instance.objects.count() == 1
