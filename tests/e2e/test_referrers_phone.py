"""A referring clinician with a phone: what matters on top, the words, the key images, the images in two taps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import DISTINCT_GREYS, chromium, needs_chromium, needs_viewer, outside, signed_in, until
from tests.services.atrium import Atrium, running_atrium

pytestmark = needs_chromium
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SEED = "from tests.e2e.referrals import install; install()"
# What a thumb hits (WCAG 2.5.5).
THUMB = 40


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("phone") / "atrium", "web") as atrium:
        atrium.manage("shell", "--no-imports", "-c", SEED)
        yield atrium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def phone(installation: Atrium, browser: Browser) -> Iterator[Page]:
    with signed_in(browser, installation, "referrer", **PHONE) as page:
        page.wait_for_url("**/results/")
        yield page
        assert outside == []


def assert_fits(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_critical_result_is_on_top_and_the_new_ones_follow(phone: Page) -> None:
    names = [text.split("\n")[0] for text in phone.locator(".result").all_inner_texts()]
    assert "EKMAN" in names[0]
    # What waits for them, then the reports, that one's first.
    expect(phone.locator(".critical-list .result")).to_contain_text("Critical")
    expect(phone.locator(".critical-list .result")).to_contain_text("Embolism")
    expect(phone.locator(".result-list:not(.critical-list) .result").first).to_contain_text("Pulmonary embolism")
    assert phone.locator(".result", has_text="New").count() == 2
    assert_fits(phone)
    for control in phone.locator(".result").first.locator("a").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= THUMB


def test_words_of_the_reports_find_them(phone: Page) -> None:
    phone.tap("#results-q")
    phone.keyboard.type("rib fracture")
    expect(phone.locator(".result")).to_have_count(1)
    expect(phone.locator(".result")).to_contain_text("fifth rib")
    phone.fill("#results-q", "nothing of the kind")
    expect(phone.locator("#results")).to_contain_text("No result has these words")


def test_the_report_shows_its_key_image_and_is_read_from_then_on(phone: Page, installation: Atrium) -> None:
    phone.locator(".result", has_text="Pulmonary embolism").locator(".result-link").tap()
    expect(phone.locator("article.report")).to_contain_text("Pulmonary embolism, both lower lobes.")
    expect(phone.locator(".critical-line")).to_contain_text("Embolism")
    phone.locator(".report-pictures img").scroll_into_view_if_needed()
    until(phone, "document.querySelector('.report-pictures img')?.naturalWidth > 0")
    assert_fits(phone)
    phone.goto(f"{installation.url}/results/?only=unread")
    # Read, but still open: it stays on top until it is acknowledged.
    expect(phone.locator(".result").first).to_contain_text("Critical")
    phone.locator(".result", has_text="No abnormality").locator(".result-link").tap()
    expect(phone.locator("article.report")).to_contain_text("No abnormality.")
    phone.goto(f"{installation.url}/results/?only=unread")
    expect(phone.locator(".result", has_text="No abnormality")).to_have_count(0)


def test_the_timeline_joins_both_sites(phone: Page) -> None:
    phone.locator(".result", has_text="Pulmonary embolism").locator("text=Timeline").tap()
    entries = phone.locator(".timeline-entry")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("North Hospital")
    expect(entries.last).to_contain_text("South Hospital")
    until(phone, "document.querySelector('.key-pictures img')?.naturalWidth > 0")
    assert_fits(phone)
    phone.fill("#timeline-q", "rib")
    expect(entries).to_have_count(1)
    expect(entries).to_contain_text("South Hospital")
    expect(phone.locator(".patient-timeline")).not_to_contain_text("Falk")


@needs_viewer
def test_images_are_there_within_two_taps(phone: Page) -> None:
    phone.locator(".result", has_text="Pulmonary embolism").locator("text=Images").tap()
    phone.wait_for_url("**/viewer/**")
    until(phone, f"({DISTINCT_GREYS})() >= 60", seconds=90)
    # A key image leads to the image itself.
    phone.go_back()
    phone.locator(".result", has_text="Pulmonary embolism").locator(".result-link").tap()
    phone.locator(".report-pictures a").tap()
    phone.wait_for_url("**/viewer/**sop=*")
