"""Which picture stands in OHIF's place until OHIF has drawn: the one that OHIF will show first, or none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from django.db import connection
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    SegmentationStorage,
    UltrasoundMultiFrameImageStorage,
)

from portal.audit.models import AuditEvent
from studies.archive.metadata import series_metadata
from studies.models import Series, Study
from studies.viewer.first_look import FirstLook, first_look_of
from studies.viewer.hanging import COMPARE, FOUR_UP, MAMMO, MPR, SINGLE, Hanging, remember_protocol
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
AXIAL = [1, 0, 0, 0, 1, 0]
WINDOW = {"WindowCenter": 40, "WindowWidth": 400}


@pytest.fixture
def look(north: Any, people: Any, ingest_files: Any) -> Any:
    def give(*files: bytes, protocol: str = "", built: bool = True) -> FirstLook | None:
        ingest_files(north, *files)
        for series in Series.objects.all() if built else []:
            series_metadata(series)
        study = Study.objects.order_by("-study_date", "pk")[0]
        if protocol:
            remember_protocol(user=people["radiologist"], study=study, protocol=protocol)
        return first_look_of(principal_of(people["radiologist"]), study)

    return give


def image(number: int = 1, *, series: int = 1, study: str = "1.1", **attributes: Any) -> bytes:
    of_image = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{series}",
        "SOPInstanceUID": f"{study}.{series}.{number}",
        "SeriesNumber": series,
        "InstanceNumber": number,
        "PatientID": "P",
    }
    return make_instance(**{**of_image, **WINDOW, **attributes})


def slices(places: list[float], **attributes: Any) -> list[bytes]:
    """Give slices with the places along the normal, numbered from 1."""
    return [
        image(n, **{"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": AXIAL, **attributes})
        for n, z in enumerate(places, 1)
    ]


def shown(found: FirstLook | None) -> list[str | None]:
    """Give the SOP Instance UIDs of what is shown."""
    pictures = found.pictures if found else []
    return [address and re.findall(r"instances/([\d.]+)/frames/1/rendered", address)[0] for address in pictures]


def test_a_volume_begins_with_its_outermost_slice_whatever_the_numbers(look: Any) -> None:
    found = look(*slices([1, 2, 3, 4]))
    assert shown(found) == ["1.1.1.4"]
    assert (found.rows, found.columns) == (1, 1)


def test_a_volume_numbered_from_the_head_begins_with_its_first_slice(look: Any) -> None:
    assert shown(look(*slices([4, 3, 2, 1]))) == ["1.1.1.1"]


def test_a_study_is_looked_at_while_its_series_arrive(look: Any, north: Any, people: Any, ingest_files: Any) -> None:
    look(image())
    study, principal = Study.objects.get(), principal_of(people["radiologist"])
    asked: list[str] = []

    def arrive(execute: Any, sql: str, *arguments: Any) -> Any:
        asked.append(sql)
        if len(asked) == 2:
            ingest_files(north, image(series=2))
        return execute(sql, *arguments)

    with connection.execute_wrapper(arrive):
        found = first_look_of(principal, study, hanging=Hanging(SINGLE, []))
    assert Series.objects.count() == 2
    assert shown(found) == ["1.1.1.1"]


def test_images_without_a_place_begin_with_the_lowest_number(look: Any) -> None:
    assert shown(look(image(3), image(2), image(7))) == ["1.1.1.2"]


def test_images_of_several_planes_begin_with_the_lowest_number(look: Any) -> None:
    assert shown(
        look(*slices([1, 2]), image(3, ImagePositionPatient=[0, 0, 9], ImageOrientationPatient=[1, 0, 0, 0, 0, -1]))
    ) == ["1.1.1.1"]


@pytest.mark.parametrize("places", [[1, 2, 3.2, 4], [1, 2, 4, 5], [1, 1, 2, 2], [1, 2, 3, 30]])
def test_slices_that_might_be_a_volume_to_ohif_or_not_give_no_look(look: Any, places: list[float]) -> None:
    assert look(*slices(places)) is None


def test_the_series_of_the_lowest_number_is_shown(look: Any) -> None:
    assert shown(look(image(series=7), image(series=3), image(series=5))) == ["1.1.3.1"]


def test_two_series_of_one_number_leave_it_open_which_comes_first(look: Any) -> None:
    assert look(image(series=1), image(series=2, SeriesNumber=1)) is None


def test_the_prior_hangs_beside_the_study(look: Any) -> None:
    found = look(image(study="1.1", StudyDate="20260901"), image(study="1.2", StudyDate="20250901"), protocol=COMPARE)
    assert shown(found) == ["1.1.1.1", "1.2.1.1"]
    assert (found.rows, found.columns) == (1, 2)


def test_a_prior_of_which_nothing_certain_is_known_leaves_no_look(look: Any) -> None:
    prior = {"study": "1.2", "StudyDate": "20250901"}
    assert look(image(), image(series=1, **prior), image(series=2, SeriesNumber=1, **prior), protocol=COMPARE) is None


def test_one_image_is_the_study_s_even_beside_priors(look: Any) -> None:
    found = look(image(study="1.1"), image(study="1.2", StudyDate="20250901"), protocol=SINGLE)
    assert shown(found) == ["1.1.1.1"]


def test_long_series_come_first_in_layouts_of_ours(look: Any) -> None:
    short = [image(n, series=1) for n in range(1, 4)]
    long = [image(n, series=2) for n in range(1, 13)]
    assert shown(look(*short, *long, protocol=FOUR_UP)) == ["1.1.2.1", "1.1.1.1"]


def test_four_series_fill_four_places_and_three_three(look: Any) -> None:
    found = look(*[image(series=n) for n in (1, 2, 3)], protocol=FOUR_UP)
    assert shown(found) == ["1.1.1.1", "1.1.2.1", "1.1.3.1"]
    assert (found.rows, found.columns) == (2, 2)
    found = look(image(series=4), protocol=FOUR_UP)
    assert shown(found) == ["1.1.1.1", "1.1.2.1", "1.1.3.1", "1.1.4.1"]
    assert (found.rows, found.columns) == (2, 2)


def test_radiographs_are_shown_one_by_one(look: Any) -> None:
    digital = {"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX"}
    assert shown(look(image(2, **digital), image(1, **digital), protocol=FOUR_UP)) == ["1.1.1.1", "1.1.1.2"]


def test_a_film_begins_with_its_first_frame(look: Any) -> None:
    frames = np.zeros((12, 8, 8), np.uint16)
    assert shown(look(image(SOPClassUID=UltrasoundMultiFrameImageStorage, Modality="US", pixels=frames))) == ["1.1.1.1"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"SOPClassUID": SegmentationStorage, "Modality": "SEG"},
        {"SOPClassUID": EnhancedCTImageStorage},
        {"WindowCenter": None, "WindowWidth": None},
        {"VOILUTFunction": "SIGMOID"},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"PresentationLUTShape": "INVERSE"},
        {"PixelAspectRatio": [1, 2]},
        {"PixelSpacing": [0, 0]},
        {"ModalityLUTSequence": [Dataset()]},
    ],
)
def test_what_ohif_may_draw_otherwise_has_no_look(look: Any, attributes: dict[str, Any]) -> None:
    assert look(image(**attributes)) is None


def test_a_layout_that_is_not_known_by_heart_has_no_look(look: Any) -> None:
    assert look(image(), protocol=MAMMO) is None


def test_a_study_of_documents_has_no_look(look: Any) -> None:
    assert look(image(Rows=None, Columns=None, pixels=np.zeros((0, 0), np.uint16), Modality="SR")) is None


def test_what_has_just_come_has_no_look_until_its_metadata_are_built(look: Any) -> None:
    assert look(image(2), built=False) is None
    assert shown(look()) == ["1.1.1.2"]
    # Images that come later are seen as soon as their metadata are.
    assert shown(look(image(1))) == ["1.1.1.1"]


def test_a_large_picture_is_made_for_a_screen(look: Any) -> None:
    large = image(pixels=np.zeros((3000, 8), np.uint16))
    assert look(large).pictures[0].endswith("&viewport=2048,2048")


def test_the_page_shows_it_and_the_picture_is_gated_and_left_in_the_trail(look: Any, client_of: Any) -> None:
    found = look(*slices([1, 2, 3]))
    page = client_of("radiologist").get("/studies/1.1/").content.decode()
    assert f'srcset="{found.pictures[0]}"' in page
    assert "Not for diagnosis yet" in page
    assert "first-look" not in client_of("radiologist").get("/studies/1.1/?sop=1.1.1.1").content.decode()
    before = AuditEvent.objects.filter(action=AuditEvent.Action.RETRIEVE).count()
    picture = client_of("radiologist").get(found.pictures[0], headers={"accept": "image/avif,image/webp,*/*"})
    assert picture["Content-Type"] == "image/png"
    assert AuditEvent.objects.filter(action=AuditEvent.Action.RETRIEVE).count() == before + 1
    assert client_of("southradiologist").get(found.pictures[0]).status_code == 404


def test_a_page_may_ask_for_it_ahead_and_only_for_what_it_may_see(look: Any, client_of: Any) -> None:
    found = look(*slices([1, 2, 3]))
    answer = client_of("radiologist").get("/viewer/looks/1.1/")
    assert answer.json() == {"pictures": found.pictures}
    assert answer["Cache-Control"] == "no-store"
    assert client_of("southradiologist").get("/viewer/looks/1.1/").status_code == 404


def test_the_layout_that_is_offered_as_chosen_is_the_one_that_is_shown(look: Any, client_of: Any) -> None:
    look(image(1), protocol=MPR)
    page = client_of("radiologist").get("/studies/1.1/").content.decode()
    assert re.findall(r'<option value="([^"]+)" selected>', page.split('id="hanging"')[1].split("</select>")[0]) == [
        MPR
    ]
