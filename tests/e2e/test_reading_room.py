"""The reading room in real browsers: readers and one case, lists that follow by themselves, keys, reconciliation."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pydicom
import pytest
import requests
from playwright.sync_api import APIResponse, Browser, Page, Route, expect

from tests.e2e.browser import chromium, needs_chromium, outside, signed_in
from tests.factories import PASSWORD, make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = needs_chromium
RENEWED = "htmx.ajax('GET', document.getElementById('claim').dataset.url, {target: '#claim', swap: 'outerHTML'})"
MANY = """
from accounts.models import Site
from studies.models import Patient, Study
site = Site.objects.get(slug="north")
patient = Patient.objects.create(site=site, identity="|MANY", patient_id="MANY", patient_name="Many")
Study.objects.bulk_create(
    Study(
        site=site, patient=patient, study_instance_uid=f"1.2.99.{n}", patient_id_value="MANY",
        patient_name=f"MANY{n:04}", patient_name_search=f"MANY{n:04}", status="final" if n < 150 else "preliminary",
        study_description="manyfold " + "bits " * 10,
    )
    for n in range(400)
)
"""


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


def is_choice(url: str) -> bool:
    return url.endswith("/priority/")


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


def test_what_is_passed_over_by_keys_is_not_chosen(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    study = send(room, technologist, PatientName="Passed^Over", PatientID="P1", AccessionNumber="P1")
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/studies/{study}/")
        priority = page.locator("#case-priority")
        first, *_, other, last = priority.evaluate("list => [...list.options].map((option) => option.value)")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.post_data or "") if is_choice(request.url) else None)
        with page.expect_response(lambda answer: is_choice(answer.url)):
            priority.press("Home")
            for _ in range(8):
                if priority.input_value() != last:
                    page.wait_for_timeout(200)
                    priority.press("ArrowDown")
        assert [f"priority={last}" in body for body in sent] == [True]
        expect(priority).to_be_focused()
        # Who goes on without a pause has chosen, too.
        with page.expect_response(lambda answer: is_choice(answer.url), timeout=5000):
            priority.press("Home")
            priority.press("Tab")
        assert [f"priority={first}" in body for body in sent] == [False, True]
        # Nor is it lost when the panel renews itself meanwhile, as it does whenever another touches the case.
        expect(priority).not_to_be_focused()
        sent.clear()
        with page.expect_response(lambda answer: is_choice(answer.url), timeout=5000):
            priority.press("End")
            page.evaluate(RENEWED)
            priority.press("Tab")
        assert [f"priority={last}" in body for body in sent] == [True]
        expect(priority).to_have_value(last)
        # Nor while the one before is still on its way, whose answer replaces the list, also where it was to be renewed.
        held: list[Route] = []
        for is_renewed, keys, value in ((False, ["End"], last), (True, ["End", "ArrowUp"], other)):
            sent.clear()
            page.route("**/priority/", lambda route: held.append(route), times=1)
            with page.expect_request(lambda request: is_choice(request.url), timeout=5000):
                priority.press("Home")
                priority.press("Tab")
            if is_renewed:
                page.evaluate(RENEWED)
            for key in [*keys, "Tab"]:
                priority.press(key)
            with page.expect_request(lambda request: is_choice(request.url), timeout=5000):
                page.wait_for_timeout(1500)
                assert len(sent) == 1
                held.pop().continue_()
            assert [f"priority={one}" in body for one, body in zip((first, value), sent, strict=True)] == [True] * 2
            expect(priority).to_have_value(value)
            expect(page.locator("#claim .htmx-request")).to_have_count(0)
        # Nor is what waits lost when one goes on to the next list, whose choice waits behind it.
        reader = page.locator("#case-reader")
        sent.clear()
        page.route("**/priority/", lambda route: held.append(route), times=1)
        with page.expect_request(lambda request: is_choice(request.url), timeout=5000):
            priority.press("Home")
            priority.press("Tab")
        priority.press("End")
        priority.press("Tab")
        reader.press("End")
        reader.press("Tab")
        with page.expect_response(lambda answer: answer.url.endswith("/assign/"), timeout=5000):
            held.pop().continue_()
        assert [f"priority={one}" in body for one, body in zip((first, last), sent, strict=True)] == [True] * 2
        page.reload()
        expect(priority).to_have_value(last)
        expect(reader).not_to_have_value("")


@pytest.mark.parametrize("is_answered_first", [True, False], ids=["after that of the choice", "before it"])
def test_an_answer_that_is_older_than_a_choice_does_not_take_it_back(
    room: Atrium, technologist: requests.Session, browser: Browser, is_answered_first: bool
) -> None:
    name = f"OLDER{is_answered_first:d}"
    study = send(room, technologist, PatientName=f"{name}^Answer", PatientID=name, AccessionNumber=name)
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/studies/{study}/")
        priority = page.locator("#case-priority")
        *_, last = priority.evaluate("list => [...list.options].map((option) => option.value)")
        expect(priority).not_to_have_value(last)
        late: list[tuple[Route, APIResponse]] = []
        held: list[Route] = []

        def hold(route: Route) -> None:
            if not late:
                late.append((route, route.fetch()))
            elif is_choice(route.request.url) and not held:
                held.append(route)
            else:
                route.continue_()

        page.route(re.compile("/(claim|priority)/$"), hold)
        page.evaluate(f"() => void {RENEWED}")
        while not late:
            page.wait_for_timeout(20)
        priority.select_option(last)
        while not held:
            page.wait_for_timeout(20)

        def answer_late() -> None:
            [(route, answer)] = late
            with page.expect_response("**/claim/"):
                route.fulfill(response=answer)
            page.wait_for_timeout(100)

        if not is_answered_first:
            answer_late()
            assert priority.input_value() == last
        # What answers the choice itself is seen, and what is asked for again has it, too.
        with page.expect_response(lambda answer: answer.url.endswith("/claim/") and answer.request.method == "GET"):
            with page.expect_response(lambda answer: is_choice(answer.url)):
                held.pop().continue_()
            expect(page.locator("#claim .htmx-request")).to_have_count(0)
            if is_answered_first:
                answer_late()
        assert priority.input_value() == last


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


def test_what_is_scheduled_comes_and_goes_in_the_list(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/worklist/?status=scheduled&sort=date")
        expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
        order = {
            "site": "north",
            "patient_id": "TOCOME",
            "patient_name": "Tocome^Tor",
            "description": "CT head",
            "modality": "CT",
            "scheduled_at": datetime.now(UTC).isoformat(),
            "accession_number": "TOCOME1",
        }
        assert technologist.post(f"{room.url}/api/v1/orders/", json=order, timeout=60).status_code == 201
        expect(page.locator("#new-rows")).to_have_text("1 new", timeout=20_000)
        page.keyboard.press(".")
        expect(row(page, "TOCOME")).to_contain_text("Scheduled")
        expect(row(page, "TOCOME").locator("input")).to_have_count(0)
        send(room, technologist, PatientName="Tocome^Tor", PatientID="TOCOME", AccessionNumber="TOCOME1")
        expect(row(page, "TOCOME")).to_have_class(re.compile("is-gone"), timeout=20_000)
        page.reload()
        expect(row(page, "TOCOME")).to_have_count(0)


def test_a_button_pressed_before_the_page_is_ready_does_what_it_says(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    send(
        room,
        technologist,
        PatientName="Early^Eva",
        PatientID="EARLY",
        AccessionNumber="EARLY",
        StudyInstanceUID="1.2.9",
    )
    with signed_in(browser, room, "resident") as page:
        held: list[Route] = []
        page.route("**/htmx.min*.js", lambda route: held.append(route))
        page.goto(f"{room.url}/studies/1.2.9/", wait_until="commit")
        page.click("#claim >> text=Claim", no_wait_after=True)
        page.wait_for_timeout(300)
        assert page.url.endswith("/studies/1.2.9/"), "and the browser sends it nowhere"
        held.pop().continue_()
        expect(page.locator("#claim")).to_contain_text("You have this case open")


def test_a_change_elsewhere_takes_neither_focus_nor_choice(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    for number in (1, 2):
        send(room, technologist, PatientName=f"Calm^{number}", PatientID=f"C{number}", AccessionNumber=f"C{number}")
    with signed_in(browser, room, "radiologist") as page, signed_in(browser, room, "resident") as other:
        page.goto(f"{room.url}/worklist/?q=calm&sort=name")
        expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
        page.keyboard.press("j")
        page.keyboard.press("x")
        other.goto(f"{room.url}/worklist/?q=calm&sort=name")
        other.locator(".row-link").first.click()
        other.click("#claim >> text=Claim")
        expect(row(page, "CALM, 1").locator(".holder")).to_have_text("resident", timeout=20_000)
        assert page.evaluate("document.activeElement.closest('tr').textContent.includes('CALM, 1')")
        assert row(page, "CALM, 1").locator("input").is_checked()
        assert "until" in (row(page, "CALM, 1").locator(".holder").get_attribute("title") or "")
        # The keys go on from where one was.
        page.keyboard.press("j")
        assert page.evaluate("document.activeElement.closest('tr').textContent.includes('CALM, 2')")
        page.keyboard.press("Enter")
        page.wait_for_url("**/studies/**")
        page.keyboard.press("Escape")
        page.wait_for_url("**/worklist/**")
        expect(page.locator(".row-link:focus")).to_contain_text("CALM, 2")


def test_every_key_that_the_help_names_does_what_it_says(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    send(room, technologist, PatientName="Key^Help", PatientID="K1", AccessionNumber="K1")
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/worklist/")
        page.keyboard.press("?")
        expect(page.locator("#key-help")).to_be_visible()
        listed = page.locator("#key-help dt").all_inner_texts()
        assert {"n", "/", "j", "k", "Enter", "x", "1", "2", "3", "4", "5", "?", "Esc"} <= set(listed)
        assert len(listed) == len(set(listed)), "a key means one thing"
        page.keyboard.press("Escape")
        expect(page.locator("#key-help")).to_be_hidden()
        for key, query in (("1", "status=arrived"), ("3", "priority=STAT"), ("5", "status=scheduled")):
            page.keyboard.press(key)
            page.wait_for_url(f"**{query}**")
        # A busy machine isn't a slow hand.
        page.evaluate("(now => { Date.now = () => now; })(Date.now())")
        page.keyboard.press("g")
        page.keyboard.press("c")
        # A sequence is more than its last letter, which alone leads to the critical results.
        page.wait_for_url("**/consults/")
        page.goto(f"{room.url}/worklist/")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.name") == "q"
        page.keyboard.type("n")
        assert page.input_value("input[name=q]") == "n", "a key typed into a field is a letter"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement === document.body")


def test_the_next_case_is_one_key_away_from_the_signed_report(
    room: Atrium, technologist: requests.Session, browser: Browser
) -> None:
    for number in (1, 2):
        send(
            room,
            technologist,
            PatientName=f"Onward^{number}",
            PatientID=f"O{number}",
            AccessionNumber=f"O{number}",
            Modality="XA",
            StudyDescription="XA onward",
        )
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/worklist/?status=arrived&modality=XA&sort=name")
        page.keyboard.press("n")
        page.wait_for_url("**/studies/**")
        first = page.url.split("/studies/")[1].split("/")[0]
        page.click("text=Write the report")
        page.fill("#section-findings", "No stenosis.")
        page.fill("#section-impression", "Normal.")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#checks-seen")
        page.fill("#sign-password", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector(".report-signature")
        page.goto(f"{room.url}/reports/{first}/")
        page.keyboard.press("n")
        page.wait_for_url("**/studies/**")
        # Of the same list, which the report's page doesn't know.
        expect(page.locator(".patient-strip")).to_contain_text("ONWARD, 2")
        expect(page.locator("#claim")).to_contain_text("You have this case open until")
    with signed_in(browser, room, "resident") as page:
        page.goto(f"{room.url}/studies/{first}/")
        expect(page.locator("#claim")).not_to_contain_text("has this case open")


def test_a_long_list_goes_on_by_itself_and_stays_light(room: Atrium, browser: Browser) -> None:
    room.manage("shell", "--no-imports", "-c", MANY)
    with signed_in(browser, room, "radiologist") as page:
        page.goto(f"{room.url}/worklist/?description=manyfold&sort=name")
        expect(page.locator("#rows tr[data-row]").first).to_contain_text("MANY0000")
        page.mouse.move(700, 500)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            page.mouse.wheel(0, 1500)
            if page.locator("#rows tr", has_text="MANY0399").count():
                break
            page.wait_for_timeout(50)
        expect(row(page, "MANY0399")).to_be_visible()
        assert page.locator("#rows.is-wide").count() == 0, "later rows, which need more room, have found it"
        assert page.locator("#rows tr[data-row]").count() < 300, "what is far from the eye isn't in the page"
        assert page.locator("#rows tr", has_text="MANY0000").count() == 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            page.mouse.wheel(0, -1500)
            if page.locator("#rows tr", has_text="MANY0000").count():
                break
            page.wait_for_timeout(50)
        expect(row(page, "MANY0000")).to_be_visible()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/studies/**")
    assert outside == []
