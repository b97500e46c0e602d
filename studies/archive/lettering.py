"""The letters of texts burned into pictures: the portal's own typeface, others of the machine where it lacks one."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import islice
from pathlib import Path

from django.conf import settings
from fontTools.ttLib import TTCollection, TTFont, TTLibError
from PIL import ImageFont

# Latin, Greek and Cyrillic, Vietnamese included; served to browsers as well, so that it's there wherever we run.
OWN = settings.BASE_DIR / "static/vendor/ibm-plex-sans/IBMPlexSans-Regular.woff2"
# Where Debian keeps its fonts, and where libraries for PDF are unpacked with theirs when the machine has none.
FOLDERS = (Path("/usr/share/fonts"), settings.BASE_DIR / ".build/libraries/usr/share/fonts")
MISSING = "?"
# A machine may have thousands of fonts; each that is looked into costs milliseconds.
MOST_LOOKED_AT = 200


def lettered(text: str, size: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """Give the text as it can be drawn, and the font for all of it: of those here that which has most of its letters.

    A letter that it hasn't becomes a question mark, rather than a box that looks like any other.
    """
    text = "".join(" " if c.isspace() and c != "\n" else c for c in unicodedata.normalize("NFC", text))
    wanted = frozenset(c for c in text if c != "\n" and unicodedata.category(c) != "Cf")
    path = _best_for(wanted) if wanted - _letters_of(OWN) else OWN
    has = _letters_of(path)
    drawn = "".join(c if c == "\n" or c in has else MISSING for c in text if c == "\n" or c in wanted)
    return drawn, _font(path, size)


@lru_cache(maxsize=32)
def _font(path: Path, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=256)
def _best_for(wanted: frozenset[str]) -> Path:
    fewest, best = len(wanted - _letters_of(OWN)), OWN
    for path in _others():
        missing = len(wanted - _letters_of(path))
        if missing < fewest:
            fewest, best = missing, path
        if not fewest:
            break
    return best


@lru_cache(maxsize=1)
def _others() -> tuple[Path, ...]:
    """Give the machine's fonts, upright ones of usual weight first."""
    found = {
        path for folder in FOLDERS for path in folder.rglob("*") if path.suffix.lower() in {".ttf", ".otf", ".ttc"}
    }
    unusual = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "serif", "condensed")
    ordered = sorted(found, key=lambda path: (sum(word in path.name.lower() for word in unusual), path.name))
    return tuple(islice(ordered, MOST_LOOKED_AT))


@lru_cache(maxsize=MOST_LOOKED_AT + 1)
def _letters_of(path: Path) -> frozenset[str]:
    try:
        with path.open("rb") as file:
            fonts = TTCollection(file, lazy=True).fonts if path.suffix.lower() == ".ttc" else [TTFont(file, lazy=True)]
            # Pillow takes a collection's first.
            return frozenset(map(chr, fonts[0].getBestCmap() or ()))
    except (OSError, TTLibError, ValueError, KeyError, AssertionError):
        return frozenset()
