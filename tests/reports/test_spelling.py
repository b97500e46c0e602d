"""Spelling at the desk: unknown words are noted and hold up nothing, medical words and one's own are known."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.sr.codedict import codes

from studies.reports import spelling
from studies.reports.models import ReportPart, ReportTemplate
from studies.reports.outline import Outline
from tests.factories import make_instance
from tests.reports.desk import DESK, UID, sign, write

BUILT_IN = Path(spelling.__file__).with_name("built_in")


@pytest.fixture
def browser(north: Any, ingest_files: Any, client_of: Any) -> Any:
    ingest_files(north, make_instance(StudyInstanceUID=UID, StudyDescription="Other", Modality="OT"))
    opened = client_of("radiologist")
    opened.post(f"{DESK}/start/")
    return opened


def noted(browser: Any) -> list[str]:
    return re.findall(r'data-word="([^"]+)"', browser.get(f"{DESK}/checks/").content.decode())


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Pnemothorax on the left.", ["Pnemothorax"]),
        ("Hepatomegaly, esophageal varices, tumors; hepatomegaly, oesophageal varices, tumours.", []),
        ("No hepatomegalie. No hepatomegalie.", ["hepatomegalie"]),
        ("Spiculated nodule with ground-glass halo; hyperintense on T2-weighted FLAIR, SUVmax 4.", []),
        ("Compared with Dr Lindqvist. Seen by Xyzzy.", []),
        ("The patient's liver isn’t enlarged.", []),
        ("A nodul of 8 mm (series 2, image 5).", ["nodul"]),
    ],
)
def test_what_is_misspelt_is_found_and_nothing_else(text: str, unknown: list[str]) -> None:
    assert spelling.unknown_words(text, "en") == unknown


def test_the_meanings_of_dicoms_codes_are_known() -> None:
    for code in (codes.SCT.Pneumothorax, codes.SCT.Hippocampus, codes.SCT.Gallbladder):
        assert spelling.unknown_words(code.meaning.lower(), "en") == []


def test_our_own_templates_use_no_unknown_words() -> None:
    for path in sorted(BUILT_IN.glob("*.json")):
        fields = Outline.of(json.loads(path.read_text())["content"]).fields.values()
        texts = [str(text) for f in fields for text in (f.label, f.help, f.default, *f.options)]
        assert spelling.unknown_words("\n".join(texts), "en") == [], path.name


def test_the_likeliest_words_are_suggested() -> None:
    assert spelling.suggestions("Pnemothorax", "en")[0] == "Pneumothorax"
    assert "atelectasis" in spelling.suggestions("atelektasis", "en")
    assert spelling.suggestions("frobozz", "en", {"frobozs"})[0] == "frobozs"
    assert spelling.suggestions("x" * 500, "en") == []
    assert spelling.suggestions("wort", "de") == []


def test_a_report_of_two_thousand_words_is_checked_at_each_save() -> None:
    medical = (spelling.DICTIONARIES / "medical.txt").read_text().split()
    text = " ".join((medical * 2)[:1990]) + " pnemothorax" * 10
    spelling.unknown_words("warm", "en")
    began = time.process_time()
    assert spelling.unknown_words(text, "en") == ["pnemothorax"]
    assert time.process_time() - began < 1


@pytest.mark.django_db
def test_unknown_words_are_noted_and_the_report_is_signed_all_the_same(browser: Any) -> None:
    answer = write(browser, findings="Pnemothorax.", impression="Normal.").json()
    assert 'data-word="Pnemothorax"' in answer["checks"]
    assert noted(browser) == ["Pnemothorax"]
    sign(browser, accepted=[])
    assert ReportPart.objects.get().is_signed


@pytest.mark.django_db
def test_a_word_that_was_added_is_ones_own_until_it_is_forgotten(browser: Any, client_of: Any) -> None:
    write(browser, findings="frobozzular change", impression="Normal.")
    words = "/reports/spelling/words/"
    assert browser.post(words, {"word": "two words"}, headers={"Accept": "application/json"}).status_code == 422
    assert browser.post(words, {"word": "Frobozzular"}, headers={"Accept": "application/json"}).status_code == 204
    assert noted(browser) == []
    assert "frobozzular" in browser.get("/reports/macros/").content.decode()
    assert "frobozzular" not in client_of("resident").get("/reports/macros/").content.decode()
    browser.post(words, {"word": "frobozzular", "forget": "1"})
    assert noted(browser) == ["frobozzular"]


@pytest.mark.django_db
def test_other_languages_are_left_to_the_browser(browser: Any) -> None:
    part = ReportPart.objects.get()
    part.template = ReportTemplate.objects.create(
        name="Deutsch", language="de-CH", content=Outline.of(part.outline.as_json()).as_json(), slug="", version=1
    )
    part.save()
    page = browser.get(f"{DESK}/panel/").content.decode()
    assert 'spellcheck="true" lang="de-CH"' in page
    write(browser, findings="Ganz unauffällige Aufnahme", impression="Regelrecht")
    assert noted(browser) == []
