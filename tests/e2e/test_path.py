"""From a modality to a signed report, in a real browser: the whole path, with screenshots for docs/."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser

from portal.demo.studies import demo_studies
from tests.e2e.browser import chromium, needs_chromium, needs_viewer, outside, picture, signed_in, viewer_of
from tests.factories import PASSWORD
from tests.services.atrium import Atrium, running_atrium

STORESCU = shutil.which("storescu")
SLICES = 40

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(STORESCU is None, reason="dcmtk's storescu isn't installed"),
    needs_viewer,
]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    folder = tmp_path_factory.mktemp("path")
    with running_atrium(folder / "atrium", "web", "dicom", "worker", "scheduler") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def study(installation: Atrium, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Send a CT as a modality does and give its Study Instance UID."""
    folder = tmp_path_factory.mktemp("ct")
    ct = next(s for s in demo_studies(ct_slices=SLICES, ct_size=256) if s.instance_count == SLICES)
    for number, content in enumerate(islice(ct.instances(), SLICES)):
        (folder / f"{number:03}.dcm").write_bytes(content)
    command = [STORESCU, "-aet", "CT_NORTH", "-aec", "ATRIUM", "+sd", "127.0.0.1", str(installation.dicom_port), folder]
    subprocess.run([str(c) for c in command], check=True)
    headers = {"Authorization": f"Bearer {installation.token('radiologist')}"}
    (found,) = requests.get(f"{installation.url}/dicom-web/studies", headers=headers, timeout=30).json()
    assert found["00201208"]["Value"] == [SLICES]
    return str(found["0020000D"]["Value"][0])


def test_the_whole_path(installation: Atrium, browser: Browser, study: str, tmp_path: Path) -> None:
    _radiologist_reads_and_signs(installation, browser, study)
    _document_is_archived(installation, study)
    _referrer_reads_the_result(installation, browser, study)
    _others_are_refused(installation, browser, study)
    _officer_finds_every_step(installation, browser, study)
    assert outside == []


def _radiologist_reads_and_signs(atrium: Atrium, browser: Browser, study: str) -> None:
    with signed_in(browser, atrium, "radiologist", color_scheme="dark") as page:
        page.wait_for_selector("a.row-link")
        page.fill("input[name=q]", "lindq")
        page.wait_for_url("**q=lindq**")
        page.click("a.row-link")
        viewer_of(page)
        page.click("text=Write the report")
        page.fill("#section-indication", "Weight loss.")
        page.fill("#section-findings", "A 9 mm solid nodule in the right lung.")
        page.wait_for_selector("#save-state[data-state=saved]:has-text('Saved')")
        # A closed browser loses nothing, not even what was typed a moment ago.
        page.type("#section-impression", "PET/CT advised.")
        page.context.close()
    with signed_in(browser, atrium, "radiologist", color_scheme="dark") as page:
        page.goto(f"{atrium.url}/studies/{study}/")
        page.wait_for_selector("#section-findings")
        assert page.input_value("#section-findings") == "A 9 mm solid nodule in the right lung."
        page.fill("#section-impression", "PET/CT advised.")
        page.wait_for_selector("#viewer-wait", state="hidden", timeout=90_000)
        page.click("text=Preview")
        page.wait_for_selector("#preview article")
        picture(page, "report-desk")
        page.click("#begin-signing")
        page.fill("#sign-password", "not the password")
        page.press("#sign-password", "Enter")
        page.wait_for_selector("text=passkey isn't right")
        page.fill("#sign-password", PASSWORD)
        page.press("#sign-password", "Enter")
        page.wait_for_selector(".report-signature")
        assert page.inner_text("#study-status").strip() == "Final"
        with page.context.expect_page() as opened:
            page.click("a:has-text('Report page')")
        pdf = opened.value.request.get(f"{atrium.url}/reports/{study}/report.pdf")
        assert pdf.headers["content-type"] == "application/pdf"
        assert pdf.body().startswith(b"%PDF")


def _document_is_archived(atrium: Atrium, study: str) -> None:
    headers = {"Authorization": f"Bearer {atrium.token('radiologist')}"}
    address = f"{atrium.url}/dicom-web/studies/{study}/instances?SOPClassUID=1.2.840.10008.5.1.4.1.1.104.1"
    deadline = time.monotonic() + 60
    while (answer := requests.get(address, headers=headers, timeout=30)).status_code != 200:
        assert time.monotonic() < deadline, f"the worker archived no document:\n{atrium.log('worker')[-2000:]}"
        time.sleep(0.5)
    document = requests.get(
        answer.json()[0]["00081190"]["Value"][0], headers={**headers, "Accept": "application/dicom"}, timeout=30
    )
    assert b"%PDF" in document.content


def _referrer_reads_the_result(atrium: Atrium, browser: Browser, study: str) -> None:
    with signed_in(browser, atrium, "referrer", color_scheme="light") as page:
        page.click("a.row-link")
        page.wait_for_selector("article.report")
        assert "PET/CT advised." in page.inner_text("article.report")
        picture(page, "report")
        page.set_viewport_size({"width": 390, "height": 844})
        picture(page, "report-phone")
        page.set_viewport_size({"width": 1440, "height": 900})
        assert page.request.get(f"{atrium.url}/reports/{study}/report.pdf").ok
        page.click("a:has-text('Images')")
        page.wait_for_selector("#viewer-wait", state="hidden", timeout=90_000)
        assert page.locator("text=Write an addendum").count() == 0


def _others_are_refused(atrium: Atrium, browser: Browser, study: str) -> None:
    with signed_in(browser, atrium, "southradiologist") as page:
        for path in (f"/studies/{study}/", f"/reports/{study}/", f"/dicom-web/studies/{study}/metadata"):
            assert page.request.get(atrium.url + path).status == 404
        assert page.request.get(f"{atrium.url}/dicom-web/studies").status == 204
    stranger = requests.get(f"{atrium.url}/studies/{study}/", timeout=30, allow_redirects=False)
    assert stranger.headers["Location"].startswith("/accounts/login/")
    assert requests.get(f"{atrium.url}/dicom-web/studies/{study}", timeout=30).status_code == 401


def _officer_finds_every_step(atrium: Atrium, browser: Browser, study: str) -> None:
    with signed_in(browser, atrium, "compliance", color_scheme="light") as page:
        page.wait_for_selector("table")
        picture(page, "audit")
        page.click("text=Prove the trail")
        page.wait_for_selector("text=The trail is whole")
        of_study = page.request.get(f"{atrium.url}/audit/export.csv?study_instance_uid={study}").text()
        everything = page.request.get(f"{atrium.url}/audit/export.csv").text()
    rows = list(csv.DictReader(io.StringIO(of_study.lstrip("\ufeff"))))
    steps = {(row["username"], row["action"], row["outcome"]) for row in rows}
    assert steps >= {
        ("AE:CT_NORTH", "import", "success"),
        ("radiologist", "view", "success"),
        ("radiologist", "retrieve", "success"),
        ("radiologist", "report_draft", "success"),
        ("radiologist", "report_sign", "refused"),
        ("radiologist", "report_sign", "success"),
        ("radiologist", "report_pdf", "success"),
        ("referrer", "report_read", "success"),
        ("referrer", "retrieve", "success"),
        ("southradiologist", "refusal", "refused"),
        ("anonymous", "refusal", "refused"),
    }
    actions = {row["action"] for row in csv.DictReader(io.StringIO(everything.lstrip("\ufeff")))}
    assert actions >= {"sign_in", "search"}
    assert "whole" in atrium.manage("audit", "verify")


def test_a_folder_is_uploaded_in_the_browser(installation: Atrium, browser: Browser, tmp_path: Path) -> None:
    from tests.factories import make_instance

    (tmp_path / "good.dcm").write_bytes(make_instance(PatientID="UPLOADED"))
    (tmp_path / "bad.dcm").write_bytes(b"no dicom")
    with signed_in(browser, installation, "technologist", color_scheme="light") as page:
        page.goto(f"{installation.url}/upload/")
        page.set_input_files("#pick-files", [tmp_path / "good.dcm", tmp_path / "bad.dcm"])
        page.wait_for_selector("text=2 of 2 files done, 1 instances stored, 0 already there, 1 refused")
        assert "This is no DICOM file" in page.inner_text(".upload-row.is-failed")
        picture(page, "upload")
        page.click("#upload-studies a")
        page.wait_for_url("**/studies/**")
        page.goto(f"{installation.url}/quarantine/")
        page.wait_for_selector("text=bad.dcm")
        picture(page, "quarantine")
