"""Dictation at the desk. A headless browser hears nothing: its speech recognition is replaced at the browser's own
border (the Web Speech API), and the test says what it would have heard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser import chromium, needs_chromium, signed_in
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = needs_chromium
SAVED = "#save-state[data-state=saved]:has-text('Saved')"
EAR = """(() => {
  window.webkitSpeechRecognition = window.SpeechRecognition = class extends EventTarget {
    start() { window.ears = (window.ears || 0) + 1; window.ear = this; this.isOn = true; }
    stop() { this.isOn = false; window.ears -= 1; this.onend?.(); }
    hears(text, isFinal = true) {
      const results = [Object.assign([{ transcript: text, confidence: 0.9 }], { isFinal })];
      this.onresult({ resultIndex: 0, results });
    }
    fails(error) { this.onerror?.({ error }); this.stop(); }
  };
})();"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("dictation") / "atrium", "web") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def page(installation: Atrium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder: Path = tmp_path_factory.mktemp("study")
    (folder / "ct.dcm").write_bytes(make_instance(StudyInstanceUID="1.2.826.0.3.1", StudyDescription="CT thorax"))
    installation.manage("import", str(folder / "ct.dcm"), "--site", "north")
    with chromium() as browser, signed_in(browser, installation, "radiologist") as opened:
        opened.add_init_script(EAR)
        opened.goto(f"{installation.url}/reports/1.2.826.0.3.1/desk/")
        opened.click("text=Write the report")
        opened.wait_for_selector("#draft")
        yield opened


@pytest.fixture(autouse=True)
def _empty_and_silent(page: Page) -> None:
    if page.get_attribute("#dictate", "aria-pressed") == "true":
        page.keyboard.press("F9")
    for name in ("findings", "impression"):
        page.fill(f"#section-{name}", "")


def hear(page: Page, text: str, *, is_final: bool = True) -> None:
    page.evaluate("([text, isFinal]) => window.ear.hears(text, isFinal)", [text, is_final])


def findings(page: Page) -> str:
    return page.input_value("#section-findings")


def is_hearing(page: Page) -> bool:
    return page.get_attribute("#dictate", "aria-pressed") == "true"


def test_what_is_heard_for_good_goes_in_at_the_caret_and_is_saved(page: Page) -> None:
    page.fill("#section-findings", "The lungs are clear. No effusion.")
    page.focus("#section-findings")
    page.evaluate("document.activeElement.setSelectionRange(20, 20)")
    page.keyboard.press("F9")
    assert page.evaluate("[ear.interimResults, ear.continuous]") == [True, True]
    hear(page, "the heart is", is_final=False)
    assert page.inner_text("#dictation-heard") == "the heart is"
    assert findings(page) == "The lungs are clear. No effusion."
    hear(page, "the heart is normal full stop")
    assert findings(page) == "The lungs are clear. The heart is normal. No effusion."
    assert page.locator("#dictation-heard").count() == 0
    hear(page, "no nodule period")
    assert findings(page) == "The lungs are clear. The heart is normal. No nodule. No effusion."
    page.wait_for_selector(SAVED)


def test_words_for_marks_and_words_that_only_sound_like_them(page: Page) -> None:
    page.focus("#section-findings")
    page.keyboard.press("F9")
    hear(
        page,
        "liver comma spleen and pancreas normal full stop new line no ascites open bracket see series 2 close bracket",
    )
    assert findings(page) == "Liver, spleen and pancreas normal.\nNo ascites (see series 2)"
    page.fill("#section-findings", "")
    hear(page, "the sigmoid colon is normal in the waiting period of 3 point 5 days full stop")
    assert findings(page) == "The sigmoid colon is normal in the waiting period of 3.5 days."


def test_what_was_dictated_stays_text_that_is_typed_over_and_undone(page: Page) -> None:
    page.focus("#section-findings")
    page.keyboard.press("F9")
    hear(page, "a small nodule")
    page.keyboard.type(" of 8 mm")
    hear(page, "in the left lung")
    assert findings(page) == "A small nodule of 8 mm in the left lung"
    page.evaluate("document.activeElement.setSelectionRange(2, 7)")
    hear(page, "large")
    assert findings(page) == "A large nodule of 8 mm in the left lung"
    page.keyboard.press("Control+z")
    assert findings(page) == "A small nodule of 8 mm in the left lung"


def test_it_goes_along_from_field_to_field_and_ends_when_the_words_are_left(page: Page) -> None:
    page.focus("#section-findings")
    page.click("#dictate")
    assert page.evaluate("document.activeElement.id") == "section-findings"
    hear(page, "clear")
    page.focus("#section-impression")
    hear(page, "normal")
    assert (findings(page), page.input_value("#section-impression")) == ("Clear", "Normal")
    hear(page, "previous field")
    assert page.evaluate("document.activeElement.tagName") in {"TEXTAREA", "SELECT", "INPUT"}
    assert "previous" not in page.input_value("#section-impression")
    page.focus("#section-impression")
    if not is_hearing(page):
        page.keyboard.press("F9")
    page.focus("#desk-template")
    assert not is_hearing(page)
    assert page.evaluate("ear.isOn") is False
    page.focus("#section-findings")
    page.keyboard.press("F9")
    page.mouse.click(5, 500)
    expect(page.locator("#dictate")).to_have_attribute("aria-pressed", "false")


def test_after_a_silence_it_goes_on_and_only_one_ear_is_open(page: Page) -> None:
    page.focus("#section-findings")
    page.keyboard.press("F9")
    page.wait_for_timeout(450)
    page.evaluate("ear.stop()")
    assert is_hearing(page)
    assert page.evaluate("ear.isOn") is True
    assert page.evaluate("ears") == 1
    page.evaluate("ear.fails('no-speech')")
    assert is_hearing(page)
    page.keyboard.press("F9")
    assert page.evaluate("ears") == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("not-allowed", "may not use the microphone"),
        ("audio-capture", "No microphone"),
        ("network", "can’t be reached"),
        ("language-not-supported", "language"),
    ],
)
def test_what_goes_wrong_is_told_in_words(page: Page, error: str, words: str) -> None:
    page.focus("#section-findings")
    page.keyboard.type("typed before")
    page.keyboard.press("F9")
    page.evaluate("error => ear.fails(error)", error)
    assert not is_hearing(page)
    assert words in page.inner_text("#dictation-note")
    assert findings(page) == "typed before"


def test_where_the_browser_cannot_hear_there_is_no_button(installation: Atrium, page: Page) -> None:
    browser = page.context.browser
    assert browser is not None
    with signed_in(browser, installation, "radiologist") as other:
        other.add_init_script("window.SpeechRecognition = window.webkitSpeechRecognition = undefined")
        other.goto(f"{installation.url}/reports/1.2.826.0.3.1/desk/")
        other.wait_for_selector("#draft")
        assert not other.is_visible("#dictate")
        other.focus("#section-findings")
        other.keyboard.press("F9")
        assert not is_hearing(other)
