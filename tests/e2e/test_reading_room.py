"""The reading room in real browsers: readers and one case, lists that follow by themselves, keys, reconciliation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pydicom
import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import chromium, needs_chromium, outside, signed_in
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("room") / "atrium", "web", "worker") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def technologist(room: Atrium) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {room.token('technologist')}"
    return session


def send(room: Atrium, technologist: requests.Session, **values: Any) -> str:
    """Bring a study in and give its Study Instance UID."""
    content = make_instance(**values)
    answer = technologist.post(
        f"{room.url}/upload/files/?name=a.dcm",
        data=content,
        headers={"Content-Type": "application/octet-stream"},
        timeout=60,
    )
    assert answer.json()["files"][0]["status"] == "stored", answer.text
    return str(pydicom.dcmread(BytesIO(content)).StudyInstanceUID)


def row(page: Page, name: str) -> Any:
    return page.locator("#rows tr", has_text=name)


def test_what_arrives_is_announced_and_shown_on_a_key(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    send(room, technologist, PatientName="First^Ada", PatientID="L1", AccessionNumber="L1")
    with signed_in(browser, room, "radiologist") as page:
        expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
        expect(row(page, "FIRST")).to_be_visible()
        send(room, technologist, PatientName="Second^Bo", PatientID="L2", AccessionNumber="L2")
        expect(page.locator("#new-rows")).to_have_text("1 new", timeout=20_000)
        expect(row(page, "SECOND")).to_have_count(0)
        page.keyboard.press(".")
        expect(row(page, "SECOND")).to_be_visible()


def test_two_readers_take_different_cases_and_see_each_other(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    for number in (1, 2):
        send(room, technologist, PatientName=f"Race^{number}", PatientID=f"R{number}", AccessionNumber=f"R{number}")
    with (
        signed_in(browser, room, "radiologist") as one,
        signed_in(browser, room, "resident") as other,
        signed_in(browser, room, "admin") as onlooker,
    ):
        expect(onlooker.locator("#live")).to_have_text("Live", timeout=20_000)
        for page in (one, other):
            page.goto(f"{room.url}/worklist/?status=arrived&sort=priority,date")
        one.keyboard.press("n")
        other.keyboard.press("n")
        for page in (one, other):
            page.wait_for_url("**/studies/**", timeout=30_000)
        taken = [page.url.split("/studies/")[1].split("/")[0] for page in (one, other)]
        assert len(set(taken)) == 2
        expect(one.locator("#claim")).to_contain_text("You have this case open")
        expect(onlooker.locator("#rows .holder")).to_have_count(2, timeout=20_000)
        other.goto(f"{room.url}/studies/{taken[0]}/")
        expect(other.locator("#claim")).to_contain_text("has this case open until")
        other.click("#claim >> text=Take over")
        other.click("#confirm button[value=yes]")
        expect(other.locator("#claim")).to_contain_text("You have this case open")
        expect(one.locator("#claim")).to_contain_text("has this case open until", timeout=20_000)


def test_case_after_case_by_one_key(room: Atrium, technologist: requests.Session, browser: Browser) -> None:
    for number in (1, 2):
        send(
            room,
            technologist,
            PatientName=f"Keys^{number}",
            PatientID=f"K{number}",
            AccessionNumber=f"K{number}",
            StudyDescription="MR keys",
            Modality="MR",
        )
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/worklist/?status=arrived&modality=MR&sort=name")
        seen = []
        for _ in range(2):
            page.keyboard.press("n")
            page.wait_for_url(lambda url: "/studies/" in url and url not in seen, timeout=30_000)
            expect(page.locator("#claim")).to_contain_text("You have this case open")
            seen.append(page.url)
        page.keyboard.press("n")
        # The first case was given back untouched when the second was opened.
        page.wait_for_url(seen[0], timeout=30_000)


def test_a_wrong_patient_is_corrected_by_keys_and_leaves_so(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    order = {
        "site": "north",
        "patient_id": "RIGHT",
        "patient_name": "Right^Person",
        "description": "CT thorax",
        "modality": "CT",
        "scheduled_at": datetime.now(UTC).isoformat(),
        "accession_number": "WRONG1",
    }
    assert technologist.post(f"{room.url}/api/v1/orders/", json=order, timeout=60).status_code == 201
    study = send(room, technologist, PatientName="Wrong^Person", PatientID="WRONG", AccessionNumber="WRONG1")
    with signed_in(browser, room, "technologist") as page:
        for _ in range(40):
            page.goto(f"{room.url}/reconciliation/?reason=patient")
            if page.locator(".row-link", has_text="WRONG").count():
                break
            page.wait_for_timeout(500)
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/reconciliation/{study}/")
        expect(page.locator(".differs").first).to_contain_text("Right")
        page.keyboard.press("k")
        page.click("#confirm button[value=yes]")
        expect(page.locator(".history-list")).to_contain_text("WRONG")
        accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        body = technologist.get(f"{room.url}/dicom-web/studies/{study}", headers=accept, timeout=60).content
        sent = pydicom.dcmread(BytesIO(body[body.index(b"DICM") - 128 :]), stop_before_pixels=True)
        assert (sent.PatientID, str(sent.PatientName)) == ("RIGHT", "Right^Person")
        assert sent.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientID == "WRONG"


@pytest.mark.parametrize(
    ("person", "path"),
    [
        ("radiologist", "/worklist/"),
        ("radiologist", "/dashboard/"),
        ("radiologist", "/worklist/sharing/"),
        ("technologist", "/orders/"),
        ("technologist", "/orders/new/"),
        ("technologist", "/reconciliation/"),
    ],
)
def test_a_phone_shows_all_of_a_page(room: Atrium, browser: Browser, person: str, path: str) -> None:
    with signed_in(browser, room, person, viewport={"width": 390, "height": 844}) as page:
        page.goto(f"{room.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert outside == []
