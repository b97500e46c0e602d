"""Rendered resources: what is seen in the pictures, films and pages, not only that there are some."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HEVCMP51,
    MPEG2MPML,
    MPEG4HP41,
    BasicTextSRStorage,
    RTStructureSetStorage,
    VideoEndoscopicImageStorage,
)
from weasyprint import HTML

from studies.models import Instance
from tests.dicomweb.retrieving import (
    STUDY,
    UIDS,
    address,
    as_file,
    body_of,
    make_pdf_object,
    make_presentation_state,
    make_video,
    parts_of,
)
from tests.factories import make_instance

pytestmark = pytest.mark.django_db
PNG = {"HTTP_ACCEPT": "image/png"}


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


@pytest.fixture
def show(north: Any, ingest_files: Any, radiologist: Client) -> Callable[..., np.ndarray]:
    """Archive a file and give its picture as the query asks for it."""

    def shown(content: bytes | Path, query: str = "", below: str = "/rendered") -> np.ndarray:
        (outcome,) = ingest_files(north, content)
        assert outcome.is_in, outcome.reason
        instance = Instance.objects.get(sop_instance_uid=outcome.sop_instance_uid)
        answer = radiologist.get(address(instance, f"{below}{query}"), **PNG)
        assert answer.status_code == 200, answer.content
        return np.asarray(Image.open(BytesIO(answer.content)))

    return shown


def quarters(**keywords: Any) -> bytes:
    """Give an image whose quarters have the values 0, 1000, 2000 and 3000."""
    pixels = np.kron(np.array([[0, 1000], [2000, 3000]]), np.ones((50, 50))).astype(np.uint16)
    return make_instance(pixels=pixels, WindowCenter=1500.5, WindowWidth=3001, **{**UIDS, **keywords})


def test_the_images_own_window_is_used(show: Any) -> None:
    picture = show(quarters())
    assert [picture[25, 25], picture[25, 75], picture[75, 25], picture[75, 75]] == [0, 85, 170, 255]


def test_windows_follow_their_functions(show: Any) -> None:
    linear = show(quarters(), "?window=1000,1000,linear")
    exact = show(quarters(), "?window=1000,1000,linear-exact")
    sigmoid = show(quarters(), "?window=1000,1000,sigmoid")
    assert linear[25, 75] == round((0.5 / 999 + 0.5) * 255)
    assert exact[25, 75] == 128
    assert sigmoid[25, 75] == 128
    assert sigmoid[75, 25] == round(255 / (1 + np.exp(-4)))


def test_monochrome1_is_bright_where_values_are_low(show: Any) -> None:
    picture = show(quarters(PhotometricInterpretation="MONOCHROME1"))
    assert (picture[25, 25], picture[75, 75]) == (255, 0)


@pytest.mark.parametrize(
    ("viewport", "size", "corner"),
    [
        ("50,50", (50, 50), 0),
        ("40,100", (40, 40), 0),
        ("200,200", (200, 200), 0),
        ("50,50,50,50,50,50", (50, 50), 255),
        ("50,50,50,0,,", (25, 50), 85),
        ("100,100,,,-100,", (100, 100), 85),
        ("100,100,,,,-100", (100, 100), 170),
    ],
)
def test_the_viewport_cuts_scales_and_turns(viewport: str, size: tuple[int, int], corner: int, show: Any) -> None:
    picture = show(quarters(), f"?viewport={viewport}")
    assert (picture.shape[1], picture.shape[0]) == size
    assert abs(int(picture[2, 2]) - corner) <= 3


def test_pixels_that_arent_square_are_stretched(show: Any) -> None:
    assert show(quarters(PixelSpacing=[2, 1])).shape == (200, 100)


@pytest.mark.parametrize(
    "query",
    [
        *("window=1", "window=a,b", "window=1,0", "window=1,2,cubic", "window=nan,4", "viewport=0,5", "viewport=5"),
        *("viewport=9999,9999", "viewport=5,5,-1,0,5,5", "viewport=5,5,0,0,0,5", "quality=0", "quality=101"),
        *("quality=x", "iccprofile=purple", "viewport=1e3,5", "quality=\u0665\u0660", "window=1_0,4"),
        *("window=1e9,4", "viewport=5,5,nan,0,5,5", "viewport=5,5,100,0,5,5", "window=1,2,linear,3"),
    ],
)
def test_parameters_that_make_no_sense_are_400(query: str, north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, quarters())
    assert radiologist.get(address(Instance.objects.get(), f"/rendered?{query}")).status_code == 400


def test_quality_annotation_and_profile(north: Any, ingest_files: Any, radiologist: Client) -> None:
    noise = np.random.default_rng(1).integers(0, 3000, (300, 300)).astype(np.uint16)
    ingest_files(north, make_instance(pixels=noise))
    url = address(Instance.objects.get(), "/rendered")

    def get(query: str) -> bytes:
        return body_of(radiologist.get(f"{url}?{query}", HTTP_ACCEPT="image/jpeg"))

    assert len(get("quality=20")) < len(get("quality=95")) / 2
    assert Image.open(BytesIO(get("iccprofile=srgb"))).info["icc_profile"]
    assert "icc_profile" not in Image.open(BytesIO(get("iccprofile=no"))).info
    plain, named = (np.asarray(Image.open(BytesIO(get(q)))).astype(int) for q in ("", "annotation=patient,technique"))
    changed = np.abs(plain - named) > 60
    assert changed[:60, :100].any()
    assert changed[:60, 200:].any()
    assert not changed[150:].any()
    assert radiologist.get(f"{url}?iccprofile=adobergb").status_code == 406


def test_a_picture_comes_as_a_part_where_only_parts_are_accepted(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, quarters())
    for path in ("/rendered", "/frames/1/rendered", "/thumbnail"):
        url = address(Instance.objects.get(), path)
        answer = radiologist.get(url, HTTP_ACCEPT='multipart/related; type="image/png"')
        ((media_type, picture),) = parts_of(answer)
        assert media_type == "image/png"
        alone = radiologist.get(url, HTTP_ACCEPT="image/png")
        assert alone["Content-Type"] == "image/png"
        assert alone["ETag"] != answer["ETag"]
        assert picture == alone.content


def test_annotations_that_are_ignored_are_named(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, quarters())
    instance = Instance.objects.get()
    query = 'annotation=patient,Scale "bar",\u00e9'
    wado = {"requestType": "WADO", "studyUID": instance.series.study.study_instance_uid}
    wado |= {"seriesUID": instance.series.series_instance_uid, "objectUID": instance.sop_instance_uid}
    answers = [radiologist.get(address(instance, f"{path}?{query}")) for path in ("/rendered", "/thumbnail")]
    answers.append(radiologist.get("/wado", {**wado, "annotation": query.partition("=")[2]}))
    for answer in answers:
        assert answer.status_code == 200
        said = "The following annotation values are not supported: Scale ?bar?, ?."
        assert answer["Warning"] == f'299 http://testserver/dicom-web "{said}"'
    assert "Warning" not in radiologist.get(address(instance, "/rendered?annotation=Patient,technique"))


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/gif", "image/webp"])
def test_stills_come_in_every_format(media_type: str, north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, quarters())
    answer = radiologist.get(address(Instance.objects.get(), "/rendered"), HTTP_ACCEPT=media_type)
    assert answer["Content-Type"] == media_type
    assert np.asarray(Image.open(BytesIO(answer.content)).convert("L"))[75, 75] > 250


@pytest.fixture
def film(north: Any, ingest_files: Any) -> Instance:
    pixels = np.stack([np.full((40, 61), n * 600, np.uint16) for n in range(5)])
    ingest_files(north, make_instance(pixels=pixels, FrameTime=50, WindowCenter=1200, WindowWidth=2401))
    return Instance.objects.get()


@pytest.mark.parametrize("media_type", ["image/gif", "image/webp"])
def test_many_frames_move(media_type: str, film: Instance, radiologist: Client) -> None:
    picture = Image.open(BytesIO(body_of(radiologist.get(address(film, "/rendered"), HTTP_ACCEPT=media_type))))
    assert picture.n_frames == 5
    picture.seek(4)
    assert np.asarray(picture.convert("L")).min() > 245
    assert picture.info["duration"] == 50
    chosen = radiologist.get(address(film, "/frames/2,3/rendered"), HTTP_ACCEPT=media_type)
    assert Image.open(BytesIO(chosen.content)).n_frames == 2


def test_many_frames_become_a_video(film: Instance, radiologist: Client) -> None:
    answer = radiologist.get(address(film, "/rendered"), HTTP_ACCEPT="video/mp4")
    with av.open(BytesIO(answer.content)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 20
        greys = [frame.to_ndarray(format="gray").mean() for frame in container.decode(stream)]
    assert len(greys) == 5
    assert greys == sorted(greys)
    assert greys[4] - greys[0] > 200


def test_frames_as_stills_are_parts(film: Instance, radiologist: Client) -> None:
    parts = parts_of(radiologist.get(address(film, "/frames/5,1/rendered"), HTTP_ACCEPT="image/jpeg"))
    assert [kind for kind, _ in parts] == ["image/jpeg"] * 2
    bright, dark = (np.asarray(Image.open(BytesIO(content))).mean() for _, content in parts)
    assert bright > 200 > 50 > dark
    assert radiologist.get(address(film, "/frames/6/rendered")).status_code == 404


def test_a_video_gives_its_poster_and_itself(north: Any, ingest_files: Any, radiologist: Client) -> None:
    mp4, content = make_video()
    ingest_files(north, content)
    instance = Instance.objects.get()
    poster = radiologist.get(address(instance, "/rendered?viewport=32,32"), **PNG)
    assert Image.open(BytesIO(poster.content)).size == (32, 24)
    assert body_of(radiologist.get(address(instance, "/rendered"), HTTP_ACCEPT="video/mp4")).startswith(mp4[:-1])
    assert radiologist.get(address(instance, "/thumbnail")).status_code == 200


@pytest.mark.parametrize(("codec", "syntax"), [("libx264", MPEG4HP41), ("mpeg2video", MPEG2MPML)])
def test_a_video_in_another_container_becomes_mp4(
    codec: str, syntax: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    _, content = make_video(container_format="mpegts", codec=codec, syntax=syntax)
    ingest_files(north, content)
    answer = radiologist.get(address(Instance.objects.get(), "/rendered"), HTTP_ACCEPT="video/mp4")
    with av.open(BytesIO(body_of(answer))) as container:
        assert "mp4" in container.format.name
        greys = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert len(greys) == 12
    assert greys[-1] - greys[0] > 150


def test_a_film_encoded_anew_is_the_same_bytes_each_time(north: Any, ingest_files: Any, radiologist: Client) -> None:
    # On small or even pictures the encoder decides alike; these move and have edges.
    output = BytesIO()
    with av.open(output, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        graph = av.filter.Graph()
        source, sink = graph.add("testsrc", "size=320x240:rate=25:duration=1"), graph.add("buffersink")
        source.link_to(sink)
        graph.configure()
        for _ in range(25):
            container.mux(stream.encode(graph.pull().reformat(format="yuv420p")))
        container.mux(stream.encode())
    dataset = Dataset()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 25, 240, 320
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "YBR_PARTIAL_420"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PlanarConfiguration = 0
    dataset.PixelData = encapsulate([output.getvalue()])
    dataset["PixelData"].VR = "OB"
    ingest_files(north, as_file(dataset, VideoEndoscopicImageStorage, HEVCMP51))
    url = address(Instance.objects.get(), "/rendered")
    answers = [radiologist.get(url, HTTP_ACCEPT="video/mp4") for _ in range(10)]
    assert len({answer["ETag"] for answer in answers}) == 1
    assert len({body_of(answer) for answer in answers}) == 1


def test_a_presentation_state_is_shown_on_its_image(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, quarters())
    image = Instance.objects.get()
    voi = Dataset()
    voi.WindowCenter, voi.WindowWidth = 500.5, 1001
    circle = Dataset()
    circle.GraphicAnnotationUnits, circle.GraphicType = "PIXEL", "CIRCLE"
    circle.GraphicDimensions, circle.NumberOfGraphicPoints = 2, 2
    circle.GraphicData, circle.GraphicFilled = [25.5, 75.5, 35.5, 75.5], "Y"
    text = Dataset()
    text.UnformattedTextValue, text.AnchorPoint = "Nodule", [60, 20]
    text.AnchorPointAnnotationUnits, text.AnchorPointVisibility = "PIXEL", "N"
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicObjectSequence, layer.TextObjectSequence = "A", [circle], [text]
    state = make_presentation_state(
        image,
        SoftcopyVOILUTSequence=[voi],
        PresentationLUTShape="INVERSE",
        GraphicAnnotationSequence=[layer],
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=1,
        ShutterRightVerticalEdge=90,
        ShutterUpperHorizontalEdge=1,
        ShutterLowerHorizontalEdge=100,
        ShutterPresentationValue=0x8000,
        ImageRotation=90,
        ImageHorizontalFlip="N",
    )
    (outcome,) = ingest_files(north, state)
    shown = Instance.objects.get(sop_instance_uid=outcome.sop_instance_uid)
    answer = radiologist.get(address(shown, "/rendered?viewport=100,100"), **PNG)
    picture = np.asarray(Image.open(BytesIO(answer.content)).convert("RGB")).astype(int)
    # Turned clockwise: the upper left quarter, inverted to white, lies at the upper right.
    assert picture[25, 75].min() > 245
    # The lower left quarter came to the upper left; on it the filled circle, drawn in colour.
    assert picture[25, 25, 0] > 200 > 120 > picture[25, 25, 2]
    # The shutter covers the columns from 91 on, which came to lie below.
    assert abs(picture[97, 75].max() - 128) < 4
    # The letters are somewhere on the upper right quarter, which came to the lower right.
    assert (picture[52:90, 52:100, 0] - picture[52:90, 52:100, 2] > 60).any()
    uri = (
        f"/wado?requestType=WADO&studyUID={STUDY}&seriesUID={image.series.series_instance_uid}"
        f"&objectUID={image.sop_instance_uid}&contentType=image/png&presentationUID={shown.sop_instance_uid}"
    )
    assert radiologist.get(uri).content
    assert radiologist.get(uri.replace(shown.sop_instance_uid, "1.2.9")).status_code == 404
    assert radiologist.get(f"{uri}&windowCenter=3&windowWidth=4").status_code == 400


def test_a_report_is_a_page_in_which_nothing_is_markup(north: Any, ingest_files: Any, radiologist: Client) -> None:
    def code(meaning: str) -> list[Dataset]:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", meaning
        return [item]

    evil = "<script>alert(1)</script> & more"
    finding = Dataset()
    finding.RelationshipType, finding.ValueType, finding.TextValue = "CONTAINS", "TEXT", evil
    finding.ConceptNameCodeSequence = code("Finding <b>")
    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "mm", "UCUM", "millimeter"
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", [unit]
    length = Dataset()
    length.RelationshipType, length.ValueType, length.MeasuredValueSequence = "CONTAINS", "NUM", [measured]
    length.ConceptNameCodeSequence = code("Length")
    report = Dataset()
    report.ValueType, report.ConceptNameCodeSequence = "CONTAINER", code("Chest report")
    # A key object's reference has no name.
    unnamed = Dataset()
    unnamed.RelationshipType, unnamed.ValueType, unnamed.TextValue = "CONTAINS", "TEXT", "Nothing else."
    report.ContentSequence = [finding, length, unnamed]
    report.CompletionFlag, report.VerificationFlag = "COMPLETE", "VERIFIED"
    report.PatientName = "<i>Evil^Name"
    ingest_files(north, as_file(report, BasicTextSRStorage))
    url = address(Instance.objects.get(), "/rendered")
    page = radiologist.get(url)
    assert page["Content-Type"] == "text/html; charset=utf-8"
    text = page.content.decode()
    assert "<script" not in text
    assert "<i>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "12.5 mm" in text
    assert "default-src" in page["Content-Security-Policy"]
    plain = radiologist.get(url, HTTP_ACCEPT="text/plain").content.decode()
    assert f"Finding <b>: {evil}" in plain
    assert "\nNothing else.\n" in plain
    assert radiologist.get(url, **PNG).status_code == 406


def test_an_ecg_is_drawn_to_scale(show: Any, north: Any, ingest_files: Any, radiologist: Client) -> None:
    path = Path(str(pydicom.data.get_testdata_file("waveform_ecg.dcm")))
    picture = show(path)
    # Ten seconds of 25 mm and two margins of 10 mm, 5 pixels for a millimetre.
    assert picture.shape[1] == (250 + 20) * 5
    dark = (picture.max(axis=2) < 90).sum(axis=0)
    assert (dark[60:1290] > 0).mean() > 0.99
    svg = radiologist.get(address(Instance.objects.get(), "/rendered"), HTTP_ACCEPT="image/svg+xml")
    assert svg.content.count(b"<polyline") == 13
    assert b'width="270.0mm"' in svg.content
    assert b"25 mm/s   10 mm/mV" in svg.content


def test_a_pdf_comes_whole_or_as_its_first_page(north: Any, ingest_files: Any, radiologist: Client) -> None:
    pdf = HTML(string="<body style='background:#a00'><h1>Report</h1>").write_pdf()
    ingest_files(north, make_pdf_object(pdf))
    url = address(Instance.objects.get())
    whole = radiologist.get(f"{url}/rendered")
    assert (whole["Content-Type"], whole.content) == ("application/pdf", pdf)
    page = np.asarray(Image.open(BytesIO(radiologist.get(f"{url}/rendered?viewport=200,200", **PNG).content)))
    assert page.shape[0] == 200
    assert page[100, 70, 0] > 150 > 20 > page[100, 70, 1]
    assert radiologist.get(f"{url}/thumbnail")["Content-Type"] == "image/jpeg"
    bulk = radiologist.get(f"{url}/bulkdata/00420011", HTTP_ACCEPT="application/pdf")
    assert bulk["Content-Type"] == "application/pdf"


def test_what_has_no_picture_is_406(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, as_file(Dataset(), RTStructureSetStorage))
    url = address(Instance.objects.get())
    for below in ("/rendered", "/thumbnail"):
        assert radiologist.get(f"{url}{below}").status_code == 406


@pytest.mark.parametrize("name", ["liver_expb.dcm", "rtdose.dcm", "examples_palette.dcm", "examples_ybr_color.dcm"])
def test_other_pixels_are_shown_too(name: str, show: Any) -> None:
    assert np.ptp(show(Path(str(pydicom.data.get_testdata_file(name))))) > 100


def test_a_study_is_rendered_instance_by_instance(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(
        north, quarters(InstanceNumber=1), quarters(InstanceNumber=2), as_file(Dataset(), RTStructureSetStorage)
    )
    for url in (f"/dicom-web/studies/{STUDY}", f"/dicom-web/studies/{STUDY}/series/1.2.3.4"):
        parts = parts_of(radiologist.get(f"{url}/rendered?viewport=30,30", HTTP_ACCEPT="image/png"))
        assert [Image.open(BytesIO(content)).size for _, content in parts] == [(30, 30)] * 2
        assert Image.open(BytesIO(radiologist.get(f"{url}/thumbnail").content)).size == (160, 160)


def test_of_a_large_object_only_the_frame_is_read(
    north: Any, ingest_files: Any, radiologist: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.archive import objects

    ingest_files(north, make_instance(pixels=np.zeros((200, 100, 100), np.uint16)))
    read = []
    original = objects.read_range
    monkeypatch.setattr(objects, "read_range", lambda i, o, n: read.append(n) or original(i, o, n))
    assert radiologist.get(address(Instance.objects.get(), "/frames/150/rendered")).status_code == 200
    assert sum(read) < 2 * 20_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["window", "viewport", "quality", "annotation", "iccprofile"]),
    value=st.one_of(st.text(max_size=30), st.from_regex(r"-?[0-9.]{0,6}(,-?[0-9.]{0,6}){0,6}", fullmatch=True)),
)
def test_no_parameter_breaks_it(name: str, value: str, film: Instance, radiologist: Client) -> None:
    answer = radiologist.get(address(film, "/frames/1/rendered"), {name: value})
    assert answer.status_code in {200, 400, 406}
