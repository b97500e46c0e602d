"""The fast path through the real server: the same answers as the views, the same gate, the same trail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from accounts.credentials import REMEMBERED
from tests.factories import PASSWORD, make_instance
from tests.services.atrium import Atrium, running_atrium

STUDY = "/dicom-web/studies/1.2.3"
SERIES = f"{STUDY}/series/1.2.3.4"
INSTANCE = f"{SERIES}/instances/1.2.3.4.5"
OHIF_FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"
PIXELS = np.random.default_rng(1).integers(0, 60000, (3, 32, 48), dtype=np.uint16)
CODECS = ("CT1_J2KR.dcm", "SC1_JPLY.dcm")
# What a proxy may say of itself on the way; all else must be equal.
HOP = {"date", "transfer-encoding", "content-length", "server"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("fast"), "web") as atrium:
        uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
        files = [make_instance(pixels=PIXELS, SOPInstanceUID="1.2.3.4.5", **uids)]
        shared = Path(__file__).resolve().parents[3] / "shared" / "dicom" / "codecs"
        files += [(shared / name).read_bytes() for name in CODECS if shared.exists()]
        headers = {"Authorization": f"Bearer {atrium.token('technologist')}", "Content-Type": "application/dicom"}
        for content in files:
            requests.post(f"{atrium.url}/dicom-web/studies", content, headers=headers, timeout=30).raise_for_status()
        yield atrium


@pytest.fixture(scope="module")
def radiologist(server: Atrium) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {server.token('radiologist')}"
    return session


def sign_in(server: Atrium, username: str) -> requests.Session:
    browser = requests.Session()
    login = f"{server.url}/accounts/login/"
    browser.get(login, timeout=30)
    form = {"login": username, "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    browser.post(login, form, timeout=30, allow_redirects=False)
    return browser


def both_ways(server: Atrium, session: requests.Session, path: str, **headers: str) -> requests.Response:
    """Give the fast path's answer after proving that the view's is the same. A parameter keeps the fast path away."""
    headers = {"X-Request-ID": "one-and-the-same", **headers}
    views = session.get(f"{server.url}{path}?view=1", headers=headers, timeout=30)
    fast = session.get(f"{server.url}{path}", headers=headers, timeout=30)
    assert fast.status_code == views.status_code
    assert fast.content == views.content

    def shown(answer: requests.Response) -> dict[str, str]:
        return {name.lower(): value for name, value in answer.headers.items() if name.lower() not in HOP}

    assert shown(fast) == shown(views)
    return fast


@pytest.mark.parametrize("frames", ["1", "3,1,3"])
@pytest.mark.parametrize(
    "accept",
    [
        OHIF_FRAMES,
        'multipart/related; type="application/octet-stream"',
        'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1',
        "*/*",
    ],
)
def test_frames_are_those_of_the_view(server: Atrium, radiologist: requests.Session, accept: str, frames: str) -> None:
    # By a thread, and then by the event loop.
    for _ in range(2):
        answer = both_ways(server, radiologist, f"{INSTANCE}/frames/{frames}", Accept=accept)
        assert answer.status_code == 200
        for number in frames.split(","):
            assert PIXELS[int(number) - 1].tobytes() in answer.content
    for names in (answer.headers["ETag"], f"W/{answer.headers['ETag']}", f'"other", {answer.headers["ETag"]}', "*"):
        known = {"Accept": accept, "If-None-Match": names}
        assert both_ways(server, radiologist, f"{INSTANCE}/frames/{frames}", **known).status_code == 304


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        (f"{INSTANCE}/frames/1", "application/octet-stream", 200),
        (f"{INSTANCE}/frames/1", "image/jxl", 406),
        (f"{INSTANCE}/frames/4", OHIF_FRAMES, 404),
        (f"{INSTANCE}/frames/0", OHIF_FRAMES, 400),
        (f"{INSTANCE}/frames/1,,2", OHIF_FRAMES, 400),
        (f"{SERIES}/instances/9.9/frames/1", OHIF_FRAMES, 404),
        (f"{STUDY}/series/9.9/instances/1.2.3.4.5/frames/1", OHIF_FRAMES, 404),
        ("/dicom-web/studies/9.9/series/1.2.3.4/instances/1.2.3.4.5/frames/1", OHIF_FRAMES, 404),
        (INSTANCE, "application/dicom", 200),
        (INSTANCE, "application/dicom; transfer-syntax=*", 200),
        (INSTANCE, "text/html", 406),
        (STUDY, "*/*", 200),
        (STUDY, 'multipart/related; type="application/dicom"', 200),
        (STUDY, 'multipart/related; type="application/dicom"; transfer-syntax=*', 200),
        (STUDY, 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', 200),
        (STUDY, "text/html", 406),
        (SERIES, 'multipart/related; type="application/dicom"', 200),
        (f"{STUDY}/series/9.9", "*/*", 404),
        ("/dicom-web/studies/9.9", "*/*", 404),
        (f"{SERIES}/metadata", "application/dicom+json", 200),
        (f"{SERIES}/metadata", "application/json", 200),
        (f"{SERIES}/metadata", "text/html", 406),
        (f"{STUDY}/series/9.9/metadata", "application/dicom+json", 404),
    ],
)
def test_everything_else_is_as_the_views_say(
    server: Atrium, radiologist: requests.Session, path: str, accept: str, status: int
) -> None:
    answer = both_ways(server, radiologist, path, Accept=accept)
    assert answer.status_code == status
    if status == 200 and "ETag" in answer.headers:
        again = both_ways(server, radiologist, path, Accept=accept, **{"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304


def test_every_answer_carries_the_protecting_headers(server: Atrium, radiologist: requests.Session) -> None:
    answer = radiologist.get(f"{server.url}{INSTANCE}/frames/1", headers={"Accept": OHIF_FRAMES}, timeout=30)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src" in answer.headers["Content-Security-Policy"]
    assert "private" in answer.headers["Cache-Control"]
    assert "Cookie" in answer.headers["Vary"]
    assert answer.headers["X-Request-ID"]


def test_compressed_frames_too(server: Atrium, radiologist: requests.Session, shared: Path) -> None:
    dataset = pydicom.dcmread(shared / "dicom" / "codecs" / "CT1_J2KR.dcm")
    path = (
        f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}/frames/1"
    )
    for accept in (OHIF_FRAMES, 'multipart/related; type="image/jp2"', "image/jp2", "image/*", "multipart/*"):
        both_ways(server, radiologist, path, Accept=accept)
    # What is wanted most isn't what is stored, and can be made.
    for accept in ("image/jls, image/jp2", f"image/jls, {OHIF_FRAMES}"):
        answer = both_ways(server, radiologist, path, Accept=accept)
        assert answer.headers["Content-Type"].startswith("image/jls")


@pytest.mark.parametrize("name", CODECS)
def test_whole_files_of_compressed_pixels_too(
    name: str, server: Atrium, radiologist: requests.Session, shared: Path
) -> None:
    file = shared / "dicom" / "codecs" / name
    dataset = pydicom.dcmread(file)
    path = (
        f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )
    stored = both_ways(server, radiologist, path, Accept="application/dicom; transfer-syntax=*")
    assert stored.content == file.read_bytes()
    given = both_ways(server, radiologist, path, Accept="application/dicom")
    # Without loss it's given as Explicit VR Little Endian, with loss as it is.
    assert (given.content == stored.content) == (name == "SC1_JPLY.dcm")
    assert (given.headers["ETag"] == stored.headers["ETag"]) == (name == "SC1_JPLY.dcm")


def test_the_same_people_see_it(server: Atrium) -> None:
    path = f"{INSTANCE}/frames/1"
    for username, status in (("radiologist", 200), ("referrer", 200), ("southradiologist", 404), ("compliance", 403)):
        answer = both_ways(server, sign_in(server, username), path, Accept=OHIF_FRAMES)
        assert answer.status_code == status, username
    assert both_ways(server, requests.Session(), path).status_code == 401
    void = requests.Session()
    void.headers["Authorization"] = "Bearer atrium_void"
    assert both_ways(server, void, path).status_code == 401
    forged = requests.Session()
    forged.cookies.set("atrium_session", "0123456789abcdef0123456789abcdef")
    assert both_ways(server, forged, path).status_code == 401


def test_signing_out_ends_it_at_once(server: Atrium) -> None:
    browser = sign_in(server, "radiologist")
    assert browser.get(f"{server.url}{INSTANCE}/frames/1", timeout=30).status_code == 200
    key = browser.cookies["atrium_session"]
    form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    browser.post(f"{server.url}/accounts/logout/", form, timeout=30)
    kept = requests.Session()
    kept.cookies.set("atrium_session", key)
    assert kept.get(f"{server.url}{INSTANCE}/frames/1", timeout=30).status_code == 401


def test_a_revoked_token_is_void_within_the_promised_seconds(server: Atrium) -> None:
    headers = {"Authorization": f"Bearer {server.token('resident')}", "Accept": OHIF_FRAMES}
    assert requests.get(f"{server.url}{INSTANCE}/frames/1", headers=headers, timeout=30).status_code == 200
    revoke = (
        "from accounts.models import ApiToken; from django.utils.timezone import now; "
        "ApiToken.objects.filter(user__username='resident').update(revoked_at=now())"
    )
    server.manage("shell", "--no-imports", "-c", revoke)
    deadline = time.monotonic() + REMEMBERED
    while requests.get(f"{server.url}{INSTANCE}/frames/1", headers=headers, timeout=30).status_code != 401:
        assert time.monotonic() < deadline


def test_the_trail_names_who_looked_and_counts_what(server: Atrium) -> None:
    headers = {"Authorization": f"Bearer {server.token('admin')}", "Accept": OHIF_FRAMES}
    for _ in range(3):
        requests.get(f"{server.url}{INSTANCE}/frames/1,2", headers=headers, timeout=30).raise_for_status()
    server.stop()
    count = (
        "import time; from portal.audit.services import close_viewing_windows as c; c(now=time.time() + 2000); "
        "from portal.audit.models import AuditEvent as A; "
        "print([e.details for e in A.objects.filter(username='admin', action='retrieve').order_by('sequence')])"
    )
    begun, total = eval(server.manage("shell", "--no-imports", "-c", count))
    assert begun["way"] == "frames"
    assert (total["frames"], total["bytes"]) == (6, 6 * PIXELS[0].nbytes)
    server.start("web")
