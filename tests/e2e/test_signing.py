"""Signing with each proof of who sits there, passkey and one-time code made in the account's own pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Browser, CDPSession, Page

from tests.e2e.browser import chromium, needs_chromium, signed_in
from tests.factories import PASSWORD, make_instance, one_time_code
from tests.services.atrium import Atrium, running_atrium

pytestmark = needs_chromium
SAVED = "#save-state[data-state=saved]:has-text('Saved')"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("signing") / "atrium", "web") as atrium:
        # Browsers give passkeys to names, never to bare addresses.
        atrium.host = "localhost"
        yield atrium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(autouse=True)
def _nobody_has_a_key_yet(installation: Atrium) -> None:
    forget = "from allauth.mfa.models import Authenticator as A; A.objects.all().delete()"
    installation.manage("shell", "--no-imports", "-c", forget)


def new_desk(atrium: Atrium, folder: Path, number: int, site: str = "north") -> str:
    """Bring a new study in and give the address of its desk."""
    uid = f"1.2.826.0.2.{number}"
    content = make_instance(
        StudyInstanceUID=uid, PatientID=f"S{number}", AccessionNumber=f"S{number}", StudyDescription="CT thorax"
    )
    (folder / "ct.dcm").write_bytes(content)
    atrium.manage("import", str(folder / "ct.dcm"), "--site", site)
    return f"{atrium.url}/reports/{uid}/desk/"


def begin_signing(page: Page, desk: str) -> None:
    page.goto(desk)
    page.click("text=Write the report")
    page.fill("#section-findings", "Clear.")
    page.fill("#section-impression", "Normal.")
    page.wait_for_selector(SAVED)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#checks-seen")


def ways_of_signing(atrium: Atrium, uid: str) -> list[str]:
    """Give by what each signature of the study was proven, as the trail has it; refusals begin with a minus."""
    script = (
        "import json; from portal.audit.models import AuditEvent as E; "
        f"es = E.objects.filter(study_instance_uid='{uid}', action='report_sign').order_by('sequence'); "
        "print(json.dumps([e.details.get('by') or '-' + e.details['reason'] for e in es]))"
    )
    return list(json.loads(atrium.manage("shell", "--no-imports", "-c", script)))


def prove_password(page: Page) -> None:
    """Answer the account pages' question for the password, where they ask."""
    if "/reauthenticate/" in page.url:
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "/reauthenticate/" not in url)


def authenticator(page: Page, *, is_verified: bool = True) -> tuple[CDPSession, str]:
    """Put an authenticator into the browser, as one that is built into a machine."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options: dict[str, Any] = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": is_verified,
        "automaticPresenceSimulation": True,
    }
    return session, session.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]


def add_passkey(page: Page) -> None:
    page.click(".topbar-user")
    page.click("text=Sign-in security")
    page.click("a[href*='webauthn']")
    prove_password(page)
    page.fill("input[name=name]", "Reading room")
    page.click("#mfa_webauthn_add")
    page.wait_for_url(lambda url: "/webauthn/add" not in url)


def test_a_report_is_signed_with_a_passkey_that_was_made_in_the_account_pages(
    installation: Atrium, browser: Browser, tmp_path: Path
) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        session, key = authenticator(page)
        add_passkey(page)
        assert len(session.send("WebAuthn.getCredentials", {"authenticatorId": key})["credentials"]) == 1
        desk = new_desk(installation, tmp_path, 1)
        begin_signing(page, desk)
        # A key that is only touched proves nobody: the person must be verified.
        session.send("WebAuthn.setUserVerified", {"authenticatorId": key, "isUserVerified": False})
        page.click("#sign-with-passkey")
        page.wait_for_selector("#signing-note:has-text('passkey')")
        assert page.input_value("#section-findings") == "Clear."
        session.send("WebAuthn.setUserVerified", {"authenticatorId": key, "isUserVerified": True})
        page.click("#sign-with-passkey")
        page.wait_for_selector(".report-signature")
        page.click("text=Retract…")
        page.fill("#retract-reason", "Another patient's images.")
        page.click("#retract [data-passkey]")
        page.wait_for_selector(".retracted-note")
        page.click(".topbar-user")
        page.click("text=Sign out")
        page.goto(f"{installation.url}/accounts/login/")
        page.fill("input[name=login]", "radiologist")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.click("#mfa_webauthn_authenticate")
        page.wait_for_url(lambda url: "/accounts/" not in url)
    assert ways_of_signing(installation, desk.split("/")[-3]) == ["passkey"]


def write_and_begin(page: Page, impression: str) -> None:
    page.fill("#section-findings", "Clear.")
    page.fill("#section-impression", impression)
    page.wait_for_selector(SAVED)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#checks-seen")


def test_a_passkey_alone_signs_as_preliminary_co_signs_addends_and_retracts(
    installation: Atrium, browser: Browser, tmp_path: Path
) -> None:
    desk = new_desk(installation, tmp_path, 4)
    with signed_in(browser, installation, "resident") as page:
        _, key = authenticator(page)
        add_passkey(page)
        begin_signing(page, desk)
        page.click("#sign-with-passkey")
        page.wait_for_selector(".status-preliminary, #show-history")
        page.wait_for_selector("#signing", state="hidden")
    with signed_in(browser, installation, "radiologist") as page:
        session, key = authenticator(page)
        add_passkey(page)
        page.goto(desk)
        page.click("text=Review and co-sign")
        write_and_begin(page, "Normal, no follow-up.")
        # Without a password or a code, each way of signing asks for the passkey.
        page.click("#sign-preliminary")
        page.wait_for_selector("#signing", state="hidden")
        write_and_begin(page, "Normal. No follow-up.")
        page.click(".sign-now")
        page.wait_for_selector(".report-signature")
        page.fill("#addendum-reason", "Clinical question answered.")
        page.click("text=Write an addendum")
        write_and_begin(page, "Confirmed.")
        session.send("WebAuthn.setUserVerified", {"authenticatorId": key, "isUserVerified": False})
        page.click(".sign-now")
        page.wait_for_selector("#signing-note:has-text('passkey')")
        session.send("WebAuthn.setUserVerified", {"authenticatorId": key, "isUserVerified": True})
        page.click(".sign-now")
        page.wait_for_selector(".addendum .report-signature")
        page.click("text=Retract…")
        page.fill("#retract-reason", "Another patient's images.")
        page.click("#retract button[type=submit]")
        page.wait_for_selector(".retracted-note")
    assert ways_of_signing(installation, desk.split("/")[-3]) == ["passkey"] * 4


def test_a_passkeys_answer_signs_once_and_only_for_its_owner(
    installation: Atrium, browser: Browser, tmp_path: Path
) -> None:
    """One answer is taken from the wire and sent again, and by another person."""
    desk = new_desk(installation, tmp_path, 5)
    sent: list[str] = []
    with signed_in(browser, installation, "resident") as page, signed_in(browser, installation, "radiologist") as other:
        authenticator(page)
        add_passkey(page)
        begin_signing(page, desk)
        page.on("request", lambda r: sent.append(r.post_data or "") if r.url.endswith("/preliminary/") else None)
        page.click("#sign-with-passkey")
        page.wait_for_selector("#signing", state="hidden")
        answer = parse_qs(sent[0])["passkey"][0]
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#checks-seen")
        other.goto(desk)
        other.click("text=Take over" if other.locator("text=Take over").count() else "text=Review and co-sign")
        other.wait_for_selector("#draft")
        other.keyboard.press("Control+Enter")
        other.wait_for_selector("#checks-seen")
        other.evaluate("answer => { document.querySelector('#draft [name=passkey]').value = answer; }", answer)
        other.click(".sign-now")
        other.wait_for_selector("text=passkey isn't right")
    ways = ways_of_signing(installation, desk.split("/")[-3])
    assert ways == ["passkey", "-wrong passkey"]


def test_an_answer_to_no_challenge_signs_nothing(installation: Atrium, browser: Browser, tmp_path: Path) -> None:
    desk = new_desk(installation, tmp_path, 2)
    with signed_in(browser, installation, "radiologist") as page:
        authenticator(page)
        add_passkey(page)
        begin_signing(page, desk)
        page.evaluate("document.querySelector('#draft [name=passkey]').value = '{\"id\": \"AAAA\"}'")
        page.click(".sign-now")
        page.wait_for_selector("text=passkey isn't right")
        assert page.input_value("#section-findings") == "Clear."
    assert ways_of_signing(installation, desk.split("/")[-3]) == ["-wrong passkey"]


def test_a_report_is_signed_with_a_one_time_code(installation: Atrium, browser: Browser, tmp_path: Path) -> None:
    desk = new_desk(installation, tmp_path, 3, site="south")
    with signed_in(browser, installation, "southradiologist") as page:
        page.goto(f"{installation.url}/accounts/2fa/totp/activate/")
        prove_password(page)
        secret = page.input_value("#authenticator_secret")
        page.fill("input[name=code]", one_time_code(secret))
        page.press("input[name=code]", "Enter")
        page.wait_for_url(lambda url: "/totp/activate" not in url)
        begin_signing(page, desk)
        page.fill("#sign-code", "000000")
        page.click(".sign-now")
        page.wait_for_selector("text=passkey isn't right")
        page.fill("#sign-code", one_time_code(secret))
        page.click(".sign-now")
        page.wait_for_selector(".report-signature")
    assert ways_of_signing(installation, desk.split("/")[-3]) == ["-wrong one-time code", "one-time code"]
