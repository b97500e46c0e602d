"""What comes from those who mean ill, or from broken programs: never a 500, never slow, never another site's data."""

from __future__ import annotations

import json
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from django.conf import LazySettings
from django.test import Client
from pydicom import Dataset, Sequence
from pydicom.uid import BasicTextSRStorage

from accounts.credentials import credential_of, principal_of_credential
from studies.archive.models import NonPatientInstance
from studies.dicomweb.media_types import ranges_of
from studies.models import Instance, Study
from tests.dicomweb.retrieving import (
    STUDY,
    UIDS,
    address,
    as_file,
    body_of,
    make_pdf_object,
    make_presentation_state,
)
from tests.dicomweb.test_non_patient import PALETTES, palette
from tests.dicomweb.test_store_bodies import JSON, message, metadata_of
from tests.factories import make_instance
from tests.workitems.workitem_data import scheduled

pytestmark = [pytest.mark.django_db, pytest.mark.database]
BELOW = ("", "/metadata", "/frames/1", "/rendered", "/thumbnail", "/bulkdata", "/pixeldata", "/bulkdata/7FE00010")
LONG = 60_000


@pytest.fixture
def radiologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("radiologist")


@pytest.fixture
def technologist(client_of: Callable[[str], Client]) -> Client:
    return client_of("technologist")


@pytest.mark.parametrize(
    "accept",
    [
        "a" * LONG,
        " " * LONG,
        '"' * LONG,
        "," * LONG,
        "a/b;" * (LONG // 4),
        "a/b; a=" + " " * LONG,
        'a/b; a="' + "x;" * (LONG // 2),
        "a/b," * (LONG // 4),
        "/" * LONG,
    ],
    ids=lambda text: text[:8],
)
def test_a_long_accept_header_is_read_at_once(accept: str) -> None:
    def seconds() -> float:
        begun = time.process_time()
        ranges_of(accept)
        return time.process_time() - begun

    # The collector's rounds, which fall into some, aside.
    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize(
    ("accept", "types"),
    [
        ('a/b; x="1,2;3"; q=0.5, c/d', ["c/d", "a/b"]),
        ('multipart/related; type="application/dicom";transfer-syntax=* , */*;q=0.1', ["application/dicom", "*/*"]),
        ("a/b;q=2, c/d;q=x, e/f;q=0, g h/i", ["a/b"]),
        ('a/b; x="never closed, c/d', ["a/b"]),
        ("*", ["*"]),
        ("", []),
    ],
)
def test_an_accept_header_is_read_as_its_grammar_has_it(accept: str, types: list[str]) -> None:
    assert [wanted.media_type for wanted in ranges_of(accept)] == types


@pytest.mark.parametrize("keyword", ["StudyDescription", "PatientName", "OperatorsName", "PatientComments", "Modality"])
def test_no_pattern_keeps_the_server_busy(keyword: str, north: Any, ingest_files: Any, radiologist: Client) -> None:
    text = "A" * (16 if keyword == "Modality" else 60)
    ingest_files(north, make_instance(**{keyword: text}))
    for key in ("*A" * 30 + "B", "*?" * 30 + "*B*A", "*" * 200 + "B*A*A*A*A*A*A*A*A*A*A*B?", "?" * 5000):
        begun = time.process_time()
        assert radiologist.get("/dicom-web/studies", {keyword: key}).status_code == 204
        assert time.process_time() - begun < 2
    assert radiologist.get("/dicom-web/studies", {keyword: "*A*A*?A*"}).status_code == 200


def test_no_pattern_on_workitems_or_palettes_keeps_the_server_busy(technologist: Client) -> None:
    body = json.dumps([scheduled(ProcedureStepLabel="A" * 60).to_json_dict()])
    assert technologist.post("/dicom-web/workitems", body, content_type="application/dicom+json").status_code == 201
    technologist.post(PALETTES, palette(label="A" * 16), content_type="application/dicom")
    begun = time.process_time()
    key = "*A" * 30 + "B"
    assert technologist.get("/dicom-web/workitems", {"ProcedureStepLabel": key}).status_code == 204
    assert technologist.get(PALETTES, {"ContentLabel": key}).status_code == 204
    assert technologist.get(PALETTES, {"ContentDescription": key}).status_code == 204
    assert time.process_time() - begun < 2


def test_a_hundred_thousand_parameters_are_refused(radiologist: Client) -> None:
    query = "&".join(f"PatientID={n}" for n in range(100_000))
    for path in ("studies", "workitems", "color-palettes", "studies/1.2/rendered"):
        assert radiologist.get(f"/dicom-web/{path}?{query}").status_code in {400, 404}
    assert radiologist.get(f"/wado?{query}").status_code == 400


def test_a_warning_stays_short_whatever_is_asked_for(north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, make_instance())
    answer = radiologist.get("/dicom-web/studies", {"includefield": ",".join(f"{n}{'x' * 50}" for n in range(5000))})
    assert answer.status_code == 200
    assert len(answer["Warning"]) < 4000
    assert "970 more" in answer["Warning"]


@pytest.mark.parametrize("uid", ["1" * 65, "..", "../../etc", "1%002", "1.2/../1.3", "%2e%2e%2f", "1.2\u0661", "a"])
def test_what_is_no_uid_is_no_address(uid: str, radiologist: Client) -> None:
    for path in (f"studies/{uid}", f"studies/{uid}/metadata", f"workitems/{uid}", f"color-palettes/{uid}"):
        answer = radiologist.get(f"/dicom-web/{path}")
        assert answer.status_code in {400, 404}, path
    for name in ("studyUID", "seriesUID", "objectUID", "presentationUID", "presentationSeriesUID"):
        query = {"requestType": "WADO", "studyUID": "1.2", "seriesUID": "1.3", "objectUID": "1.4", name: uid}
        assert radiologist.get("/wado", query).status_code in {400, 404}


@pytest.mark.parametrize(
    "path", ["7FE00010/../../..", "..%2f..", "00420011%00", "0" * 5000, "00081140.1", "00081140.0.00091010"]
)
def test_no_path_of_bulk_data_leads_elsewhere(path: str, north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, make_instance())
    assert radiologist.get(f"{address(Instance.objects.get())}/bulkdata/{path}").status_code in {301, 404}


@pytest.mark.parametrize(
    "ranges", ["bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), "bytes=0-,0-,0-", "lines=1-2"]
)
def test_many_ranges_are_one_whole(ranges: str, north: Any, ingest_files: Any, radiologist: Client) -> None:
    ingest_files(north, make_instance())
    answer = radiologist.get(address(Instance.objects.get(), "/bulkdata/7FE00010"), HTTP_RANGE=ranges)
    assert (answer.status_code, len(body_of(answer))) == (200, 64 * 64 * 2)


@pytest.mark.parametrize("value", ["%00", "no%00rth", "north'--", "%C3%BC" * 3000])
def test_no_name_of_a_site_breaks_it(value: str, technologist: Client) -> None:
    for path in ("studies", "workitems", "color-palettes"):
        answer = technologist.post(f"/dicom-web/{path}?site={value}", make_instance(), content_type="application/dicom")
        assert answer.status_code == 403


def test_a_compressed_body_is_refused_by_name(technologist: Client) -> None:
    for path, kind in (
        ("studies", "application/dicom"),
        ("workitems", "application/dicom+json"),
        ("color-palettes", "application/dicom"),
    ):
        answer = technologist.post(f"/dicom-web/{path}", b"\x1f\x8b", kind, HTTP_CONTENT_ENCODING="gzip")
        assert answer.status_code == 415
        assert answer["Accept-Encoding"] == "identity"
    assert not Study.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"7FE00010": {"vr": ["OW"], "BulkDataURI": "a"}},
        {"7FE00010": {"vr": {}, "BulkDataURI": "a"}},
        {"7FE00010": {"vr": "OW", "BulkDataURI": "http://[::1"}},
        {"7FE00010": {"vr": "OW", "BulkDataURI": {}}},
        {"00091010": {"vr": "OB", "BulkDataURI": "http://[::1"}},
        {"00091010": {"vr": "OB", "BulkDataURI": 7}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "\ud800"}]}},
        {"00080018": {"vr": "UI", "Value": ["\ud800"]}},
        {"00080018": {"vr": "UI", "Value": [{}]}},
        {"0020000D": {"vr": "UI", "Value": ["1.2\x00.3"]}},
        {"00280010": {"vr": "US", "Value": [99999999]}},
        {"00280008": {"vr": "IS", "Value": ["9" * 400]}},
    ],
    ids=str,
)
def test_hostile_metadata_are_an_instance_or_refused(change: dict[str, Any], technologist: Client) -> None:
    content = make_instance(**UIDS)
    metadata = json.dumps([metadata_of(content, "a") | change]).encode()
    bulk = [
        ({"Content-Type": "application/octet-stream", "Content-Location": name}, content[-8192:])
        for name in ("a", "http://[")
    ]
    body = message(({"Content-Type": "application/dicom+json"}, metadata), *bulk)
    for accept in ("application/dicom+json", "application/dicom+xml"):
        answer = technologist.post("/dicom-web/studies", body, content_type=JSON, HTTP_ACCEPT=accept)
        assert answer.status_code in {200, 202, 409}, answer.content
    for instance in Instance.objects.select_related("series__study"):
        assert technologist.get(address(instance, "/metadata")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"00400275":{"vr":"SQ","Value":[' * 50_000,
        b"[" + b"{}," * 3_000_000 + b"{}]",
        b'[{"00080018":{"vr":"UI","Value":["1"]}}' + b',{"00080018":{}}' * 2000 + b"]",
    ],
    ids=["brackets", "sequences", "empty objects", "many instances"],
)
def test_deep_and_wide_metadata_are_refused(body: bytes, technologist: Client) -> None:
    wrapped = message(({"Content-Type": "application/dicom+json"}, body))
    assert technologist.post("/dicom-web/studies", wrapped, content_type=JSON).status_code in {400, 409, 413}
    if len(body) < 8 << 20:
        answer = technologist.post("/dicom-web/workitems", body, content_type="application/dicom+json")
        assert answer.status_code == 400


def test_xml_that_grows_is_refused(technologist: Client) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><NativeDicomModel>&b;</NativeDicomModel>'
    deep = b"<NativeDicomModel>" + b'<DicomAttribute tag="00400275" vr="SQ"><Item number="1">' * 5000
    wide = b"<NativeDicomModel>" + b"<a/>" * 2_100_000
    kind = JSON.replace("+json", "+xml")
    for body in (bomb, deep, wide):
        wrapped = message(({"Content-Type": "application/dicom+xml"}, body))
        assert technologist.post("/dicom-web/studies", wrapped, content_type=kind).status_code in {400, 413}
    answer = technologist.post("/dicom-web/workitems", bomb, content_type="application/dicom+xml")
    assert answer.status_code == 400


@pytest.mark.parametrize("boundary", ["x" * 100_000, "", '"', "a\\", "é", "--", "=?utf-8?q?a?="])
def test_no_boundary_breaks_it(boundary: str, technologist: Client) -> None:
    for kind in ("application/dicom", "application/dicom+json"):
        answer = technologist.post(
            "/dicom-web/studies",
            b"--" + boundary.encode() + b"\r\n\r\nx\r\n--" + boundary.encode() + b"--\r\n",
            content_type=f'multipart/related; type="{kind}"; boundary={boundary}',
        )
        assert answer.status_code in {400, 409}


def test_headers_of_a_part_are_bounded(technologist: Client) -> None:
    for head in (b"X: " + b"a" * 100_000, b"X: a\r\n" * 20_000):
        body = b"--frontier\r\n" + head + b"\r\n\r\nx\r\n--frontier--\r\n"
        answer = technologist.post("/dicom-web/studies", body, content_type=JSON.replace("+json", ""))
        assert answer.status_code == 400


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_zip_that_grows_beyond_what_may_be_stored_is_refused(technologist: Client, settings: LazySettings) -> None:
    """A hundred files that each shrink to a tenth stay under every limit of one file."""
    settings.ATRIUM = replace(settings.ATRIUM, largest_store=1 << 20)
    blank = bytes(64) + bytes(random.Random(1).randbytes(1024)) * 63
    bomb = zipped({str(n): blank for n in range(100)})
    assert len(bomb) < 1 << 20
    assert technologist.post("/dicom-web/studies", bomb, content_type="application/zip").status_code == 413
    assert list(Path(settings.STAGING_ROOT).iterdir()) == []


def test_names_in_a_zip_are_never_paths(technologist: Client, settings: LazySettings, tmp_path: Path) -> None:
    body = zipped({"../../../evil.dcm": make_instance(**UIDS), "/etc/evil": make_instance(), "a\x00b": b"x"})
    assert technologist.post("/dicom-web/studies", body, content_type="application/zip").status_code == 202
    assert not list(tmp_path.rglob("evil*"))
    assert Instance.objects.count() == 2


@pytest.mark.parametrize(
    "keywords",
    [
        {"ScheduledProcedureStepStartDateTime": "00010101000000+1400"},
        {"ScheduledProcedureStepStartDateTime": "99991231235959-1200"},
        {"ScheduledProcedureStepStartDateTime": "20260901", "TimezoneOffsetFromUTC": "+9999"},
        {"PatientName": "\ud800"},
        {"ProcedureStepLabel": "a\ud800"},
        {"PatientBirthDate": "00000000"},
    ],
    ids=str,
)
def test_hostile_workitems_are_made_or_refused(keywords: dict[str, str], technologist: Client) -> None:
    content = scheduled().to_json_dict()
    for keyword, value in keywords.items():
        vr = {"PatientName": "PN"}.get(keyword, "LO")
        tag = f"{pydicom.datadict.tag_for_keyword(keyword):08X}"
        content[tag] = {"vr": vr, "Value": [{"Alphabetic": value} if vr == "PN" else value]}
    answer = technologist.post("/dicom-web/workitems", json.dumps([content]), content_type="application/dicom+json")
    assert answer.status_code in {201, 400}, answer.content
    for moment in ("00010101000000+1400", "99991231235959-1200", "0001", "9999", "-0001", "9999-"):
        found = technologist.get("/dicom-web/workitems", {"ScheduledProcedureStepStartDateTime": moment})
        assert found.status_code in {200, 204, 400}, moment


def deep_sequence(depth: int) -> bytes:
    """Give a data set in which a sequence holds an item that holds a sequence, and so on."""
    head = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    tail = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return head * depth + tail * depth


def test_an_object_as_deep_as_the_sea_is_refused(technologist: Client) -> None:
    for content, path in ((make_instance(), "studies"), (palette(), "color-palettes")):
        deep = content[:-8204] + deep_sequence(3000) if path == "studies" else content + deep_sequence(3000)
        answer = technologist.post(f"/dicom-web/{path}", deep, content_type="application/dicom")
        assert answer.status_code in {200, 409}
        if answer.status_code == 200 and path == "studies":
            assert technologist.get(address(Instance.objects.get(), "/metadata")).status_code == 200


def test_a_palettes_null_characters_are_left_out_and_its_backslashes_are_not(technologist: Client) -> None:
    """In JSON both are written with a backslash and a u."""
    dataset = pydicom.dcmread(BytesIO(palette()))
    dataset.add_new(0x00091010, "UT", "a\x00b\\u0000c")
    buffer = BytesIO()
    dataset.save_as(buffer)
    assert technologist.post(PALETTES, buffer.getvalue(), content_type="application/dicom").status_code == 200
    kept = NonPatientInstance.objects.get().attributes["00091010"]["Value"]
    assert kept == ["ab\\u0000c"]


HOSTILE_VALUES: dict[str, list[Any]] = {
    "DS": ["", "1e308", "-1", "nan", "1\\2\\3\\4\\5\\6\\7"],
    "IS": ["", "-1", "99999999999", "0", "1\\2"],
    "US": [0, 1, 65535],
    "CS": ["", "X" * 16, "A\\B"],
}
KEPT = {0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E}


def variants(content: bytes, most: int) -> Iterator[bytes]:
    """Give an object again and again, each time with one element broken: absent, empty or beyond all sense."""
    original = pydicom.dcmread(BytesIO(content))
    # The top level, and the first item of each sequence.
    places: list[list[Any]] = [[], *([e.tag] for e in original if e.VR == "SQ" and len(e.value))]
    changes = [
        (place, tag, level[tag].VR, value)
        for place in places
        for level in [original[place[0]].value[0] if place else original]
        for tag in list(level.keys())
        if place or tag not in KEPT
        for value in [*HOSTILE_VALUES.get(level[tag].VR, [None]), KeyError]
    ]
    for place, tag, vr, value in random.Random(1).sample(changes, min(most, len(changes))):
        broken = pydicom.dcmread(BytesIO(content))
        inner = broken[place[0]].value[0] if place else broken
        buffer = BytesIO()
        with pydicom.config.disable_value_validation():
            try:
                if value is KeyError:
                    del inner[tag]
                else:
                    inner[tag] = pydicom.DataElement(tag, vr, value)
                broken.save_as(buffer)
            except Exception:  # what pydicom doesn't write nobody sends by pydicom
                continue
        yield buffer.getvalue()


def state_of(image: Instance) -> bytes:
    circle = Dataset()
    circle.GraphicAnnotationUnits, circle.GraphicType = "PIXEL", "CIRCLE"
    circle.GraphicDimensions, circle.NumberOfGraphicPoints = 2, 2
    circle.GraphicData, circle.GraphicFilled = [2.5, 7.5, 3.5, 7.5], "Y"
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicObjectSequence = "A", [circle]
    voi = Dataset()
    voi.WindowCenter, voi.WindowWidth = 500.5, 1001
    return make_presentation_state(
        image,
        SoftcopyVOILUTSequence=[voi],
        GraphicAnnotationSequence=[layer],
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=1,
        ShutterRightVerticalEdge=9,
        ShutterUpperHorizontalEdge=1,
        ShutterLowerHorizontalEdge=10,
        ShutterPresentationValue=0x8000,
        ImageRotation=90,
        ImageHorizontalFlip="N",
    )


def report() -> bytes:
    finding = Dataset()
    finding.RelationshipType, finding.ValueType, finding.TextValue = "CONTAINS", "TEXT", "x"
    dataset = Dataset()
    dataset.ValueType, dataset.ContentSequence = "CONTAINER", Sequence([finding])
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "VERIFIED"
    return as_file(dataset, BasicTextSRStorage)


def image(**keywords: Any) -> bytes:
    pixels = np.arange(2 * 8 * 8, dtype=np.uint16).reshape(2, 8, 8)
    described = {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": 0, "FrameTime": 50}
    return make_instance(
        pixels=pixels, **{**UIDS, **described, "RepresentativeFrameNumber": 2, "PixelSpacing": [1, 2], **keywords}
    )


# Drawing an ECG takes a second.
@pytest.mark.parametrize(("kind", "most"), [("image", 25), ("state", 25), ("report", 20), ("ecg", 4), ("pdf", 12)])
def test_no_value_of_an_object_breaks_what_is_shown_of_it(
    kind: str, most: int, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_instance(**UIDS, pixels=np.ones((10, 10), np.uint16)))
    made = {
        "image": image,
        "state": lambda: state_of(Instance.objects.get()),
        "report": report,
        "ecg": lambda: Path(str(pydicom.data.get_testdata_file("waveform_ecg.dcm"))).read_bytes(),
        "pdf": lambda: make_pdf_object(b"%PDF-1.4 no pdf".ljust(2000)),
    }[kind]
    wrong = []
    for content in variants(made(), most):
        (outcome,) = ingest_files(north, content)
        if not outcome.is_in:
            continue
        instance = Instance.objects.filter(sop_instance_uid=outcome.sop_instance_uid).latest("pk")
        for below in (
            "/rendered",
            "/rendered?annotation=patient,technique&viewport=9,9",
            "/thumbnail",
            "/metadata",
            "/bulkdata",
        ):
            answer = radiologist.get(address(instance, below))
            body_of(answer)
            if answer.status_code not in {200, 404, 406}:
                wrong.append((below, answer.status_code))
        Instance.objects.filter(pk=instance.pk).delete()
    assert wrong == []


@pytest.mark.parametrize("viewport", ["9,9,0,0,1000000,1000000", "9,9,5,5,999999999,1", "4096,4096,0,0,0.001,0.001"])
def test_no_viewport_costs_memory_without_bound(
    viewport: str, north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, image())
    answer = radiologist.get(address(Instance.objects.get(), f"/frames/1/rendered?viewport={viewport}"))
    assert answer.status_code in {200, 400, 406}


def test_lines_on_a_narrow_picture_cost_no_more_memory_than_a_usual_one(
    north: Any, ingest_files: Any, radiologist: Client
) -> None:
    ingest_files(north, make_instance(**UIDS, pixels=np.ones((60_000, 1), np.uint16)))
    (outcome,) = ingest_files(north, state_of(Instance.objects.get()))
    state = Instance.objects.get(sop_instance_uid=outcome.sop_instance_uid)
    assert radiologist.get(address(state, "/rendered?viewport=100,100")).status_code == 200


@pytest.mark.parametrize("stranger", ["southradiologist", "compliance", "nobody"])
def test_nothing_of_another_sites_study_is_given_by_any_resource(
    stranger: str, north: Any, ingest_files: Any, client_of: Any, technologist: Client
) -> None:
    secret = "Secretperson^Sue"
    ingest_files(north, image(PatientName=secret))
    (outcome,) = ingest_files(north, state_of(Instance.objects.get()))
    found = Instance.objects.exclude(sop_instance_uid=outcome.sop_instance_uid).get()
    work = json.dumps([scheduled(PatientName=secret).to_json_dict()])
    item = technologist.post("/dicom-web/workitems?workitem=1.5", work, content_type="application/dicom+json")
    assert item.status_code == 201
    technologist.post(PALETTES, palette(label="SECRETPERSON"), content_type="application/dicom")
    browser = Client() if stranger == "nobody" else client_of(stranger)
    study, instance = f"/dicom-web/studies/{STUDY}", address(found)
    levels = (study, instance.rpartition("/instances/")[0], instance)
    paths = [f"{level}{below}" for level in levels for below in BELOW]
    paths += [f"{instance}{below}" for below in ("/frames/1/rendered", "/frames/1/thumbnail", "/frames/1,2")]
    paths += [f"{study}?accept=application/zip", f"{study}/series", f"{study}/instances", "/dicom-web/workitems/1.5"]
    paths += ["/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances", "/dicom-web/workitems", PALETTES]
    paths += ["/dicom-web/studies?PatientName=secret*&includefield=all", f"{PALETTES}/1.2.3.1"]
    wado = f"/wado?requestType=WADO&studyUID={STUDY}&seriesUID={found.series.series_instance_uid}"
    paths += [f"{wado}&objectUID={found.sop_instance_uid}{more}" for more in ("", "&contentType=application/dicom")]
    for path in paths:
        answer = browser.get(path)
        assert answer.status_code in {204, 401, 403, 404}, path
        assert b"secretperson" not in body_of(answer).lower(), path
    for method in ("post", "put", "delete"):
        for path in (study, instance, "/dicom-web/workitems/1.5", "/dicom-web/workitems/1.5/state"):
            answer = getattr(browser, method)(path)
            assert answer.status_code in {400, 401, 403, 404, 405, 415}, (method, path)
            assert b"secretperson" not in body_of(answer).lower(), path
    assert Instance.objects.count() == 2


def test_a_presentation_state_of_another_site_is_not_laid_over_ones_own_image(
    north: Any, south: Any, ingest_files: Any, client_of: Any
) -> None:
    """The same study lies at both sites; only the other one has a state for it."""
    content = image()
    ingest_files(south, content)
    own = Instance.objects.get()
    ingest_files(north, content)
    (outcome,) = ingest_files(north, state_of(own))
    answer = client_of("southradiologist").get(
        f"/wado?requestType=WADO&studyUID={STUDY}&seriesUID={own.series.series_instance_uid}"
        f"&objectUID={own.sop_instance_uid}&presentationUID={outcome.sop_instance_uid}"
    )
    assert answer.status_code == 404


def test_a_cookie_of_many_backslashes_costs_no_time() -> None:
    begun = time.process_time()
    credential = credential_of({"cookie": 'atrium_session="' + "\\" * LONG + '"'}, "127.0.0.1")
    assert time.process_time() - begun < 0.5
    assert credential is not None
    assert principal_of_credential(credential) is None
    two = {"cookie": "atrium_session=a; atrium_session=b"}
    assert credential_of(two, "127.0.0.1") is None
    one = credential_of({"cookie": "theme=dark; atrium_session=abc ; x=1"}, "127.0.0.1")
    assert one is not None
    assert one.session_key == "abc"
