"""The outline of a report: sections with typed fields, and how what's entered becomes the report's text.

A template's ``content`` is this tree as JSON::

    {"sections": [{"id": "findings", "title": "Findings", "role": "findings", "fields": [
        {"id": "nodule", "type": "choice", "label": "Nodule", "options": ["None", "Solid"], "default": "None"},
        {"id": "nodule_size", "type": "number", "label": "Size", "unit": "mm", "minimum": 0, "maximum": 300,
         "show_if": {"field": "nodule", "values": ["Solid"]}}]}]}

Values are kept by field id: text for all types but ``multi`` (a list of texts) and ``checkbox`` (true or false).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple

Value = str | bool | list[str]
TYPES = ("text", "choice", "multi", "number", "date", "checkbox")
# Which part of a report a section is: for checks, codes (PS3.16 CID 7001) and for words that change the template.
ROLES = ("indication", "technique", "comparison", "findings", "impression", "reason", "other")
MOST_SECTIONS, MOST_FIELDS, MOST_OPTIONS = 40, 400, 200
LONGEST_LABEL, LONGEST_TEXT = 200, 5000
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
# Names that the desk's form uses itself.
RESERVED = frozenset(
    {"revision", "part", "password", "code", "passkey", "accepted", "reason_for", "csrfmiddlewaretoken", "key"}
)


class InvalidOutline(ValueError):
    """The tree isn't one; the message says where, for the person who wrote it."""


class SectionText(NamedTuple):
    """A section as it's read."""

    id: str
    title: str
    role: str
    text: str


@dataclass(frozen=True)
class Condition:
    """A field is shown only while another one has one of these values ("1" for a ticked box)."""

    field: str
    values: tuple[str, ...]

    def is_met(self, values: Mapping[str, Any]) -> bool:
        value = values.get(self.field, "")
        present = value if isinstance(value, list) else ["1" if value is True else str(value or "")]
        return any(one in self.values for one in present)


@dataclass(frozen=True)
class Field:
    """One thing to enter."""

    id: str
    type: str
    label: str
    default: Value = ""
    help: str = ""
    required: bool = False
    options: tuple[str, ...] = ()
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    show_if: Condition | None = None

    def statement(self, value: Any, *, is_alone: bool) -> str:
        """Give what the value says in the report; empty when nothing was entered."""
        if self.type == "checkbox":
            return self.label if value is True else ""
        text = ", ".join(str(one) for one in value) if isinstance(value, list) else str(value or "").strip()
        if not text:
            return ""
        if self.unit:
            text = f"{text} {self.unit}"
        return text if is_alone or not self.label else f"{self.label}: {text}"

    def empty(self) -> Value:
        return False if self.type == "checkbox" else [] if self.type == "multi" else ""

    def read(self, texts: list[str]) -> Value:
        """Give the value of what a form sent: of a list the known options, of a box whether it's ticked."""
        if self.type == "checkbox":
            return texts[-1:] == ["1"]
        if self.type == "multi":
            return [option for option in self.options if option in texts]
        return texts[-1] if texts else ""


@dataclass(frozen=True)
class Section:
    """A headed part of the report. A text field with the section's own id is its running text, without a label."""

    id: str
    title: str
    role: str
    fields: tuple[Field, ...]

    @property
    def running_text(self) -> Field | None:
        texts = [f for f in self.fields if f.type == "text"]
        return next((f for f in texts if f.id == self.id), texts[-1] if texts else None)


@dataclass(frozen=True)
class Outline:
    """A report's sections."""

    sections: tuple[Section, ...]

    @classmethod
    def of(cls, content: Any) -> Outline:
        """Read the JSON tree. Raises InvalidOutline."""
        return _read_outline(content)

    def as_json(self) -> dict[str, Any]:
        return {"sections": [_section_json(section) for section in self.sections]}

    @cached_property
    def fields(self) -> dict[str, Field]:
        return {field.id: field for section in self.sections for field in section.fields}

    def section_of_role(self, role: str) -> Section | None:
        return next((s for s in self.sections if s.role == role), None)

    def shown(self, values: Mapping[str, Any]) -> dict[str, Field]:
        """Give the fields that are shown with these values; what depends on a hidden one is hidden, too."""
        shown: dict[str, Field] = {}
        for name, field in self.fields.items():
            if field.show_if is None or (field.show_if.field in shown and field.show_if.is_met(values)):
                shown[name] = field
        return shown

    def shown_values(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Give the values that the report says."""
        shown = self.shown(values)
        return {name: value for name, value in values.items() if name in shown}

    def defaults(self) -> dict[str, Value]:
        return {field.id: field.default for field in self.fields.values() if field.default != field.empty()}

    def texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Put the values together to each section's text."""
        composed = {}
        shown = self.shown(values)
        for section in self.sections:
            lines = [
                field.statement(values.get(field.id), is_alone=field.id == section.id)
                for field in section.fields
                if field.id in shown
            ]
            composed[section.id] = "\n".join(line for line in lines if line)
        return composed

    def section_texts(self, sections: Mapping[str, Any]) -> list[SectionText]:
        """Give the sections that have text, in order; those of another outline come last: no word is hidden."""
        known = [SectionText(s.id, s.title, s.role, str(sections[s.id])) for s in self.sections if sections.get(s.id)]
        ids = {s.id for s in self.sections}
        others = [
            SectionText(name, name.replace("_", " ").capitalize(), "other", str(text))
            for name, text in sections.items()
            if name not in ids and text
        ]
        return known + others

    def carried_over(self, values: Mapping[str, Any], previous: Outline) -> dict[str, Value]:
        """Give the values for this outline of a report begun with another; no word that a person entered is lost.

        A value stays in the field of the same id and type; any other, unless it was only a default, becomes
        running text of the section with the same role, or of the findings. What was hidden, and so no word of the
        report, stays only where it's hidden under the same condition.
        """
        carried = self.defaults()
        shown = previous.shown(values)
        left: list[tuple[str, str]] = []
        for section in previous.sections:
            for field in section.fields:
                value = values.get(field.id, field.empty())
                if value in (field.empty(), field.default):
                    continue
                same = self.fields.get(field.id)
                if field.id not in shown and (same is None or same.show_if != field.show_if):
                    continue
                if same is not None and same.type == field.type and (not same.options or _fits(same, value)):
                    carried[field.id] = value
                elif field.id in shown and (statement := field.statement(value, is_alone=field.id == section.id)):
                    left.append((section.role, statement))
        for role, statement in left:
            target = self._running_text(role)
            carried[target.id] = "\n".join(t for t in (str(carried.get(target.id) or ""), statement) if t)
        return carried

    def _running_text(self, role: str) -> Field:
        for wanted in (role, "findings"):
            section = self.section_of_role(wanted)
            if section is not None and section.running_text is not None:
                return section.running_text
        return next(field for field in self.fields.values() if field.type == "text")


def _fits(field: Field, value: Any) -> bool:
    return all(one in field.options for one in (value if isinstance(value, list) else [value]))


def _read_outline(content: Any) -> Outline:
    sections_json = content.get("sections") if isinstance(content, dict) else None
    if not isinstance(sections_json, list) or not 0 < len(sections_json) <= MOST_SECTIONS:
        raise InvalidOutline(f"A template needs 1 to {MOST_SECTIONS} sections.")
    sections = tuple(_read_section(one) for one in sections_json)
    fields = [field for section in sections for field in section.fields]
    ids = [field.id for field in fields]
    if len(fields) > MOST_FIELDS:
        raise InvalidOutline(f"A template may have at most {MOST_FIELDS} fields.")
    for names, what in (([s.id for s in sections], "section"), (ids, "field")):
        if twice := next((n for n in names if names.count(n) > 1), ""):
            raise InvalidOutline(f"There are two {what}s “{twice}”.")
    if not any(field.type == "text" for field in fields):
        raise InvalidOutline("A template needs a text field.")
    for place, field in enumerate(fields):
        # A field depends on an earlier one only, so that conditions can't go round in a circle.
        if field.show_if is not None and field.show_if.field not in ids[:place]:
            asked = next((one.label or one.id for one in fields if one.id == field.show_if.field), field.show_if.field)
            raise InvalidOutline(f"“{field.label or field.id}” depends on “{asked}”, which doesn't come before it.")
    return Outline(sections)


def _read_section(section: Any) -> Section:
    if not isinstance(section, dict):
        raise InvalidOutline("A section must be an object.")
    section_id, title = _id(section.get("id"), "section"), _text(section, "title", LONGEST_LABEL)
    role = section.get("role") or (section_id if section_id in ROLES else "other")
    if role not in ROLES:
        raise InvalidOutline(f"Section “{section_id}” has the unknown role “{role}”.")
    fields = section.get("fields")
    if not isinstance(fields, list) or not fields:
        raise InvalidOutline(f"Section “{title or section_id}” has no fields.")
    return Section(section_id, title or section_id.capitalize(), role, tuple(_read_field(f) for f in fields))


def _read_field(field: Any) -> Field:
    if not isinstance(field, dict):
        raise InvalidOutline("A field must be an object.")
    field_id, kind = _id(field.get("id"), "field"), field.get("type")
    if field_id in RESERVED:
        raise InvalidOutline(f"A field can't be called “{field_id}”.")
    if kind not in TYPES:
        raise InvalidOutline(f"Field “{field_id}” has the unknown type “{kind}”.")
    named = _text(field, "label", LONGEST_LABEL) or field_id
    options = field.get("options") or []
    if not isinstance(options, list) or len(options) > MOST_OPTIONS or not all(isinstance(o, str) for o in options):
        raise InvalidOutline(f"The options of “{named}” must be at most {MOST_OPTIONS} texts.")
    options = tuple(dict.fromkeys(o.strip()[:LONGEST_LABEL] for o in options if o.strip()))
    if kind in {"choice", "multi"} and not options:
        raise InvalidOutline(f"“{named}” has nothing to choose from.")
    minimum, maximum = (_number(field, key, f"“{named}”") for key in ("minimum", "maximum"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise InvalidOutline(f"The least value of “{named}” is above its greatest.")
    read = Field(
        id=field_id,
        type=kind,
        label=_text(field, "label", LONGEST_LABEL),
        help=_text(field, "help", 500),
        required=field.get("required") is True,
        options=options if kind in {"choice", "multi"} else (),
        unit=_text(field, "unit", 20) if kind == "number" else "",
        minimum=minimum if kind == "number" else None,
        maximum=maximum if kind == "number" else None,
        show_if=_condition(named, field.get("show_if")),
    )
    default = field.get("default", read.empty())
    return Field(**{**read.__dict__, "default": _default(read, default)})


def _default(field: Field, default: Any) -> Value:
    wanted = bool if field.type == "checkbox" else list if field.type == "multi" else str
    if not isinstance(default, wanted):
        raise InvalidOutline(f"The default of “{field.label or field.id}” doesn't suit its type.")
    if isinstance(default, str):
        default = default[:LONGEST_TEXT]
    if field.options and default and not _fits(field, default):
        raise InvalidOutline(f"The default of “{field.label or field.id}” isn't among its options.")
    if default and field.type == "number" and parsed_number(default) is None:
        raise InvalidOutline(f"The default of “{field.label or field.id}” is no number.")
    if default and field.type == "date" and parsed_date(default) is None:
        raise InvalidOutline(f"The default of “{field.label or field.id}” is no date.")
    value: Value = default
    return value


def _condition(named: str, condition: Any) -> Condition | None:
    if condition is None:
        return None
    values = condition.get("values") if isinstance(condition, dict) else None
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise InvalidOutline(f"The condition of “{named}” needs a field and its values.")
    return Condition(_id(condition.get("field"), "field"), tuple(values[:MOST_OPTIONS]))


def _id(name: Any, what: str) -> str:
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise InvalidOutline(
            f"“{name}” is no name for a {what}: use letters, digits, _ . and -, beginning with a letter."
        )
    return name


def _text(tree: dict[str, Any], key: str, longest: int) -> str:
    text = tree.get(key, "")
    if not isinstance(text, str):
        raise InvalidOutline(f"“{key}” must be a text.")
    return "".join(c for c in text if c.isprintable()).strip()[:longest]


def _number(tree: dict[str, Any], key: str, named: str) -> float | None:
    number = tree.get(key)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or abs(number) > 1e12:
        raise InvalidOutline(f"The {key} of {named} must be a number.")
    return number


def parsed_number(text: str) -> float | None:
    """Give the number that was typed, with a point or a comma; None when it's none."""
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return number if abs(number) < 1e12 else None


def parsed_date(text: str) -> date | None:
    """Give the day that was typed as ``YYYY-MM-DD``; None when it's none."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        return None


def _section_json(section: Section) -> dict[str, Any]:
    return {
        "id": section.id,
        "title": section.title,
        "role": section.role,
        "fields": [dict(_field_json(field)) for field in section.fields],
    }


def _field_json(field: Field) -> Iterator[tuple[str, Any]]:
    yield from (("id", field.id), ("type", field.type), ("label", field.label))
    for name in ("help", "required", "unit", "minimum", "maximum"):
        value = getattr(field, name)
        if value not in ("", False, None):
            yield name, value
    if field.options:
        yield "options", list(field.options)
    if field.default != field.empty():
        yield "default", field.default
    if field.show_if is not None:
        yield "show_if", {"field": field.show_if.field, "values": list(field.show_if.values)}


def _plain(*sections: tuple[str, str]) -> Outline:
    return Outline(
        tuple(
            Section(name, title, name, (Field(name, "text", title, required=name == "reason"),))
            for name, title in sections
        )
    )


GENERIC = _plain(
    ("indication", "Indication"),
    ("technique", "Technique"),
    ("comparison", "Comparison"),
    ("findings", "Findings"),
    ("impression", "Impression"),
)
ADDENDUM = _plain(("reason", "Reason"), ("findings", "Findings"), ("impression", "Impression"))
