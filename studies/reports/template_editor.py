"""The template editor: a template's tree as one flat form, and what the editor's buttons do to the tree.

The form names each value by its place: ``0.title`` is the first section's title, ``0.2.label`` the label of that
section's third field. The server keeps nothing between two requests: what the form holds is the tree. A field's id is
made from its label when it's first saved (until then it ``is_new``) and stays, because reports and MRRT files name it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import count
from typing import Any

from django.http import QueryDict
from django.utils.text import slugify

from studies.reports.outline import MOST_FIELDS, MOST_SECTIONS, RESERVED, parsed_number

Tree = dict[str, Any]
TEXT, CHOICE, MULTI, NUMBER, DATE, CHECKBOX = "text", "choice", "multi", "number", "date", "checkbox"
TICKED = "1"
_LONGEST_ID = 50


def read_tree(form: QueryDict) -> Tree:
    """Give the tree that the form holds. It may not make sense yet; ``Outline.of`` says whether it does."""
    sections = []
    for section in _places(form, ""):
        fields = [_read_field(form, f"{section}.{place}") for place in _places(form, f"{section}.")]
        sections.append(
            {
                "id": form.get(f"{section}.id", ""),
                "title": form.get(f"{section}.title", "").strip(),
                "role": form.get(f"{section}.role", "other"),
                "fields": fields,
            }
        )
    return _named({"sections": sections})


def tree_before(form: QueryDict) -> Tree | None:
    """Give the tree as it was before the last removal, to be brought back; None where there was none."""
    try:
        tree = json.loads(form.get("before") or "null")
    except ValueError:
        return None
    return tree if isinstance(tree, dict) and isinstance(tree.get("sections"), list) else None


def _places(form: QueryDict, prefix: str) -> Iterator[int]:
    """Give the places that the form holds; bounded, so that a form can't make more work than a template may."""
    most = MOST_FIELDS if prefix else MOST_SECTIONS
    for place in range(most + 1):
        if f"{prefix}{place}.role" not in form and f"{prefix}{place}.type" not in form:
            return
        yield place


def _read_field(form: QueryDict, path: str) -> Tree:
    kind = form.get(f"{path}.type", TEXT)
    field: Tree = {
        "id": form.get(f"{path}.id", ""),
        "type": kind,
        "label": form.get(f"{path}.label", "").strip(),
        "has_no_label": f"{path}.has_no_label" in form,
    }
    if words := form.get(f"{path}.help", "").strip():
        field["help"] = words
    if f"{path}.required" in form:
        field["required"] = True
    if kind in {CHOICE, MULTI}:
        lines = form.get(f"{path}.options", "").splitlines()
        field["options"] = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if kind == NUMBER:
        field |= {"unit": form.get(f"{path}.unit", "").strip()} if form.get(f"{path}.unit", "").strip() else {}
        for name in ("minimum", "maximum"):
            if (number := _number(form.get(f"{path}.{name}", ""))) is not None:
                field[name] = number
    if (default := _default(form, path, kind, field.get("options", []))) is not None:
        field["default"] = default
    if condition := form.get(f"{path}.show_if", ""):
        values = form.getlist(f"{path}.show_if_values")
        lines = [line.strip() for value in values for line in value.splitlines()]
        field["show_if"] = {"place": condition, "values": [line for line in lines if line]}
    return field


def _default(form: QueryDict, path: str, kind: str, options: list[str]) -> str | bool | list[str] | None:
    if kind == CHECKBOX:
        return True if f"{path}.default" in form else None
    if kind == MULTI:
        return [option for option in options if option in form.getlist(f"{path}.default")] or None
    text = form.get(f"{path}.default", "").replace("\r\n", "\n").strip()
    # A choice that was taken off the list can't stay what the field begins with.
    return None if not text or (kind == CHOICE and text not in options) else text


def _number(text: str) -> float | str | None:
    """Give the number, a whole one without a point; what is none stays, so that it's seen and put right."""
    text = text.strip()
    number = parsed_number(text)
    if number is None:
        return text or None
    return int(number) if number.is_integer() else number


def _named(tree: Tree) -> Tree:
    """Give every section and field its id, and conditions the id of the field that they name by its place."""
    fields = [field for section in tree["sections"] for field in section["fields"]]
    taken = {one["id"] for one in [*tree["sections"], *fields]} | RESERVED
    by_place: dict[str, str] = {}
    for s, section in enumerate(tree["sections"]):
        if not section["id"]:
            section |= {"id": _new_id(section["title"] or section["role"], taken), "is_new": True}
        for f, field in enumerate(section["fields"]):
            # A section's own id marks the field that stands in the report without its label.
            if field.pop("has_no_label") and all(one["id"] != section["id"] for one in section["fields"][:f]):
                field["id"] = section["id"]
            elif not field["id"] or field["id"] == section["id"]:
                field |= {"id": _new_id(field["label"] or field["type"], taken), "is_new": True}
            by_place[f"{s}.{f}"] = field["id"]
    for field in fields:
        if condition := field.get("show_if"):
            field["show_if"] = {"field": by_place.get(condition["place"], ""), "values": condition["values"]}
            if not field["show_if"]["field"]:
                del field["show_if"]
    return tree


def _new_id(words: str, taken: set[str]) -> str:
    begin = slugify(words).replace("-", "_")[:_LONGEST_ID]
    begin = begin if begin[:1].isalpha() else f"field_{begin}".rstrip("_")
    names = (begin if number == 1 else f"{begin}_{number}" for number in count(1))
    found = next(name for name in names if name not in taken)
    taken.add(found)
    return found


def changed(tree: Tree, action: str) -> tuple[Tree, str]:
    """Do what a button says; give the new tree and the id of the element that gets the keyboard.

    Buttons say ``add_section``, ``add_field S``, ``copy S.F``, ``up P``, ``down P`` and ``remove P``, P being the place
    of a section or a field. What can't be done leaves the tree as it is.
    """
    verb, _, place = action.partition(" ")
    tree = deepcopy(tree)
    sections = tree["sections"]
    if verb == "add_section" and len(sections) < MOST_SECTIONS:
        sections.append({"id": "", "title": "", "role": "other", "fields": [_new_field()]})
        return tree, f"e-{len(sections) - 1}-title"
    at = [int(part) for part in place.split(".") if part.isdigit() and len(part) < 4]
    if not at or at[0] >= len(sections):
        return tree, ""
    if len(at) == 1:
        return _section_changed(tree, verb, at[0])
    if at[1] >= len(sections[at[0]]["fields"]):
        return tree, ""
    return _field_changed(tree, verb, at[0], at[1])


def _section_changed(tree: Tree, verb: str, place: int) -> tuple[Tree, str]:
    sections = tree["sections"]
    if verb == "add_field":
        sections[place]["fields"].append(_new_field())
        return tree, f"e-{place}-{len(sections[place]['fields']) - 1}-label"
    if verb == "remove":
        del sections[place]
        return _without_lost_conditions(tree), f"e-{max(place - 1, 0)}-title" if sections else "e-add-section"
    to = place + {"up": -1, "down": 1}.get(verb, 0)
    if 0 <= to < len(sections):
        sections.insert(to, sections.pop(place))
        place = to
    return tree, f"e-{place}-{verb}"


def _field_changed(tree: Tree, verb: str, section: int, place: int) -> tuple[Tree, str]:
    sections = tree["sections"]
    fields = sections[section]["fields"]
    if verb == "copy":
        fields.insert(place + 1, {**deepcopy(fields[place]), "id": ""})
        return tree, f"e-{section}-{place + 1}-label"
    if verb == "remove":
        del fields[place]
        left = f"e-{section}-{max(place - 1, 0)}-label" if fields else f"e-{section}-add"
        return _without_lost_conditions(tree), left
    # Over the edge of its section a field goes to the next one.
    to_section, to = section, place + {"up": -1, "down": 1}.get(verb, 0)
    if to < 0 < section:
        to_section, to = section - 1, len(sections[section - 1]["fields"])
    elif to >= len(fields) and section + 1 < len(sections):
        to_section, to = section + 1, 0
    if 0 <= to <= len(sections[to_section]["fields"]) - (to_section == section):
        field = fields.pop(place)
        if to_section != section and field["id"] == sections[section]["id"]:
            _rename(tree, field)
        sections[to_section]["fields"].insert(to, field)
        section, place = to_section, to
    return tree, f"e-{section}-{place}-{verb}"


def _rename(tree: Tree, field: Tree) -> None:
    """Give a field that leaves the section whose id it had one of its own, also in the conditions that name it."""
    everything = [one for section in tree["sections"] for one in section["fields"]]
    taken = {one["id"] for one in [*tree["sections"], *everything]} | RESERVED
    before, field["id"] = field["id"], _new_id(field["label"] or field["type"], taken)
    for one in everything:
        if one.get("show_if", {}).get("field") == before:
            one["show_if"]["field"] = field["id"]


def _new_field() -> Tree:
    return {"id": "", "type": TEXT, "label": ""}


def _without_lost_conditions(tree: Tree) -> Tree:
    ids = {field["id"] for section in tree["sections"] for field in section["fields"]}
    for section in tree["sections"]:
        for field in section["fields"]:
            if field.get("show_if") and field["show_if"]["field"] not in ids:
                del field["show_if"]
    return tree


def editor_sections(tree: Tree) -> list[dict[str, Any]]:
    """Give what the editor's form shows of the tree."""
    shown = []
    earlier: list[Tree] = []
    everything = [
        {**field, "path": f"{s}.{f}"}
        for s, section in enumerate(tree["sections"])
        for f, field in enumerate(section["fields"])
    ]
    for s, section in enumerate(tree["sections"]):
        fields = []
        for f, field in enumerate(section["fields"]):
            fields.append(_editor_field(field, f"{s}.{f}", section["id"], earlier, everything))
            earlier.append({**field, "path": f"{s}.{f}"})
        shown.append({**section, "path": str(s), "dom": f"e-{s}", "fields": fields})
    return shown


def _editor_field(field: Tree, path: str, section_id: str, earlier: list[Tree], everything: list[Tree]) -> Tree:
    options = field.get("options", [])
    default = field.get("default", "")
    condition = field.get("show_if") or {}
    asked = next((one for one in everything if one["id"] and one["id"] == condition.get("field")), None)
    wanted = condition.get("values", [])
    return {
        **field,
        "path": path,
        "dom": f"e-{path.replace('.', '-')}",
        "has_no_label": bool(field["id"]) and field["id"] == section_id,
        "options_text": "\n".join(options),
        "defaults": [
            {"value": option, "chosen": option in default if isinstance(default, list) else option == default}
            for option in options
        ],
        "number_of_lines": min(8, max(2, str(default).count("\n") + 1 + len(str(default)) // 80)),
        # A field that comes later can't be asked; where one is, after a move, it's shown until that's put right.
        "askable": [
            {"path": one["path"], "label": one["label"] or one["id"] or one["type"], "chosen": one is asked_one}
            for one, asked_one in _askable(earlier, asked)
        ],
        "condition": asked,
        "condition_options": [
            {"value": option, "chosen": option in wanted} for option in (asked or {}).get("options", [])
        ],
        "condition_text": "\n".join(wanted),
    }


def _askable(earlier: list[Tree], asked: Tree | None) -> Iterator[tuple[Tree, Tree | None]]:
    is_known = False
    for one in earlier:
        is_it = asked is not None and one["path"] == asked["path"]
        is_known = is_known or is_it
        yield one, one if is_it else None
    if asked is not None and not is_known:
        yield asked, asked
