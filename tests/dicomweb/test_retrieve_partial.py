"""WADO-RS: studies and series of which something can't be given in the form that's asked for, or is damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from portal.bodies import BrokenOff
from studies.archive import ahead, objects
from studies.dicomweb import wado
from studies.models import Instance
from tests.dicomweb.retrieving import PIXELS, SERIES, STUDY, UIDS, address, body_of, make_rle, make_video, parts_of
from tests.factories import make_instance
from tests.services.ports import free_port

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY_URL = f"/dicom-web/studies/{STUDY}"
SERIES_URL = f"{STUDY_URL}/series/{SERIES}"
OCTETS = 'multipart/related; type="application/octet-stream"'
DICOM = 'multipart/related; type="application/dicom"'
EXPLICIT, JPEG_2000 = (
    f"{DICOM}; transfer-syntax={ExplicitVRLittleEndian}",
    f"{DICOM}; transfer-syntax={JPEG2000Lossless}",
)
JLS, VIDEO = 'multipart/related; type="image/jls"', 'multipart/related; type="video/*"'


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


@pytest.fixture
def one_of_three_damaged(north: Any, ingest_files: Any) -> None:
    outcomes = ingest_files(north, make_rle(1), make_rle(2, damaged=(1,), pixels=PIXELS[:1]), make_rle(3))
    assert all(outcome.is_in for outcome in outcomes)


@pytest.mark.parametrize(
    ("below", "accept"),
    [
        *[(below, accept) for below in ("", "/bulkdata", "/pixeldata") for accept in (OCTETS, f"{OCTETS}, {JLS}")],
        *[("", accept) for accept in (EXPLICIT, JPEG_2000)],
    ],
)
def test_one_damaged_instance_is_left_out_and_the_rest_goes_on(
    below: str, accept: str, one_of_three_damaged: None, radiologist: Client, caplog: pytest.LogCaptureFixture
) -> None:
    # The headers are gone before it's found: each form breaks off once.
    for _ in accept.split(", "):
        begun = radiologist.get(f"{STUDY_URL}{below}", HTTP_ACCEPT=accept)
        assert begun.status_code == 200
        with pytest.raises(BrokenOff):
            body_of(begun)
    for url in (STUDY_URL, SERIES_URL):
        answer = radiologist.get(f"{url}{below}", HTTP_ACCEPT=accept)
        assert answer.status_code == 206
        assert answer["Warning"].startswith('299 http://testserver/dicom-web "1 of 3 instances')
        parts = parts_of(answer)
        assert len(parts) == 2
        for kind, content in parts:
            if kind.startswith("application/octet-stream"):
                assert content == PIXELS.tobytes()
            else:
                assert np.array_equal(pydicom.dcmread(BytesIO(content)).pixel_array, PIXELS)
    assert "left out of a retrieval" in caplog.text
    assert "Doe" not in caplog.text


@pytest.mark.usefixtures("one_of_three_damaged")
def test_what_is_known_of_one_instance_is_not_said_of_another(radiologist: Client) -> None:
    with pytest.raises(BrokenOff):
        body_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=EXPLICIT))
    sound, damaged, _ = Instance.objects.order_by("instance_number")
    alone = radiologist.get(address(sound), HTTP_ACCEPT=f"{EXPLICIT}, application/zip; q=0.1")
    assert alone.status_code == 200
    assert "Warning" not in alone
    assert [kind for kind, _ in parts_of(alone)] == [f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"]
    assert radiologist.get(address(damaged), HTTP_ACCEPT=EXPLICIT).status_code == 406
    assert radiologist.get(STUDY_URL, HTTP_ACCEPT=EXPLICIT).status_code == 206


@pytest.mark.usefixtures("one_of_three_damaged")
def test_what_is_sound_again_is_forgotten(radiologist: Client) -> None:
    with pytest.raises(BrokenOff):
        body_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=EXPLICIT))
    mended = Instance.objects.get(instance_number=2)
    whole = Instance.objects.get(instance_number=1)
    places = ("object_key", "object_offset", "object_length", "frame_offsets", "pixel_data_offset", "number_of_frames")
    Instance.objects.filter(pk=mended.pk).update(**{name: getattr(whole, name) for name in places})
    for status in (206, 200):
        answer = radiologist.get(STUDY_URL, HTTP_ACCEPT=EXPLICIT)
        assert answer.status_code == status
        assert len(parts_of(answer)) == 3


@pytest.mark.parametrize("accept", [f"{DICOM}; transfer-syntax=*", JPEG_2000, OCTETS, "application/zip"])
def test_what_goes_away_while_it_is_sent_is_missed(
    accept: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    # More than goes at once.
    pixels = np.tile(PIXELS[:1], (1, 4, 4))
    ingest_files(north, *(make_instance(**UIDS, pixels=pixels, InstanceNumber=n) for n in range(1, 41)))
    answer = radiologist.get(STUDY_URL, HTTP_ACCEPT=accept)
    chunks = iter(answer.streaming_content)  # type: ignore[attr-defined]
    content = [next(chunks)]
    Instance.objects.filter(instance_number=40).delete()
    with pytest.raises(BrokenOff):
        content += chunks
    assert not b"".join(content).endswith(b"--\r\n")


def test_what_is_gone_before_anything_is_sent_is_not_found(
    north: Any, ingest_files: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_files(north, make_instance(**UIDS, pixels=PIXELS))

    def gone(*_: Any, **__: Any) -> None:
        Instance.objects.all().delete()

    monkeypatch.setattr(wado, "file_syntax", lambda stored, *_, **__: gone() or stored)
    assert radiologist.get(STUDY_URL, HTTP_ACCEPT=f"{DICOM}; transfer-syntax=*").status_code == 404


@pytest.mark.parametrize("accept", [f"{DICOM}; transfer-syntax=*", EXPLICIT, OCTETS])
def test_where_no_object_is_left_the_answer_is_an_error(
    accept: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    for number in range(1, 4):
        ingest_files(north, make_instance(**UIDS, pixels=PIXELS, InstanceNumber=number))
    for instance in Instance.objects.all():
        objects.remove(instance.object_key)
    answer = radiologist.get(STUDY_URL, HTTP_ACCEPT=accept)
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")


@pytest.mark.parametrize("accept", [f"{DICOM}; transfer-syntax=*", "application/zip"])
def test_a_missing_object_breaks_off_what_it_is_missing_from(
    accept: str, north: Any, ingest_files: Any, radiologist: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 4):
        ingest_files(north, make_instance(**UIDS, pixels=PIXELS, InstanceNumber=number))
    objects.remove(Instance.objects.get(instance_number=2).object_key)
    answer = radiologist.get(STUDY_URL, HTTP_ACCEPT=accept)
    content = []
    with pytest.raises(BrokenOff):
        content += answer.streaming_content  # type: ignore[attr-defined]
    assert "object missing" in caplog.text
    body = b"".join(content)
    assert not body.endswith(b"--\r\n")
    if "zip" in accept:
        assert not zipfile.is_zipfile(BytesIO(body))
    else:
        assert body.count(b"Content-Type: application/dicom") == 2


@pytest.mark.usefixtures("one_of_three_damaged")
def test_without_a_cache_each_answer_is_broken_off(radiologist: Client, settings: Any) -> None:
    gone = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://127.0.0.1:{free_port()}"}
    settings.CACHES = {**settings.CACHES, "damaged": gone}
    for _ in range(2):
        begun = radiologist.get(STUDY_URL, HTTP_ACCEPT=EXPLICIT)
        assert begun.status_code == 200
        with pytest.raises(BrokenOff):
            body_of(begun)


@pytest.mark.usefixtures("one_of_three_damaged")
@pytest.mark.parametrize("accept", [DICOM, "*/*"])
def test_by_default_a_damaged_instance_comes_as_it_is_stored(accept: str, radiologist: Client) -> None:
    answer = radiologist.get(STUDY_URL, HTTP_ACCEPT=accept)
    assert answer.status_code == 200
    syntaxes = [kind.rpartition("=")[2] for kind, _ in parts_of(answer)]
    assert syntaxes == [ExplicitVRLittleEndian, RLELossless, ExplicitVRLittleEndian]


@pytest.mark.parametrize("below", ["", "/bulkdata", "/pixeldata"])
def test_a_damaged_frame_among_images_is_left_out(
    below: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_rle(1, damaged=(2,)), make_rle(2))
    with pytest.raises(BrokenOff):
        body_of(radiologist.get(f"{STUDY_URL}{below}", HTTP_ACCEPT=JLS))
    answer = radiologist.get(f"{STUDY_URL}{below}", HTTP_ACCEPT=JLS)
    assert answer.status_code == 206
    parts = parts_of(answer)
    assert [kind for kind, _ in parts] == [f"image/jls; transfer-syntax={JPEGLSLossless}"] * 5


@pytest.mark.parametrize("accept", [OCTETS, EXPLICIT, JPEG_2000])
def test_what_is_found_damaged_before_anything_is_sent_is_told_of(
    accept: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_rle(1, damaged=(3,)), make_rle(2))
    answer = radiologist.get(STUDY_URL, HTTP_ACCEPT=accept)
    assert answer.status_code == 206
    assert answer["Warning"].startswith('299 http://testserver/dicom-web "1 of 2 instances')
    assert len(parts_of(answer)) == 1
    # What can be given whole, though less wanted, goes before what lacks something.
    whole = radiologist.get(STUDY_URL, HTTP_ACCEPT=f"{accept}, {DICOM}; transfer-syntax=*; q=0.1")
    assert (whole.status_code, len(parts_of(whole))) == (200, 2)


@pytest.mark.parametrize("below", ["", "/bulkdata", "/pixeldata"])
@pytest.mark.parametrize("damaged", [(1,), (2,), (1, 2, 3)])
def test_what_is_one_value_is_never_cut_short(
    damaged: tuple[int, ...], below: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_rle(1, damaged=damaged))
    url = address(Instance.objects.get())
    for where in (STUDY_URL, SERIES_URL, url):
        assert radiologist.get(f"{where}{below}", HTTP_ACCEPT=OCTETS).status_code == 406
    second = radiologist.get(f"{url}/pixeldata", HTTP_ACCEPT=f'{OCTETS}, multipart/related; type="image/dicom-rle"')
    assert [kind.split(";")[0] for kind, _ in parts_of(second)] == ["image/dicom-rle"] * 3
    alone = radiologist.get(f"{url}/bulkdata/7FE00010", HTTP_ACCEPT="application/octet-stream")
    assert alone.status_code == 406


def test_an_instance_with_a_damaged_frame_is_given_as_stored_or_not_at_all(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    content = make_rle(1, damaged=(2,))
    ingest_files(north, content)
    url = address(Instance.objects.get())
    for asked in (ExplicitVRLittleEndian, JPEG2000Lossless):
        assert radiologist.get(url, HTTP_ACCEPT=f"application/dicom; transfer-syntax={asked}").status_code == 406
        second = radiologist.get(
            url, HTTP_ACCEPT=f"application/dicom; transfer-syntax={asked}, application/dicom; transfer-syntax=*"
        )
        assert body_of(second) == content
    by_default = radiologist.get(url, HTTP_ACCEPT="application/dicom")
    assert by_default["Content-Type"] == f"application/dicom; transfer-syntax={RLELossless}"
    assert body_of(by_default) == content


def test_frames_come_all_or_none_as_their_order_names_them(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, make_rle(1, damaged=(2,)))
    url = address(Instance.objects.get())
    assert radiologist.get(f"{url}/frames/1,2,3", HTTP_ACCEPT=OCTETS).status_code == 406
    some = radiologist.get(f"{url}/frames/3,1", HTTP_ACCEPT=OCTETS)
    assert [content for _, content in parts_of(some)] == [PIXELS[2].tobytes(), PIXELS[0].tobytes()]
    stored = radiologist.get(f"{url}/frames/1,2,3", HTTP_ACCEPT=f'{OCTETS}, multipart/related; type="image/*"')
    assert len(parts_of(stored)) == 3


def test_an_archive_goes_on_without_what_is_damaged(one_of_three_damaged: None, radiologist: Client) -> None:
    accept = f"application/zip; transfer-syntax={ExplicitVRLittleEndian}"
    with pytest.raises(BrokenOff):
        body_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=accept))
    answer = radiologist.get(STUDY_URL, HTTP_ACCEPT=accept)
    assert answer.status_code == 206
    with zipfile.ZipFile(BytesIO(body_of(answer))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["DICOM/SE000001/IM000001", "DICOM/SE000001/IM000002", "DICOMDIR"]
    as_stored = radiologist.get(STUDY_URL, HTTP_ACCEPT="application/zip")
    with zipfile.ZipFile(BytesIO(body_of(as_stored))) as archive:
        assert len(archive.namelist()) == 4


def test_what_is_too_much_to_be_kept_is_whole_as_well(
    north: Any, ingest_files: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "MOST_IN_MEMORY", 1000)
    ingest_files(north, make_rle(1), make_rle(2, damaged=(3,)))

    with pytest.raises(BrokenOff):
        body_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=OCTETS))
    for url in (STUDY_URL, f"{STUDY_URL}/bulkdata"):
        assert [content for _, content in parts_of(radiologist.get(url, HTTP_ACCEPT=OCTETS))] == [PIXELS.tobytes()]
    with pytest.raises(BrokenOff):
        body_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=EXPLICIT))
    ((_, content),) = parts_of(radiologist.get(STUDY_URL, HTTP_ACCEPT=EXPLICIT))
    assert np.array_equal(pydicom.dcmread(BytesIO(content)).pixel_array, PIXELS)


@pytest.fixture
def images_and_a_video(north: Any, ingest_files: Any) -> Instance:
    """Give the video of a study that has images, too."""
    _, video = make_video()
    outcomes = ingest_files(north, *(make_instance(**UIDS, pixels=PIXELS, InstanceNumber=n) for n in (1, 2)), video)
    assert all(outcome.is_in for outcome in outcomes)
    return Instance.objects.exclude(series__series_instance_uid=SERIES).get()


@pytest.mark.parametrize(
    ("below", "accept"),
    [
        *[(below, accept) for below in ("", "/bulkdata", "/pixeldata") for accept in (OCTETS, JLS)],
        *[("", accept) for accept in (JPEG_2000, EXPLICIT)],
        ("", f"application/zip; transfer-syntax={ExplicitVRLittleEndian}"),
    ],
)
def test_a_video_among_images_is_left_out_where_it_cant_be_given(
    below: str, accept: str, images_and_a_video: Instance, radiologist: Client
) -> None:
    answer = radiologist.get(f"{STUDY_URL}{below}", HTTP_ACCEPT=accept)
    assert answer.status_code == 206
    assert "\"1 of 3 instances can't be given in this form" in answer["Warning"]
    if "zip" not in accept:
        assert len(parts_of(answer)) == (6 if accept == JLS else 2)
    again = radiologist.get(f"{STUDY_URL}{below}", HTTP_ACCEPT=accept, HTTP_IF_NONE_MATCH=answer["ETag"])
    assert again.status_code == 304
    assert radiologist.get(f"{address(images_and_a_video)}{below}", HTTP_ACCEPT=accept).status_code == 406
    assert radiologist.get(f"{SERIES_URL}{below}", HTTP_ACCEPT=accept).status_code == 200


def test_all_is_given_where_a_form_for_all_is_accepted(images_and_a_video: Instance, radiologist: Client) -> None:
    for below, count in (("", 3), ("/bulkdata", 3), ("/pixeldata", 3)):
        answer = radiologist.get(f"{STUDY_URL}{below}")
        assert answer.status_code == 200
        assert "Warning" not in answer
        assert len(parts_of(answer)) == count


@pytest.mark.parametrize("below", ["", "/bulkdata", "/pixeldata"])
def test_the_next_form_is_tried_where_the_first_cant_be_given(
    below: str, images_and_a_video: Instance, radiologist: Client
) -> None:
    for accept in (f"{OCTETS}, {VIDEO}", f"{VIDEO}; q=0.2, {OCTETS}; q=0.3"):
        answer = radiologist.get(f"{address(images_and_a_video)}{below}", HTTP_ACCEPT=accept)
        assert answer.status_code == 200
        ((kind, _),) = parts_of(answer)
        assert kind.startswith("video/mp4")
