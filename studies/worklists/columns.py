"""The worklist's columns: what each is called, what it's sorted by, and which are shown unless chosen otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from django.template import Template, engines
from django.template.loader import get_template
from django.utils.functional import Promise
from django.utils.html import escape
from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Column:
    """A column; its cell is ``worklists/cells/NAME.html``."""

    name: str
    label: str | Promise
    sort: str = ""
    css: str = ""

    @property
    def template(self) -> str:
        return f"worklists/cells/{self.name}.html"


COLUMNS = {
    column.name: column
    for column in (
        Column("patient", _("Patient"), "name"),
        Column("status", _("Status"), "status"),
        Column("priority", _("Priority"), "priority"),
        Column("clock", _("Due"), css="num"),
        Column("date", _("Study date"), "date", "num"),
        Column("modality", _("Modality"), "modality"),
        Column("study", _("Study"), "study"),
        Column("body_part", _("Body part")),
        Column("patient_id", _("Patient ID"), "patient_id", "num"),
        Column("born", _("Born"), css="num"),
        Column("accession", _("Accession"), "accession", "num"),
        Column("referrer", _("Referrer"), "referrer"),
        Column("reader", _("Reader")),
        Column("images", _("Images"), "images", "num"),
        Column("arrival", _("Arrived"), "arrival", "num"),
        Column("site", _("Site"), "site"),
    )
}
USUAL = (
    *("patient", "status", "priority", "clock", "date", "modality", "study", "born", "reader", "patient_id"),
    *("accession", "referrer", "site"),
)
# What a referring clinician sees: results, not the department's work.
REFERRERS = ("patient", "status", "date", "modality", "study", "patient_id", "born", "site")


# Whole {% translate "…" %} tags without a variable or an option.
_TRANSLATED = re.compile(r"""\{% translate (["'])([^"'{}]*)\1 %\}""")


def chosen(names: list[str], *, is_referrer: bool) -> list[Column]:
    """Give the columns to show; the patient always comes first."""
    if is_referrer:
        return [COLUMNS[name] for name in REFERRERS]
    known = [name for name in names if name in COLUMNS and name != "patient"]
    return [COLUMNS[name] for name in (["patient", *known] if known else USUAL)]


def cells(names: tuple[str, ...]) -> Template:
    """Give the columns' cells as one template, in the reader's language: a row costs one inclusion and no catalogue."""
    return _cells(names, get_language() or "")


@lru_cache(maxsize=256)
def _cells(names: tuple[str, ...], language: str) -> Template:
    sources = [get_template(COLUMNS[name].template).template.source for name in names]  # type: ignore[attr-defined]
    source = _TRANSLATED.sub(lambda found: escape(gettext(found[2])), "".join(sources))
    whole: Template = engines["django"].from_string(source).template  # type: ignore[attr-defined]
    return whole
