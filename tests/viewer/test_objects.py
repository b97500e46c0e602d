"""What OHIF can't show has a page of ours."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import SegmentationStorage

from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
UID = "1.2.3"


def without_images(name: str) -> bytes:
    dataset = pydicom.dcmread(str(get_testdata_file(name)))
    dataset.StudyInstanceUID, dataset.PatientID = UID, "P1"
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def opened(browser: Any) -> str:
    return str(browser.get(f"/viewer/open/{UID}/").headers["Location"])


def test_a_study_without_images_opens_as_our_page_of_its_only_object(
    north: Any, ingest_files: Any, client_of: Any
) -> None:
    ingest_files(north, without_images("rtplan.dcm"))
    browser = client_of("radiologist")
    objects = opened(browser)
    assert objects.startswith(f"/studies/{UID}/objects/")
    page = browser.get(objects, follow=True).content.decode()
    assert "RT Plan Storage" in page
    assert 'class="is-beside"' in page, "it stands where the images would be"


def test_of_several_objects_the_list_comes_first(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, without_images("rtplan.dcm"), without_images("reportsi.dcm"))
    browser = client_of("radiologist")
    page = browser.get(opened(browser)).content.decode()
    assert page.count("?beside=1") == 2


@pytest.mark.parametrize("more", [{}, {"Modality": "SEG", "SOPClassUID": SegmentationStorage}])
def test_images_open_in_ohif_and_what_only_lies_over_images_doesnt(
    north: Any, ingest_files: Any, client_of: Any, more: dict[str, str]
) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID, **more))
    assert opened(client_of("radiologist")).startswith("/studies/" if more else "/viewer/viewer?")


def test_an_ecg_opens_in_ohif(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, without_images("waveform_ecg.dcm"))
    assert opened(client_of("radiologist")).startswith("/viewer/viewer?")


def test_the_frames_of_an_overlay_are_shown_one_by_one(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, without_images("liver.dcm"))
    browser = client_of("radiologist")
    page = browser.get(opened(browser), follow=True).content.decode()
    assert page.count("/rendered?accept=image/png") == 3
