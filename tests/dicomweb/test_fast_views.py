"""Searches and whole studies ahead of the middleware: the same answers as the views', the same gate, the same trail."""

from __future__ import annotations

import zipfile
from io import BytesIO
from types import ModuleType
from typing import Any

import pytest
from django.test import Client

from accounts import credentials
from accounts.capabilities import Capability
from accounts.services import create_api_token
from portal.audit.models import AuditEvent
from studies.dicomweb import fast_path, fast_views
from studies.models import Instance, Study
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
# Django's test client has no server's name to give, and no length.
BESIDES = {"content-length", "x-request-id", "vary"}


@pytest.fixture(autouse=True)
def _inside_the_tests_own_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.forget_all()
    # A server's thread gives its connection back between requests; this one holds the test's transaction.
    for shortcut in (fast_views, fast_path):
        monkeypatch.setattr(shortcut, "close_old_connections", lambda: None)


def shortcut(path: str, query: str = "", by: ModuleType = fast_views, **headers: str) -> Any:
    sent = [(b"host", b"testserver"), *((n.replace("_", "-").encode(), v.encode()) for n, v in headers.items())]
    scope = {"method": "GET", "path": path, "query_string": query.encode(), "headers": sent, "scheme": "http"}
    return by.answer(scope | {"client": ("127.0.0.1", 5000)})


def files_in(content: bytes) -> dict[str, bytes]:
    """Give the files of a ZIP by name; the directory's own UID is new each time."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "DICOMDIR"}


@pytest.fixture
def token(north: Any, ingest_files: Any, token_of: Any) -> str:
    ingest_files(north, make_instance(StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3", PatientName="Åberg^Bo"))
    text: str = token_of("radiologist")
    return text


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("studies", ""),
        ("studies", "PatientName=%C3%A5berg&includefield=all&fuzzymatching=true"),
        ("studies", "PatientID=nobody"),
        ("studies", "limit=0&KVP=1"),
        ("series", "Modality=CT"),
        ("instances", "StudyInstanceUID=1.2"),
        ("studies/1.2/series", ""),
        ("studies/1.2/instances", "limit=1"),
        ("studies/1.2/series/1.2.3/instances", "includefield=ImageType"),
    ],
)
def test_it_answers_as_the_views_do(path: str, query: str, token: str) -> None:
    address = f"/dicom-web/{path}"
    view = Client(HTTP_AUTHORIZATION=f"Bearer {token}").get(
        f"{address}?{query}", headers={"X-Request-ID": "the-same-id"}
    )
    answer = shortcut(address, query, authorization=f"Bearer {token}", x_request_id="the-same-id")
    assert (answer.status, answer.body) == (view.status_code, view.content)
    headers = {name.decode().lower(): value.decode() for name, value in answer.headers}
    assert headers["content-length"] == str(len(view.content))
    assert headers["x-request-id"] == view["X-Request-ID"]
    expected = {name.lower(): value for name, value in view.items()}
    assert {n: v for n, v in headers.items() if n not in BESIDES} == {
        n: v for n, v in expected.items() if n not in BESIDES
    }
    events = [
        (event.details, event.username, event.request_id, event.study_instance_uid)
        for event in AuditEvent.objects.filter(action=AuditEvent.Action.SEARCH)
    ]
    # Below a study one event stands for both.
    assert events == ([events[0]] if path.startswith("studies/") else [events[0]] * 2)


@pytest.mark.parametrize("path", ["studies/1.2", "studies/1.2/series/1.2.3"])
@pytest.mark.parametrize(
    ("accept", "by"),
    [
        ("*/*", fast_path),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', fast_path),
        ("*/*", fast_views),
        ('multipart/related; type="application/octet-stream"', fast_views),
        ("application/zip", fast_views),
    ],
)
def test_it_retrieves_as_the_views_do(path: str, accept: str, by: ModuleType, token: str) -> None:
    address, sent = f"/dicom-web/{path}", {"authorization": f"Bearer {token}", "x_request_id": "the-same-id"}
    view = Client().get(address, headers={**sent, "accept": accept})
    response = shortcut(address, by=by, accept=accept, **sent)
    assert (response.status_code, dict(response.items())) == (200, dict(view.items()))
    one, other = (b"".join(answer.streaming_content) for answer in (response, view))
    assert one == other if accept != "application/zip" else files_in(one) == files_in(other)
    known = shortcut(address, by=by, accept=accept, if_none_match=view["ETag"], **sent)
    assert (known.status, known.body) == (304, b"")
    (event,) = AuditEvent.objects.filter(action=AuditEvent.Action.RETRIEVE)
    assert (event.request_id, event.details["way"]) == ("the-same-id", "wado")


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("studies/1.2", "application/zip"),
        ("studies/1.2", 'multipart/related; type="application/octet-stream"'),
        ("studies/1.2", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.5'),
        ("studies/1.2/series/9", "*/*"),
        ("studies/9", "*/*"),
    ],
)
def test_files_in_other_forms_are_left_to_the_views(path: str, accept: str, token: str) -> None:
    assert shortcut(f"/dicom-web/{path}", by=fast_path, accept=accept, authorization=f"Bearer {token}") is None


@pytest.mark.parametrize("below", ["", "/series/1.2.3", "/series/1.2.3/instances/1.2.3.9"])
def test_what_is_corrected_is_left_to_the_views_from_the_commit_on(below: str, token: str) -> None:
    Instance.objects.update(sop_instance_uid="1.2.3.9")
    sent = {"authorization": f"Bearer {token}", "accept": "application/dicom; transfer-syntax=*"}
    assert shortcut(f"/dicom-web/studies/1.2{below}", by=fast_path, **sent) is not None
    # As another process does it: nothing is forgotten here.
    Study.objects.update(corrections={"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Other^Name"}]}})
    assert shortcut(f"/dicom-web/studies/1.2{below}", by=fast_path, **sent) is None


def test_what_a_strange_host_is_refused_leaves_no_trace_of_a_retrieval(token: str) -> None:
    headers = [(b"host", b"evil.example"), (b"authorization", f"Bearer {token}".encode())]
    scope: Any = {"method": "GET", "path": "/dicom-web/studies/1.2", "query_string": b"", "scheme": "http"}
    assert fast_path.answer({**scope, "headers": headers, "client": ("127.0.0.1", 5000)}) is None
    assert not AuditEvent.objects.filter(action=AuditEvent.Action.RETRIEVE).exists()


def test_a_right_taken_away_while_it_is_asked_for_is_not_remembered(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visible = fast_path.studies_visible_to

    def asked(principal: Any) -> Any:
        found = visible(principal)
        credentials.forget_all()
        return found

    monkeypatch.setattr(fast_path, "studies_visible_to", asked)
    assert shortcut("/dicom-web/studies/1.2", by=fast_path, authorization=f"Bearer {token}") is not None
    assert not fast_path._grants._values


@pytest.mark.parametrize("path", ["studies", "studies/1.2"])
def test_headers_that_only_the_server_can_read_are_left_to_it(path: str, token: str) -> None:
    scope = {"method": "GET", "path": f"/dicom-web/{path}", "query_string": b"", "scheme": "http"}
    known = [(b"host", b"testserver"), (b"authorization", f"Bearer {token}".encode())]
    for beside in (
        [(b"accept", b"application/zip"), (b"accept", b"*/*;q=0.1")],
        [(b"authorization", b"Bearer nonsense")],
        [(b"if_none_match", b"*")],
    ):
        asked = {**scope, "headers": [*known, *beside], "client": ("127.0.0.1", 5000)}
        assert fast_views.answer(asked) is None


def test_what_the_views_have_to_say_keeps_the_request_id(token: str) -> None:
    scope = {"method": "GET", "path": "/dicom-web/studies/1.2", "query_string": b"", "scheme": "http"}
    headers = [(b"host", b"testserver"), (b"authorization", f"Bearer {token}".encode()), (b"accept", b"text/html")]
    asked: Any = {**scope, "headers": headers, "client": ("127.0.0.1", 5000)}
    assert fast_views.answer(asked) is None
    ((_, given),) = [header for header in asked["headers"] if header[0] == b"x-request-id"]
    (event,) = AuditEvent.objects.filter(action=AuditEvent.Action.RETRIEVE)
    assert event.request_id == given.decode()


def test_a_session_searches_too(token: str, client_of: Any) -> None:
    browser = client_of("radiologist")
    cookie = f"atrium_session={browser.cookies['atrium_session'].value}"
    assert shortcut("/dicom-web/studies", cookie=cookie).status == 200


def test_whoever_may_not_and_whatever_is_wrong_is_left_to_the_views(token: str, people: Any) -> None:
    assert shortcut("/dicom-web/studies") is None
    assert shortcut("/dicom-web/studies", authorization="Bearer nonsense") is None
    _, narrow = create_api_token(user=people["radiologist"], name="narrow", capabilities=[Capability.STUDY_UPLOAD])
    assert shortcut("/dicom-web/studies", authorization=f"Bearer {narrow}") is None
    for query in ("StudyDate=soon", "limit=x", "PatientName=M%FCller", "&".join(f"a{n}=1" for n in range(3000))):
        assert shortcut("/dicom-web/studies", query, authorization=f"Bearer {token}") is None
    assert shortcut("/dicom-web/studies", accept="text/html", authorization=f"Bearer {token}") is None
    assert shortcut("/dicom-web/studies/1.2/metadata", authorization=f"Bearer {token}") is None
    for path, accept in (("studies/1.2", "text/html"), ("studies/9.9", "*/*"), ("studies/1.2/series/9.9", "*/*")):
        assert shortcut(f"/dicom-web/{path}", accept=accept, authorization=f"Bearer {token}") is None
    assert AuditEvent.objects.filter(action=AuditEvent.Action.SEARCH).count() == 0


def test_another_sites_person_finds_nothing(token: str, token_of: Any) -> None:
    answer = shortcut("/dicom-web/studies", authorization=f"Bearer {token_of('southradiologist')}")
    assert (answer.status, answer.body) == (204, b"")
    assert shortcut("/dicom-web/studies/1.2", authorization=f"Bearer {token_of('southradiologist')}") is None
