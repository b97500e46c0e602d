"""Places in a report's words lead to the images that they mean, also where numbers are not unique."""

from __future__ import annotations

from typing import Any

import pytest

from studies.findings.models import ImageFinding
from studies.findings.places import places_in
from studies.models import Instance, Study
from tests.factories import make_instance
from tests.reports.desk import DESK, UID, sign, write

pytestmark = [pytest.mark.django_db, pytest.mark.database]
PLACE = "series 2, image 5"


def sop_of(series: str, image: int) -> str:
    return Instance.objects.get(series__series_instance_uid=series, instance_number=image).sop_instance_uid


@pytest.fixture
def study(north: Any, ingest_files: Any) -> Study:
    """Give a study with two series of number 2, a series of frames, and a prior that has a series 2, too."""
    for series, description in (("1.2.1", "Lung"), ("1.2.2", "Soft tissue")):
        for image in (4, 5):
            ingest_files(
                north,
                make_instance(
                    StudyInstanceUID=UID,
                    SeriesInstanceUID=series,
                    SeriesNumber=2,
                    SeriesDescription=description,
                    InstanceNumber=image,
                ),
            )
    ingest_files(
        north,
        make_instance(StudyInstanceUID=UID, SeriesInstanceUID="1.2.3", SeriesNumber=3, InstanceNumber=1),
        make_instance(
            StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1", SeriesNumber=9, InstanceNumber=1, StudyDate="20250901"
        ),
    )
    return Study.objects.get(study_instance_uid=UID)


def measured(study: Study, people: Any, sop_instance_uid: str, text: str) -> ImageFinding:
    return ImageFinding.objects.create(
        study=study,
        kind="measurement",
        author=people["radiologist"],
        tracking_identifier=text,
        series_instance_uid="1.2.2",
        sop_instance_uid=sop_instance_uid,
        series_number=2,
        instance_number=5,
        text=text,
    )


def meant(study: Study, text: str) -> list[list[str]]:
    return [[image.sop_instance_uid for image in place.images] for place in places_in(study, text, Study.objects.all())]


def test_a_place_leads_to_its_image_and_nowhere_else(study: Study) -> None:
    only = Instance.objects.get(series__series_instance_uid="1.2.3").sop_instance_uid
    assert meant(study, "A cyst (Series 3, image 1).") == [[only]]
    assert meant(study, "In series 3, image 77 and series 9, image 1; series 3, image 1, frame 2.") == [[], [], []]
    assert meant(study, "series of 3, image noise, series 33333333333, image 1") == []


def test_of_two_series_with_one_number_the_measured_one_is_meant(study: Study, people: Any) -> None:
    lung, soft = sop_of("1.2.1", 5), sop_of("1.2.2", 5)
    assert meant(study, f"Nodule ({PLACE}).") == [[lung, soft]]
    measured(study, people, soft, "9.1 mm")
    text = (
        f"Nodule, as before 9.1 mm ({PLACE}). Another one, of 19.1 mm ({PLACE}).\nEdited: solid, 9.1 mm wide ({PLACE})"
    )
    assert meant(study, text) == [[soft], [lung, soft], [soft]]


def test_the_signed_report_has_the_links_and_keeps_its_words(study: Study, people: Any, client_of: Any) -> None:
    soft = sop_of("1.2.2", 5)
    measured(study, people, soft, "9.1 mm")
    browser = client_of("radiologist")
    browser.post(f"{DESK}/start/")
    write(browser, findings=f"<b>Nodule</b> & 9.1 mm ({PLACE}).", impression=f"See {PLACE}.")
    sign(browser)
    page = browser.get(f"{DESK}/").content.decode()
    image = f'data-jump data-study="{UID}" data-sop="{soft}" data-frame="1"'
    link = f'<a href="/studies/{UID}/?sop={soft}&amp;frame=1" {image}'
    assert f"&lt;b&gt;Nodule&lt;/b&gt; &amp; 9.1 mm ({link}" in page
    assert page.count("data-jump") == 1 + 3, "the impression's place may be of either series: both are offered"
    assert ">Soft tissue" not in page
    assert 'title="Soft tissue"' in page


def test_frames_are_named_where_there_are_several(people: Any, study: Study) -> None:
    finding = measured(study, people, "1", "1 mm")
    assert finding.place == PLACE
    finding.frame_number = 7
    assert finding.place == f"{PLACE}, frame 7"
