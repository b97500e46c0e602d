"""STOW-RS and QIDO-RS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies.dicomweb.multipart import BrokenBody, Multipart
from studies.ingest.models import QuarantinedFile
from studies.models import Study
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STOW = 'multipart/related; type="application/dicom"; boundary=frontier'


def body_of(*files: bytes, closed: bool = True) -> bytes:
    parts = b"".join(b"--frontier\r\nContent-Type: application/dicom\r\n\r\n" + f + b"\r\n" for f in files)
    return parts + (b"--frontier--\r\n" if closed else b"")


@pytest.fixture
def send(token_of: Any) -> Any:
    header = {"HTTP_AUTHORIZATION": f"Bearer {token_of('technologist')}"}

    def post(body: bytes, path: str = "/dicom-web/studies", content_type: str = STOW) -> Any:
        return Client().post(path, body, content_type=content_type, **header)

    return post


def test_all_stored_is_200_with_where_to_find_them(send: Any) -> None:
    answer = send(body_of(make_instance(StudyInstanceUID="1.2.3"), make_instance(StudyInstanceUID="1.2.3")))
    assert answer.status_code == 200
    content = answer.json()
    assert len(content["00081199"]["Value"]) == 2
    assert "00081198" not in content
    assert content["00081190"]["Value"][0].endswith("/dicom-web/studies/1.2.3")


def test_some_refused_is_202_and_none_stored_is_409(send: Any) -> None:
    mixed = send(body_of(make_instance(), b"no dicom"))
    assert mixed.status_code == 202
    assert mixed.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert send(body_of(b"no dicom")).status_code == 409
    assert QuarantinedFile.objects.count() == 2


def test_an_instance_of_another_study_than_the_address_names_is_refused(send: Any) -> None:
    answer = send(body_of(make_instance(StudyInstanceUID="1.2.3")), path="/dicom-web/studies/1.2.4")
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]


def test_a_body_cut_short_loses_no_part_that_was_whole(send: Any) -> None:
    whole, cut = make_instance(), make_instance()
    answer = send(body_of(whole)[: -len(b"--frontier--\r\n")] + b"--frontier\r\n\r\n" + cut[:200])
    assert answer.status_code == 202
    assert Study.objects.count() == 1


def test_what_is_no_dicom_message_is_told_so(send: Any) -> None:
    assert send(b"{}", content_type="application/json").status_code == 415
    assert send(b"nothing").status_code == 400
    assert send(b"x", content_type="multipart/related; type=application/dicom").status_code == 400


def test_a_sent_second_version_is_a_warning(send: Any) -> None:
    send(body_of(make_instance(SOPInstanceUID="1.9", StudyInstanceUID="1.2", SeriesInstanceUID="1.3")))
    again = make_instance(SOPInstanceUID="1.9", StudyInstanceUID="1.2", SeriesInstanceUID="1.3", WindowCenter=1)
    answer = send(body_of(again))
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB000]


def test_every_malformed_real_file_is_refused_and_kept(shared: Path, send: Any) -> None:
    files = sorted((shared / "dicom" / "malformed").iterdir())
    for file in files:
        answer = send(body_of(file.read_bytes()))
        assert answer.status_code == 409, file.name
        content = answer.json()
        (failure,) = content.get("00081198", content.get("0008119A"))["Value"]
        assert failure["00000902"]["Value"][0]
    assert QuarantinedFile.objects.count() == len(files)


def test_one_without_the_capability_stores_nothing(client_of: Any, token_of: Any) -> None:
    token = {"HTTP_AUTHORIZATION": f"Bearer {token_of('referrer')}"}
    assert Client().post("/dicom-web/studies", body_of(make_instance()), content_type=STOW, **token).status_code == 403
    assert Client().post("/dicom-web/studies", body_of(make_instance()), content_type=STOW).status_code == 401
    assert Study.objects.count() == 0


def test_a_browser_needs_the_csrf_token(people: Any) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(people["technologist"], backend="allauth.account.auth_backends.AuthenticationBackend")
    assert browser.post("/dicom-web/studies", body_of(make_instance()), content_type=STOW).status_code == 403


@given(
    parts=st.lists(st.binary(max_size=600), min_size=1, max_size=5),
    chunk=st.integers(1, 64),
)
@settings(max_examples=80, deadline=None)
def test_parts_are_found_however_the_stream_is_cut(parts: list[bytes], chunk: int) -> None:
    parts = [p.replace(b"--frontier", b"") for p in parts]
    body = b"preamble\r\n" + body_of(*parts)

    class Trickle:
        place = 0

        def read(self, size: int = -1) -> bytes:
            piece = body[self.place : self.place + chunk]
            self.place += chunk
            return piece

    assert [b"".join(p.chunks) for p in Multipart(Trickle(), b"frontier")] == parts


@given(body=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_message_or_a_broken_one(body: bytes) -> None:
    class Once:
        def __init__(self) -> None:
            self.left = body

        def read(self, size: int = -1) -> bytes:
            piece, self.left = self.left, b""
            return piece

    try:
        for part in Multipart(Once(), b"x"):
            list(part.chunks)
    except BrokenBody:
        return


@pytest.fixture
def found(north: Any, ingest_files: Any, client_of: Any) -> Any:
    ingest_files(
        north,
        make_instance(
            PatientName="Müller^Jürgen", PatientID="M1", StudyDate="20260901", Modality="CT", AccessionNumber="A1"
        ),
        make_instance(
            PatientName="Muller^Anna", PatientID="M2", StudyDate="20260915", Modality="MR", AccessionNumber="A2"
        ),
        make_instance(PatientName="Doe^Jane", PatientID="D1", StudyDate="", Modality="US", AccessionNumber="A3"),
    )
    browser = client_of("radiologist")

    def search(query: str) -> list[str]:
        answer = browser.get(f"/dicom-web/studies?{query}")
        assert answer.status_code in {200, 204}, answer.content
        return sorted(s["00100020"]["Value"][0] for s in answer.json()) if answer.status_code == 200 else []

    return search


@pytest.mark.parametrize(
    ("query", "patients"),
    [
        ("", ["D1", "M1", "M2"]),
        ("PatientID=M1", ["M1"]),
        ("00100020=M1", ["M1"]),
        ("PatientName=muller*", ["M1", "M2"]),
        ("PatientName=Müller", ["M1", "M2"]),
        ("PatientName=*jane", ["D1"]),
        ("PatientName=M?ller^Anna", ["M2"]),
        ("StudyDate=20260901", ["M1"]),
        ("StudyDate=20260901-20260914", ["M1"]),
        ("StudyDate=20260902-", ["M2"]),
        ("StudyDate=-20260901", ["M1"]),
        ("ModalitiesInStudy=MR", ["M2"]),
        ("ModalitiesInStudy=MR,CT", ["M1", "M2"]),
        ("AccessionNumber=A3&PatientID=D1", ["D1"]),
        ("AccessionNumber=A3&PatientID=M1", []),
        ("Modality=US", ["D1"]),
        ("PatientID=*&limit=101&offset=0&fuzzymatching=true&includefield=00081030,00080060", ["D1", "M1", "M2"]),
    ],
)
def test_a_search_finds_what_matches(query: str, patients: list[str], found: Any) -> None:
    assert found(query) == patients


def test_pages_are_cut_in_one_order(found: Any) -> None:
    assert len(found("limit=2")) == 2
    assert sorted(found("limit=2") + found("limit=2&offset=2")) == ["D1", "M1", "M2"]


def test_what_cannot_be_matched_is_told(found: Any, client_of: Any) -> None:
    browser = client_of("radiologist")
    for query in ("NoSuchAttribute=1", "StudyDate=yesterday", "limit=-1", "SeriesNumber=x", "StudyTime=99"):
        assert browser.get(f"/dicom-web/studies?{query}").status_code == 400
    assert "KVP" in browser.get("/dicom-web/studies?KVP=80")["Warning"]


def test_a_search_costs_the_same_however_many_are_found(
    found: Any, client_of: Any, django_assert_max_num_queries: Any
) -> None:
    browser = client_of("radiologist")
    # Two of them are the trail's.
    with django_assert_max_num_queries(10):
        assert len(browser.get("/dicom-web/studies").json()) == 3


@given(
    name=st.text(max_size=20), value=st.text(max_size=40), accept=st.text(st.characters(codec="latin-1"), max_size=60)
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_query_breaks_the_server(name: str, value: str, accept: str, client_of_radiologist: Client) -> None:
    accept = accept.replace("\r", "").replace("\n", "")
    for path in ("/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances"):
        for key in (name, "PatientName", "StudyDate", "StudyTime", "StudyInstanceUID", "InstanceNumber"):
            answer = client_of_radiologist.get(path, {key: value}, HTTP_ACCEPT=accept)
            assert answer.status_code < 500


@pytest.fixture
def client_of_radiologist(client_of: Any, north: Any, ingest_files: Any) -> Client:
    ingest_files(north, make_instance())
    browser: Client = client_of("radiologist")
    return browser
