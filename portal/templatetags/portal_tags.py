"""What templates of every room need to show DICOM values, icons and states the same way."""

import re
from collections.abc import Iterable
from datetime import timedelta

from django import template
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, RadioSelect, Select
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

register = template.Library()

STATUS_LABELS = {
    "scheduled": _("Scheduled"),
    "acquiring": _("Being acquired"),
    "arrived": _("Arrived"),
    "in_reading": _("In reading"),
    "preliminary": _("Preliminary"),
    "final": _("Final"),
    "addended": _("Addended"),
    "cancelled": _("Cancelled"),
    "critical": _("Critical"),
    "stat": _("STAT"),
    "ok": _("OK"),
    "failed": _("Failed"),
    "refused": _("Refused"),
    "quarantined": _("Quarantined"),
    "running": _("Running"),
    "waiting": _("Waiting"),
}

# Marks that turn the direction of the text around them; they have no place in a name that others must read.
DIRECTION_MARKS = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])

# Modality (0008,0060) of what is written about images.
DOCUMENTS = {"DOC", "SR", "KO", "PR"}

# What the trail's details are called, where their own name isn't a word.
DETAILS = {
    "code": _("reason"),
    "keys": _("asked for"),
    "page": _("page"),
    "results": _("found"),
    "route": _("address"),
    "sop_instance_uid": _("image"),
    "status": _("answer"),
    "total_of": _("in all of event"),
    "way": _("by"),
    "way_in": _("came by"),
}

# Body Part Examined (0018,0015) where its defined term isn't a word (PS3.16 Annex L).
BODY_PARTS = {
    "CSPINE": _("Cervical spine"),
    "LSPINE": _("Lumbar spine"),
    "SSPINE": _("Sacral spine"),
    "TSPINE": _("Thoracic spine"),
    "WHOLEBODY": _("Whole body"),
}

AGE_UNITS = {"D": _("d"), "W": _("wk"), "M": _("mo"), "Y": _("y")}


@register.simple_tag
def icon(name: str, label: str = "", css: str = "") -> SafeString:
    """Give an icon of the sprite `static/icons.svg`; hidden from screen readers unless it has a label."""
    href = f"{static('icons.svg')}#{name}"
    if label:
        return format_html('<svg class="icon {}" role="img" aria-label="{}"><use href="{}"/></svg>', css, label, href)
    return format_html('<svg class="icon {}" aria-hidden="true"><use href="{}"/></svg>', css, href)


@register.simple_tag
def status_badge(status: str, label: str = "") -> SafeString:
    """Give the badge of a status; an unknown status is shown as its own words in the neutral colour."""
    key = str(status).lower().replace(" ", "_").replace("-", "_")
    known = key in STATUS_LABELS
    text = label or (STATUS_LABELS[key] if known else str(status).replace("_", " "))
    return format_html('<span class="status status-{}">{}</span>', key if known else "neutral", text)


@register.filter
def person_name(value: object) -> str:
    """Give a DICOM person name (PS3.5 §6.2.1) as `FAMILY, Given Middle`.

    The alphabetic group is formatted; an ideographic group follows in brackets, or stands alone where
    there is no alphabetic one. Prefix, suffix and marks that turn the
    direction of text are left out; text without `^` stays as it is.
    """
    groups = [group.strip() for group in str(value or "").translate(DIRECTION_MARKS).split("=")]
    alphabetic = groups[0]
    ideographic = " ".join(groups[1].replace("^", " ").split()) if len(groups) > 1 else ""
    if "^" in alphabetic:
        family, given, middle = (*(part.strip() for part in alphabetic.split("^")), "", "")[:3]
        rest = " ".join(part for part in (given, middle) if part)
        shown = ", ".join(part for part in (family.upper(), rest) if part)
    else:
        shown = alphabetic
    if shown and ideographic:
        return f"{shown} ({ideographic})"
    return shown or ideographic


@register.filter
def dicom_age(value: object) -> str:
    """Give a DICOM age string (PS3.5 §6.2, VR AS) for people: `034Y` as `34 y`; other text as it is."""
    text = str(value or "").strip()
    match = re.fullmatch(r"(\d{3})([DWMY])", text)
    return f"{int(match[1])} {AGE_UNITS[match[2]]}" if match else text


@register.filter
def time_span(value: timedelta) -> str:
    """Give a span in the largest unit that fits it without a rest: `90 minutes`, `12 hours`, `3 days`."""
    minutes = int(value.total_seconds() // 60)
    for length, one, many in ((1440, "%d day", "%d days"), (60, "%d hour", "%d hours"), (1, "%d minute", "%d minutes")):
        if minutes % length == 0 and minutes >= length:
            return ngettext(one, many, minutes // length) % (minutes // length)
    return ngettext("%d minute", "%d minutes", minutes) % minutes


@register.filter
def modalities(value: object) -> list[str]:
    """Give modalities as a list, from a list, a DICOM multi-value (backslash between) or comma text."""
    if isinstance(value, str):
        return [part.strip() for part in re.split(r"[\\,]", value) if part.strip()]
    if isinstance(value, Iterable):
        return [str(part) for part in value]
    return []


@register.filter
def shown_modalities(value: object) -> list[str]:
    """Give what a study was made with: documents and marks that joined it are left out, unless there's nothing else."""
    every = modalities(value)
    return [one for one in every if one not in DOCUMENTS] or every


@register.filter
def body_part(value: str) -> str:
    """Give a defined term of Body Part Examined in words: `LSPINE` as `Lumbar spine`."""
    return str(BODY_PARTS.get(value, value.capitalize()))


@register.filter
def body_parts(values: Iterable[str]) -> str:
    """Give several body parts in words."""
    return ", ".join(map(body_part, values))


@register.filter
def detail_name(name: str) -> str:
    """Give the name of an event's detail in words: `way_in` as `came by`, `accession_number` as `accession number`."""
    return str(DETAILS.get(name, name.replace("_", " ")))


@register.filter
def detail(value: object) -> str:
    """Give a detail of an event in words: `{"q": "lind", "site": ["a", "b"]}` as `q=lind, site=a, b`."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={detail(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(detail(one) for one in value)
    return str(value)


def kind_of(bound: BoundField) -> str:
    """Give the kind of control that a form field is drawn as."""
    widget = bound.field.widget
    if isinstance(widget, CheckboxSelectMultiple | RadioSelect):
        return "group"
    if isinstance(widget, CheckboxInput):
        return "check"
    return "select" if isinstance(widget, Select) else "control"


@register.simple_tag
def control(bound: BoundField) -> SafeString:
    """Give the bare control of a form field with our classes, for places that bring their own label."""
    css = {"group": "form-check-input", "check": "form-check-input", "select": "form-select"}.get(
        kind_of(bound), "form-control"
    )
    own = bound.field.widget.attrs.get("class", "")
    invalid = "is-invalid" if bound.errors else ""
    return bound.as_widget(attrs={"class": " ".join(part for part in (own, css, invalid) if part)})


@register.inclusion_tag("components/field.html")
def field(bound: BoundField, hide_label: bool = False) -> dict[str, object]:
    """Show one form field: label, control, help and errors, tied together for screen readers."""
    return {"field": bound, "control": control(bound), "kind": kind_of(bound), "hide_label": hide_label}
