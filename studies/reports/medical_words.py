"""``python -m studies.reports.medical_words``: the medical words for the spelling check, from lawful lists.

They are the meanings of codes in DICOM (PS3.16) and the titles and index terms of ICD-10-CM, less what the English
dictionaries know. It's run when one of these has a new edition; what it made lies beside the dictionaries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from xml.etree import ElementTree

from pydicom.sr import _concepts_dict

from studies.reports.spelling import DICTIONARIES, dictionaries

_WORD = re.compile(r"[^\W\d_]{4,}")


def dicom_words() -> Iterator[str]:
    """Give the words of DICOM's code meanings."""
    for scheme in _concepts_dict.concepts.values():
        for codes in scheme.values():
            for meaning, _ in codes.values():
                yield from _WORD.findall(meaning)


def icd_words() -> Iterator[str]:
    """Give the words of ICD-10-CM's tabular list, which the package brings as XML. Raises ModuleNotFoundError."""
    for file in (resources.files("simple_icd_10_cm") / "data").iterdir():
        if file.name.endswith(".xml"):
            for element in ElementTree.fromstring(file.read_text("utf-8")).iter():  # noqa: S314 (a package's own file)
                yield from _WORD.findall(element.text or "")


def main() -> None:
    """Write the list."""
    words = {word.lower() for word in (*dicom_words(), *icd_words()) if not word.isupper()}
    known = dictionaries("en")
    unknown = sorted(word for word in words if not any(one.spell(word) for one in known))
    (DICTIONARIES / "medical.txt").write_text("\n".join(unknown) + "\n")
    print(f"{len(unknown)} words")


if __name__ == "__main__":
    main()
