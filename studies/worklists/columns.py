"""The worklist's columns: what each is called, what it's sorted by, and which are shown unless chosen otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Column:
    """A column; :mod:`.cells` has its cell."""

    name: str
    label: str | Promise
    sort: str = ""
    css: str = ""


COLUMNS = {
    column.name: column
    for column in (
        Column("patient", _("Patient"), "name", "col-patient"),
        Column("status", _("Status"), "status"),
        Column("priority", _("Priority"), "priority"),
        Column("clock", _("Due"), "due", "num"),
        Column("date", _("Study date"), "date", "num"),
        Column("modality", _("Modality"), "modality"),
        Column("study", _("Study"), "study", "col-study"),
        Column("body_part", _("Body part"), css="col-text"),
        Column("patient_id", _("Patient ID"), "patient_id", "num col-id"),
        Column("born", _("Born"), css="num"),
        Column("accession", _("Accession"), "accession", "num col-id"),
        Column("referrer", _("Referrer"), "referrer", "col-text"),
        Column("reader", _("Reader"), css="col-text"),
        Column("images", _("Images"), "images", "num"),
        Column("arrival", _("Arrived"), "arrival", "num"),
        Column("site", _("Site"), "site", "col-text col-site"),
    )
}
USUAL = ("patient", "status", "priority", "clock", "date", "modality", "study", "born", "reader", "patient_id", "site")
# What a referring clinician sees: results, not the department's work.
REFERRERS = ("patient", "status", "date", "modality", "study", "patient_id", "born", "site")


def chosen(names: list[str], *, is_referrer: bool, has_sites: bool) -> list[Column]:
    """Give the columns to show; the patient always comes first, the site only where there are several."""
    if is_referrer:
        return [COLUMNS[name] for name in REFERRERS]
    known = [name for name in names if name in COLUMNS and name != "patient"]
    if known:
        return [COLUMNS[name] for name in ("patient", *known)]
    return [COLUMNS[name] for name in USUAL if has_sites or name != "site"]
