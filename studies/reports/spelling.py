"""The spelling check: Hunspell with English dictionaries, medical words, and each person's own.

Reports in languages of which there's no dictionary here are left to the browser.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

from hunspell import Hunspell

from accounts.models import User
from studies.reports.models import KnownWord, ReportPart, ReportTemplate
from studies.reports.outline import Outline

DICTIONARIES = Path(__file__).with_name("dictionaries")
# Either way of spelling is right: words of both dictionaries count.
LANGUAGES = {"en": ("en_US", "en_GB")}
WORD_LISTS = ("medical.txt", "radiology.txt")
SHORTEST, LONGEST = 3, 60
MOST_SUGGESTIONS = 6
MOST_WORDS = 60
_TOKEN = re.compile(r"[\w'’]+")
_BEGINS_SENTENCE = re.compile(r"(?:^|[.!?:;•(\n\-–—])\s*$")
_lock = threading.Lock()


def checked_language(template: ReportTemplate | None) -> str:
    """Give the language in which a report is checked; empty where we have no dictionary of it."""
    language = (template.language if template is not None else "en").split("-")[0].lower()
    return language if language in LANGUAGES else ""


@lru_cache(maxsize=len(LANGUAGES))
def dictionaries(language: str) -> tuple[Hunspell, ...]:
    """Give the language's dictionaries as they are, without the word lists. Raises KeyError for one without any."""
    return tuple(Hunspell(name, hunspell_data_dir=f"{DICTIONARIES}/") for name in LANGUAGES[language])


@lru_cache(maxsize=len(LANGUAGES))
def _speller(language: str) -> tuple[Hunspell, ...]:
    """Give dictionaries that know the medical words, too: loaded once in a process, in a fifth of a second."""
    loaded = tuple(Hunspell(name, hunspell_data_dir=f"{DICTIONARIES}/") for name in LANGUAGES[language])
    for name in WORD_LISTS:
        for word in (DICTIONARIES / name).read_text().split():
            loaded[0].add(word)
    return loaded


@lru_cache(maxsize=20_000)
def _is_known(language: str, word: str) -> bool:
    with _lock:
        spellers = _speller(language)
        return any(one.spell(form) for one in spellers for form in (word, word.capitalize()))


def words_in(text: str) -> Iterator[str]:
    """Give the words of a text that can be misspelt, as they're written.

    Names, which begin with a capital within a sentence, abbreviations, and words with digits aren't among them.
    """
    for found in _TOKEN.finditer(text):
        word = re.sub(r"['’]s?$", "", found[0].strip("'’"))
        if not SHORTEST <= len(word) <= LONGEST or any(c.isdigit() or c == "_" for c in word):
            continue
        if any(c.isupper() for c in word[1:]):
            continue
        if word[0].isupper() and not _BEGINS_SENTENCE.search(text[: found.start()][-8:]):
            continue
        yield word


def unknown_words(text: str, language: str, known: Collection[str] = ()) -> list[str]:
    """Give the words that no dictionary has, each once, in their order; ``known`` holds more, in lower case."""
    found = (word for word in words_in(text) if word.lower() not in known)
    return list(dict.fromkeys(word for word in found if not _is_known(language, word.lower().replace("’", "'"))))


def suggestions(word: str, language: str, known: Collection[str] = ()) -> list[str]:
    """Give what may be meant, the likeliest first, written with a capital where the word is."""
    if not word or len(word) > LONGEST or language not in LANGUAGES:
        return []
    near = [one for one in sorted(known) if _differs_by_one(one, word.lower())]
    with _lock:
        # The first has the medical words; the others are asked only when it has nothing to say.
        asked = next((found for one in _speller(language) if (found := one.suggest(word.lower()))), ())
    merged = dict.fromkeys([*near, *asked])
    return [one[0].upper() + one[1:] if word[0].isupper() else one for one in merged][:MOST_SUGGESTIONS]


def _differs_by_one(first: str, second: str) -> bool:
    if abs(len(first) - len(second)) > 1:
        return False
    at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return any(first[at + i :] == second[at + j :] for i, j in ((1, 1), (0, 1), (1, 0)))


def misspelt_of(part: ReportPart) -> list[tuple[str, str]]:
    """Give a draft's unknown words with the field in which each stands first."""
    language = checked_language(part.template)
    if not language:
        return []
    known = known_words(part.author) | _words_of(part.outline)
    found: dict[str, str] = {}
    for field in part.outline.shown(part.values).values():
        value = part.values.get(field.id)
        if field.type == "text" and isinstance(value, str):
            for word in unknown_words(value, language, known):
                found.setdefault(word, field.id)
    return [(field, word) for word, field in found.items()][:MOST_WORDS]


def _words_of(outline: Outline) -> set[str]:
    """Give the template's own words: who made it has decided on them."""
    texts = [
        text for f in outline.fields.values() for text in (f.label, f.default, *f.options) if isinstance(text, str)
    ]
    return {word.lower() for text in texts for word in _TOKEN.findall(text)}


def known_words(user: User) -> set[str]:
    """Give the words that a person has added, and those that they write out by their spellings, in lower case."""
    written = " ".join(user.report_spellings.values_list("written", flat=True))
    return set(user.report_words.values_list("word", flat=True)) | {w.lower() for w in _TOKEN.findall(written)}


def add_known_word(*, user: User, word: str) -> None:
    """Add a word to a person's own. Raises ValueError for what is no word."""
    word = word.strip()
    if not SHORTEST <= len(word) <= LONGEST or not _TOKEN.fullmatch(word):
        raise ValueError(word)
    KnownWord.objects.get_or_create(user=user, word=word.lower())


def forget_known_word(*, user: User, word: str) -> None:
    """Take a word out of a person's own."""
    KnownWord.objects.filter(user=user, word=word.strip().lower()).delete()
