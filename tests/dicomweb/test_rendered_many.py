"""Rendered studies and series, and their thumbnails, of which something can't be shown or is damaged."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from django.test import Client
from PIL import Image
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage, RTStructureSetStorage
from weasyprint import HTML

from portal.bodies import BrokenOff
from studies.archive import objects
from studies.dicomweb import rendered
from studies.models import Instance
from tests.dicomweb.retrieving import (
    PIXELS,
    SERIES,
    STUDY,
    UIDS,
    address,
    as_file,
    body_of,
    make_pdf_object,
    make_rle,
    parts_of,
)
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY_URL = f"/dicom-web/studies/{STUDY}"
SERIES_URL = f"{STUDY_URL}/series/{SERIES}"
JPEG, PNG = {"HTTP_ACCEPT": "image/jpeg"}, {"HTTP_ACCEPT": "image/png"}


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


@pytest.fixture
def put(north: Any, ingest_files: Any) -> Callable[..., None]:
    def ingested(*files: bytes) -> None:
        assert all(outcome.is_in for outcome in ingest_files(north, *files))

    return ingested


def image(number: int, *, is_damaged: bool = False) -> bytes:
    """Give an image all of one grey, the brighter the higher its number."""
    pixels = np.full((1, 40, 40), number * 30, np.uint16)
    damaged = (1,) if is_damaged else ()
    return make_rle(number, damaged=damaged, pixels=pixels, WindowCenter=128, WindowWidth=256)


def report() -> bytes:
    dataset = Dataset()
    dataset.ValueType = "CONTAINER"
    return as_file(dataset, BasicTextSRStorage)


def grey(picture: bytes) -> float:
    return float(np.asarray(Image.open(BytesIO(picture)).convert("L")).mean())


def warning(count: str) -> str:
    left_out = f"{count} instances can't be given in this form and are left out, or frames of them."
    return f'299 http://testserver/dicom-web "{left_out}"'


def test_what_is_found_damaged_later_breaks_off_and_is_told_of_when_asked_again(put: Any, radiologist: Client) -> None:
    put(image(1), image(2, is_damaged=True), image(3))
    for url in (STUDY_URL, SERIES_URL):
        begun = radiologist.get(f"{url}/rendered?quality={len(url)}", **JPEG)
        assert begun.status_code == 200
        content: list[bytes] = []
        with pytest.raises(BrokenOff):
            content += begun.streaming_content  # type: ignore[attr-defined]
        assert b"".join(content).count(b"Content-Type: image/jpeg") == 2
        answer = radiologist.get(f"{url}/rendered?quality={len(url)}", **JPEG)
        assert answer.status_code == 206
        assert answer["Warning"] == warning("1 of 3")
        assert [round(grey(picture) / 30) for _, picture in parts_of(answer)] == [1, 3]


def test_what_is_found_damaged_before_anything_is_sent_is_told_of(put: Any, radiologist: Client) -> None:
    put(image(1, is_damaged=True), image(2), image(3))
    for url in (STUDY_URL, SERIES_URL):
        answer = radiologist.get(f"{url}/rendered", **JPEG)
        assert answer.status_code == 206
        assert answer["Warning"] == warning("1 of 3")
        assert len(parts_of(answer)) == 2


def test_what_is_sound_again_is_forgotten(put: Any, radiologist: Client) -> None:
    put(image(1), image(2, is_damaged=True))
    with pytest.raises(BrokenOff):
        body_of(radiologist.get(f"{STUDY_URL}/rendered", **JPEG))
    whole, mended = Instance.objects.order_by("instance_number")
    places = ("object_key", "object_offset", "object_length", "frame_offsets", "pixel_data_offset")
    Instance.objects.filter(pk=mended.pk).update(**{name: getattr(whole, name) for name in places})
    for status in (206, 200):
        answer = radiologist.get(f"{STUDY_URL}/rendered", **JPEG)
        assert answer.status_code == status
        assert len(parts_of(answer)) == 2


def test_what_is_of_another_kind_than_accepted_is_told_of(put: Any, radiologist: Client) -> None:
    put(image(1), report(), as_file(Dataset(), RTStructureSetStorage))
    pictures = radiologist.get(f"{STUDY_URL}/rendered", **JPEG)
    assert pictures.status_code == 206
    assert pictures["Warning"] == warning("2 of 3")
    assert [kind for kind, _ in parts_of(pictures)] == ["image/jpeg"]
    pages = radiologist.get(f"{STUDY_URL}/rendered", HTTP_ACCEPT="text/html")
    assert (pages.status_code, pages["Warning"]) == (206, warning("2 of 3"))
    assert [kind for kind, _ in parts_of(pages)] == ["text/html"]
    both = radiologist.get(f"{STUDY_URL}/rendered", HTTP_ACCEPT="image/jpeg, text/html; q=0.5")
    assert (both.status_code, both["Warning"]) == (206, warning("1 of 3"))
    assert {kind for kind, _ in parts_of(both)} == {"image/jpeg", "text/html"}
    assert len({pictures["ETag"], pages["ETag"], both["ETag"]}) == 3
    known = radiologist.get(f"{STUDY_URL}/rendered", **JPEG, HTTP_IF_NONE_MATCH=pictures["ETag"])
    assert known.status_code == 304


def test_where_all_is_shown_nothing_is_warned_of(put: Any, radiologist: Client) -> None:
    put(image(1), report())
    for accept in ("*/*", "image/jpeg, text/plain"):
        answer = radiologist.get(f"{STUDY_URL}/rendered", HTTP_ACCEPT=accept)
        assert answer.status_code == 200
        assert "Warning" not in answer
        assert len(parts_of(answer)) == 2
    assert radiologist.get(f"{SERIES_URL}/rendered", **JPEG).status_code == 200


def test_what_is_left_out_and_what_is_ignored_are_both_told_of(put: Any, radiologist: Client) -> None:
    put(image(1), report())
    answer = radiologist.get(f"{STUDY_URL}/rendered?annotation=scale", **JPEG)
    ignored = "The following annotation values are not supported: scale."
    assert answer.status_code == 206
    assert answer["Warning"] == f'{warning("1 of 2")}, 299 http://testserver/dicom-web "{ignored}"'


@pytest.mark.parametrize("files", [(image(1, is_damaged=True), report()), (report(),)])
def test_where_nothing_can_be_shown_it_is_406(files: tuple[bytes, ...], put: Any, radiologist: Client) -> None:
    put(*files)
    assert radiologist.get(f"{STUDY_URL}/rendered", **JPEG).status_code == 406
    assert radiologist.get(f"{STUDY_URL}/rendered", HTTP_ACCEPT="application/dicom").status_code == 406


def test_a_missing_report_keeps_no_picture_back(put: Any, radiologist: Client) -> None:
    put(image(1), report())
    objects.remove(Instance.objects.get(number_of_frames=0).object_key)
    assert len(parts_of(radiologist.get(f"{SERIES_URL}/rendered", **JPEG))) == 1
    answer = radiologist.get(f"{STUDY_URL}/rendered")
    content: list[bytes] = []
    with pytest.raises(BrokenOff):
        content += answer.streaming_content  # type: ignore[attr-defined]
    assert b"".join(content).count(b"Content-Type: image/jpeg") == 1


@pytest.mark.parametrize(
    ("damaged", "shown"),
    [((), 3), ((3,), 4), ((3, 4), 5), ((3, 4, 5), 1), ((1, 3, 4, 5), 2)],
)
def test_the_next_image_is_the_thumbnail_where_the_middle_one_is_damaged(
    damaged: tuple[int, ...], shown: int, put: Any, radiologist: Client
) -> None:
    put(*(image(number, is_damaged=number in damaged) for number in range(1, 6)))
    for url in (STUDY_URL, SERIES_URL):
        answer = radiologist.get(f"{url}/thumbnail", **PNG)
        assert answer.status_code == 200
        assert round(grey(answer.content) / 30) == shown
        known = radiologist.get(f"{url}/thumbnail", **PNG, HTTP_IF_NONE_MATCH=answer["ETag"])
        assert known.status_code == 304
    for number in damaged:
        alone = Instance.objects.get(instance_number=number)
        assert radiologist.get(address(alone, "/thumbnail"), **PNG).status_code == 406


def test_so_many_images_are_tried_for_a_thumbnail(
    put: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(*(image(number, is_damaged=number != 5) for number in range(1, 6)))
    for most, status in ((2, 406), (3, 200)):
        monkeypatch.setattr(rendered, "MOST_LOOKED_AT", most)
        assert radiologist.get(f"{STUDY_URL}/thumbnail", **PNG).status_code == status


def test_without_images_the_first_page_that_can_be_drawn_is_the_thumbnail(put: Any, radiologist: Client) -> None:
    put(report(), make_pdf_object(b"%PDF-1.4 no more of it"))
    assert radiologist.get(f"{STUDY_URL}/thumbnail", **PNG).status_code == 406
    put(make_pdf_object(HTML(string="<body style='background:#a00'>").write_pdf()))
    answer = radiologist.get(f"{STUDY_URL}/thumbnail", **PNG)
    assert answer.status_code == 200
    red, green, _ = np.asarray(Image.open(BytesIO(answer.content)).convert("RGB"))[80, 57]
    assert red > 150 > 20 > green
    assert radiologist.get(f"{STUDY_URL}/thumbnail", HTTP_ACCEPT="text/html").status_code == 406


@pytest.mark.parametrize("below", ["/rendered", "/thumbnail"])
def test_a_profile_of_the_standard_that_cant_be_given_is_406(below: str, put: Any, radiologist: Client) -> None:
    put(make_instance(**UIDS, pixels=PIXELS[:1]))
    for url in (STUDY_URL, SERIES_URL, address(Instance.objects.get())):
        for name in ("adobergb", "rommrgb", "displayp3", "DisplayP3"):
            assert radiologist.get(f"{url}{below}?iccprofile={name}").status_code == 406
        assert radiologist.get(f"{url}{below}?iccprofile=p3").status_code == 400
