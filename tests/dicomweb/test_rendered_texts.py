"""Texts burned into pictures: every letter is drawn as itself, not as the box that a font gives for what it hasn't."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from django.test import Client
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image
from pydicom import Dataset

from studies.archive import lettering
from studies.archive.lettering import lettered
from studies.models import Instance
from tests.dicomweb.retrieving import UIDS, address, make_presentation_state
from tests.factories import make_instance

# Pairs of as many letters: as boxes they'd look the same.
PAIRS = [("Mäßig", "Möłig"), ("Παπάς", "Χρόνη"), ("Иванов", "Петров"), ("Đặng", "Łẫng"), ("Łódź", "Żüdå")]
GREY = np.full((200, 200), 100, np.uint16)


@pytest.fixture
def show(north: Any, ingest_files: Any, client_of: Callable[[str], Client]) -> Callable[..., np.ndarray]:
    """Archive a file and give its picture as the query asks for it."""

    def shown(content: bytes, query: str = "") -> np.ndarray:
        (outcome,) = ingest_files(north, content)
        assert outcome.is_in, outcome.reason
        instance = Instance.objects.get(sop_instance_uid=outcome.sop_instance_uid)
        answer = client_of("radiologist").get(address(instance, f"/rendered{query}"), HTTP_ACCEPT="image/png")
        assert answer.status_code == 200, answer.content
        return np.asarray(Image.open(BytesIO(answer.content)).convert("RGB"))

    return shown


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    """Forget which font was best: tests set what fonts there are."""
    lettering._best_for.cache_clear()
    yield
    lettering._best_for.cache_clear()


def differ(pictures: list[np.ndarray]) -> bool:
    one, other = pictures
    return one.shape == other.shape and not np.array_equal(one, other)


@pytest.mark.parametrize("word", ["Müller", "Παπαδοπούλου", "Đặng", "Nguyễn", "Иванов", "Łódź", "Şükrü", "Ålesund"])
def test_no_letter_is_drawn_as_a_box(word: str) -> None:
    text, font = lettered(word, 24)
    assert text == word
    box = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != box for letter in text)


def test_a_mark_that_stands_apart_is_drawn_on_its_letter() -> None:
    assert lettered("Mu\u0308ller", 24) == lettered("Müller", 24)


def test_a_letter_that_no_font_here_has_is_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.archive.lettering._others", tuple)
    assert lettered("山 Yamada\n\u200eA", 24)[0] == "? Yamada\nA"


def test_a_font_of_the_machine_draws_what_our_own_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 500))
    pen.lineTo((500, 0))
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "mountain"])
    builder.setupCharacterMap({ord("山"): "mountain"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "mountain": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "mountain": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Mountains", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "Mountains.ttf")
    (tmp_path / "Broken.ttf").write_bytes(b"no font")
    others = (tmp_path / "Broken.ttf", tmp_path / "Mountains.ttf")
    monkeypatch.setattr("studies.archive.lettering._others", lambda: others)
    text, font = lettered("山", 24)
    assert (text, font.getname()) == ("山", ("Mountains", "Regular"))
    assert bytes(font.getmask("山"))


@pytest.mark.django_db
@pytest.mark.parametrize("names", PAIRS)
def test_annotations_show_names_in_their_own_letters(names: tuple[str, str], show: Any) -> None:
    pictures = [
        show(
            make_instance(pixels=GREY, SpecificCharacterSet="ISO_IR 192", PatientName=name, SOPInstanceUID=f"1.9.{n}"),
            "?annotation=patient",
        )
        for n, name in enumerate(names)
    ]
    assert differ(pictures)


@pytest.mark.django_db
@pytest.mark.parametrize("names", PAIRS)
def test_the_head_of_an_ecg_shows_names_in_their_own_letters(names: tuple[str, str], show: Any) -> None:
    source = pydicom.dcmread(str(pydicom.data.get_testdata_file("waveform_ecg.dcm")))
    pictures = []
    for n, name in enumerate(names):
        ecg = copy.deepcopy(source)
        ecg.SpecificCharacterSet, ecg.PatientName = "ISO_IR 192", name
        ecg.SOPInstanceUID = ecg.file_meta.MediaStorageSOPInstanceUID = f"1.9.7.{n}"
        output = BytesIO()
        ecg.save_as(output)
        pictures.append(show(output.getvalue()))
    assert differ(pictures)


@pytest.mark.django_db
@pytest.mark.parametrize("words", PAIRS)
def test_a_presentation_state_writes_its_words_in_their_own_letters(
    words: tuple[str, str], show: Any, north: Any, ingest_files: Any
) -> None:
    ingest_files(north, make_instance(pixels=GREY, **UIDS))
    image = Instance.objects.get()
    pictures = []
    for word in words:
        text = Dataset()
        text.UnformattedTextValue, text.AnchorPoint = word, [20, 20]
        text.AnchorPointAnnotationUnits, text.AnchorPointVisibility = "PIXEL", "N"
        layer = Dataset()
        layer.GraphicLayer, layer.TextObjectSequence = "A", [text]
        state = make_presentation_state(image, SpecificCharacterSet="ISO_IR 192", GraphicAnnotationSequence=[layer])
        pictures.append(show(state))
    assert differ(pictures)
