"""The worklist's rows as HTML.

Functions, where the rest of a page has templates: a template takes half a millisecond for a row, and a list has thirty
to sixty of them. Whatever comes from outside is escaped here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from html import escape

from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.templatetags.portal_tags import (
    body_parts,
    dicom_age,
    icon,
    modalities,
    person_name,
    shown_modalities,
    status_badge,
)
from studies.models import Priority, Study
from studies.orders.models import Order
from studies.reading import OPEN_STATUSES
from studies.worklists.ages import age
from studies.worklists.rows import Row

# What a narrow screen says before each value.
LABELS = {
    "accession": _("Accession"),
    "arrival": _("Arrived"),
    "body_part": _("Body part"),
    "born": _("Born"),
    "clock": _("Due"),
    "date": _("Date"),
    "images": _("Images"),
    "modality": _("Modality"),
    "patient_id": _("Patient ID"),
    "priority": _("Priority"),
    "reader": _("Reader"),
    "referrer": _("Referrer"),
    "site": _("Site"),
    "study": _("Study"),
}
NO_RESULT = "no_result"
TO_COME = {Order.Status.ARRIVED: _("Patient is here"), Order.Status.IN_PROGRESS: _("Being imaged")}
DASH = '<span class="soft">—</span>'


@dataclass(frozen=True)
class Words:
    """What the cells say, in one language, escaped."""

    labels: Mapping[str, str]
    badges: Mapping[str, str]
    priorities: Mapping[str, str]
    held: str
    lock: str
    conflict: str
    cold: str
    choose: str


@dataclass(frozen=True)
class View:
    """Who looks, when, and at which columns."""

    columns: Sequence[str]
    user_id: int | None
    is_referrer: bool
    may_select: bool
    now: datetime
    people: Mapping[int, str]
    words: Words


@lru_cache(maxsize=16)
def words_in(language: str) -> Words:
    """Give the cells' words in a language: the catalogue is asked once, not for every cell."""
    badges: dict[str, str] = {status: status_badge(status) for status in Study.Status.values}
    badges |= {f"o{status}": status_badge("scheduled", label=str(TO_COME.get(status, ""))) for status in Order.Status}
    badges[f"o{Order.Status.CANCELLED}"] = badges[Study.Status.CANCELLED]
    badges[NO_RESULT] = f'<span class="soft">{escape(gettext("No result yet"))}</span>'
    priorities = {value: f"<span>{escape(str(label))}</span>" for value, label in Priority.choices}
    priorities[Priority.STAT] = status_badge("stat")
    priorities[Priority.ROUTINE] = f'<span class="soft">{escape(str(Priority.ROUTINE.label))}</span>'
    conflict = escape(gettext("An instance came twice with different content"))
    slower = escape(gettext("In the cold tier: shown as usual, only slower"))
    cold = icon("snowflake", label=gettext("Cold tier"), css="icon-sm")
    return Words(
        labels={name: escape(str(label)) for name, label in LABELS.items()},
        badges=badges,
        priorities=priorities,
        held=gettext("%(name)s has the case open until %(until)s UTC"),
        lock=icon("lock", css="icon-sm"),
        conflict=f' <span title="{conflict}">{icon("alert", label=gettext("Conflict"), css="icon-sm")}</span>',
        cold=f' <span class="soft" title="{slower}">{cold}</span>',
        choose=escape(gettext("Choose")),
    )


def _cell(view: View, name: str, content: str, css: str = "") -> str:
    return f'<td class="{css}" data-label="{view.words.labels[name]}">{content}</td>'


def _clipped(text: str, css: str) -> str:
    shown = escape(text)
    return f'<span class="clip {css}" title="{shown}">{shown}</span>'


def _accession(row: Row, view: View) -> str:
    return _cell(view, "accession", _clipped(row.accession_number, "clip-sm"), "num")


def _arrival(row: Row, view: View) -> str:
    return _cell(view, "arrival", DASH if row.is_order else f"{row.received_at:%Y-%m-%d %H:%M}", "num nowrap")


def _body_part(row: Row, view: View) -> str:
    return _cell(view, "body_part", _clipped(body_parts(modalities(row.body_part_examined)), "clip-sm"))


def _born(row: Row, view: View) -> str:
    born = row.patient_birth_date
    details = f"{dicom_age(age(born, row.study_date))} {escape(row.patient_sex)}"
    content = f'<span>{born.isoformat() if born else ""} <span class="soft">{details}</span></span>'
    return _cell(view, "born", content, "num nowrap")


def _clock(row: Row, view: View) -> str:
    if row.due_at is None or row.status not in OPEN_STATUSES:
        return "<td></td>"
    due, since = row.due_at.isoformat(), row.received_at.isoformat()
    content = f'<time class="due" datetime="{due}" data-due="{due}" data-from="{since}">{row.due_at:%m-%d %H:%M}</time>'
    return _cell(view, "clock", content, "num")


def _date(row: Row, view: View) -> str:
    at = f' <span class="soft">{row.study_time:%H:%M}</span>' if row.study_time else ""
    day = row.study_date.isoformat() if row.study_date else "—"
    return _cell(view, "date", f"<span>{day}{at}</span>", "num nowrap")


def _images(row: Row, view: View) -> str:
    return _cell(view, "images", DASH if row.is_order else str(row.number_of_instances), "num")


def _modality(row: Row, view: View) -> str:
    chips = "".join(f'<span class="chip">{escape(one)}</span>' for one in shown_modalities(row.modalities_in_study))
    return _cell(view, "modality", f'<span class="chips">{chips}</span>')


def _patient(row: Row, view: View) -> str:
    name = escape(person_name(row.patient_name))
    if row.is_order:
        url = reverse("order", args=[row.pk])
    else:
        url = reverse("report" if view.is_referrer else "study", args=[row.study_instance_uid])
    link = f'<a class="row-link clip" href="{url}" title="{name}"><bdi>{name or "—"}</bdi></a>'
    return f'<td class="col-patient">{link}</td>'


def _patient_id(row: Row, view: View) -> str:
    return _cell(view, "patient_id", _clipped(row.patient_id_value, "clip-sm"), "num")


def _priority(row: Row, view: View) -> str:
    return _cell(view, "priority", view.words.priorities.get(row.priority) or escape(row.priority), "priority")


def _reader(row: Row, view: View) -> str:
    if row.assigned_to is None:
        return "<td></td>"
    mine = " is-mine" if row.assigned_to == view.user_id else ""
    return _cell(view, "reader", _clipped(view.people.get(row.assigned_to, ""), f"clip-sm{mine}"))


def _referrer(row: Row, view: View) -> str:
    return _cell(view, "referrer", _clipped(person_name(row.referring_physician_name), ""), "full")


def _site(row: Row, view: View) -> str:
    return _cell(view, "site", _clipped(row.site, "clip-sm"), "col-site full")


def _status(row: Row, view: View) -> str:
    words = view.words
    if row.is_order:
        return f"<td>{words.badges[f'o{row.status}']}</td>"
    has_result = row.status in {Study.Status.FINAL, Study.Status.ADDENDED}
    content = words.badges[row.status if has_result or not view.is_referrer else NO_RESULT]
    until = row.claimed_until
    if row.claimed_by is not None and until is not None and until > view.now and not view.is_referrer:
        name = escape(view.people.get(row.claimed_by, ""))
        title = words.held % {"name": name, "until": f"{until:%H:%M}"}
        content += (
            f' <span class="holder" data-claimed-until="{until.isoformat()}" title="{title}">'
            f"{words.lock}<span>{name}</span></span>"
        )
    content += (words.conflict if row.has_conflict else "") + (words.cold if row.tier == Study.Tier.COLD else "")
    return f'<td><span class="status-line">{content}</span></td>'


def _study(row: Row, view: View) -> str:
    return _cell(view, "study", _clipped(row.study_description or "—", "clip-lg"), "full")


CELLS: dict[str, Callable[[Row, View], str]] = {
    "patient": _patient,
    "status": _status,
    "priority": _priority,
    "clock": _clock,
    "date": _date,
    "modality": _modality,
    "study": _study,
    "body_part": _body_part,
    "patient_id": _patient_id,
    "born": _born,
    "accession": _accession,
    "referrer": _referrer,
    "reader": _reader,
    "images": _images,
    "arrival": _arrival,
    "site": _site,
}


def rows_as_html(rows: Iterable[Row], view: View) -> SafeString:
    """Give the rows as ``<tr>`` elements; what comes from outside is escaped."""
    cells = [CELLS[name] for name in view.columns]
    return mark_safe("\n".join(_row(row, view, cells) for row in rows))  # noqa: S308


def _row(row: Row, view: View, cells: Sequence[Callable[[Row, View], str]]) -> str:
    css = ""
    if row.is_order:
        css = "is-to-come"
    elif row.status == Study.Status.ARRIVED and not view.is_referrer:
        css = "is-unread is-critical" if row.priority == Priority.STAT else "is-unread"
    box = ""
    if view.may_select:
        if not row.is_order:
            label = f"{view.words.choose} {escape(person_name(row.patient_name))}"
            box = f'<input type="checkbox" class="form-check-input" name="study" value="{row.pk}" aria-label="{label}">'
        box = f'<td class="row-check">{box}</td>'
    further = " data-further" if row.is_further else ""
    return f'<tr data-row="{row.key}" class="{css}"{further}>{box}{"".join([cell(row, view) for cell in cells])}</tr>'
