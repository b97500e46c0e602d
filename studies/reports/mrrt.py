"""Templates as RadReport/MRRT HTML (IHE RAD Management of Radiology Report Templates, TF-3 §8).

Only what the profile names is read: sections, fields and their attributes, Dublin Core terms, and the coded content,
which is kept as XML. Everything else in the file, scripts and styles among it, is left behind: the file's HTML is
never shown, the desk is drawn from our own tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import tinyhtml5

from studies.reports.models import ReportTemplate
from studies.reports.outline import Field, Outline, parsed_date, parsed_number

LARGEST = 1 << 20
MOST_ELEMENTS = 20_000
_TERMS = re.compile(r"dcterms\.[a-z]{2,20}", re.IGNORECASE)
_NOT_ID = re.compile(r"[^A-Za-z0-9_.-]+")
_ROLE_WORDS = (
    ("impression", ("impression", "conclusion", "beurteilung", "summary")),
    ("comparison", ("comparison", "previous", "prior", "vergleich")),
    ("technique", ("technique", "procedure", "technik", "protocol")),
    ("indication", ("indication", "clinical", "history", "reason", "request")),
    ("findings", ("finding", "observation", "befund", "result")),
)
_CONDITION = "data-atrium-show-if"
_CONDITION_VALUES = "data-atrium-show-if-values"

# Which studies a template is for, and how much a file may say of each.
_STUDIES = ("modalities", "body_parts", "keywords")
_LONGEST_WORDS = 500


class NotATemplate(ValueError):
    """The file isn't an MRRT template; the message says why, for the person."""


@dataclass
class Imported:
    """What an MRRT file holds."""

    name: str
    description: str
    language: str
    content: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    coded_content: str = ""
    procedure_codes: list[dict[str, str]] = field(default_factory=list)
    modalities: list[str] = field(default_factory=list)
    body_parts: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)


def read_template(document: bytes) -> Imported:
    """Read an MRRT file. Raises NotATemplate, InvalidOutline."""
    if len(document) > LARGEST:
        raise NotATemplate("The file is too large for a template.")
    try:
        root = tinyhtml5.parse(document, namespace_html_elements=False, default_encoding="utf-8")
    except (ValueError, RecursionError, LookupError) as error:
        raise NotATemplate("The file can't be read as HTML.") from error
    elements = [e for e in root.iter() if isinstance(e.tag, str)]
    if len(elements) > MOST_ELEMENTS:
        raise NotATemplate("The file has too many elements for a template.")
    metadata = {
        name.lower(): (e.get("content") or "")[:1000]
        for e in elements
        if e.tag == "meta" and _TERMS.fullmatch(name := e.get("name") or "")
    }
    title = next((_words(e) for e in elements if e.tag == "title"), "")
    coded = _coded_content(elements)
    sections = _sections(root, elements)
    if not sections:
        raise NotATemplate("The file has no section with fields.")
    outline = Outline.of({"sections": sections})
    return Imported(
        name=(metadata.get("dcterms.title") or title or "Imported template")[:120],
        description=metadata.get("dcterms.description", "")[:500],
        language=(metadata.get("dcterms.language") or root.get("lang") or "en")[:16],
        content=outline.as_json(),
        metadata=metadata,
        coded_content=coded,
        procedure_codes=_procedure_codes(coded),
        **_studies(elements),
    )


def write_template(template: ReportTemplate) -> bytes:
    """Give the template as an MRRT file."""
    html = ElementTree.Element("html", {"lang": template.language})
    head = ElementTree.SubElement(html, "head")
    ElementTree.SubElement(head, "meta", {"charset": "UTF-8"})
    ElementTree.SubElement(head, "title").text = template.name
    terms = {
        **template.metadata,
        "dcterms.title": template.name,
        "dcterms.description": template.description,
        "dcterms.identifier": template.metadata.get("dcterms.identifier") or f"urn:uuid:{template.family}",
        "dcterms.language": template.language,
        "dcterms.type": "IMAGE_REPORT_TEMPLATE",
        "dcterms.date": f"{template.created_at:%Y-%m-%d}",
    }
    for name, content in sorted(terms.items()):
        ElementTree.SubElement(head, "meta", {"name": name, "content": content})
    # MRRT has no place for which studies a template is for, other than by the procedure's code.
    for name in _STUDIES:
        if words := getattr(template, name):
            ElementTree.SubElement(head, "meta", {"name": f"atrium.{name}", "content": ", ".join(words)})
    script = ElementTree.SubElement(head, "script", {"type": "text/xml"})
    script.text = template.coded_content or _minimal_attributes(template)
    body = ElementTree.SubElement(html, "body")
    for section in Outline.of(template.content).sections:
        attributes = {"id": section.id, "data-section-name": section.title, "class": "level1"}
        box = ElementTree.SubElement(body, "section", {**attributes, "data-atrium-role": section.role})
        ElementTree.SubElement(box, "header", {"class": "level1"}).text = section.title
        for one in section.fields:
            paragraph = ElementTree.SubElement(box, "p")
            if one.label:
                ElementTree.SubElement(paragraph, "label", {"for": f"{one.id}"}).text = one.label
            _write_field(paragraph, one)
    written: bytes = ElementTree.tostring(html, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + written + b"\n"


def _write_field(parent: ElementTree.Element, one: Field) -> None:
    common = {
        "id": one.id,
        "name": one.label or one.id,
        "data-field-completion-action": "PRECLUDE" if one.required else "NONE",
    }
    if one.help:
        common["title"] = one.help
    if one.show_if is not None:
        common[_CONDITION] = one.show_if.field
        common[_CONDITION_VALUES] = "\n".join(one.show_if.values)
    if one.type == "text":
        area = ElementTree.SubElement(parent, "textarea", {**common, "data-field-type": "TEXT"})
        area.text = str(one.default)
    elif one.type in {"choice", "multi"}:
        more = {"multiple": "multiple"} if one.type == "multi" else {}
        chosen = one.default if isinstance(one.default, list) else [one.default]
        select = ElementTree.SubElement(parent, "select", {**common, "data-field-type": "SELECTION_LIST", **more})
        for option in one.options:
            selected = {"selected": "selected"} if option in chosen else {}
            ElementTree.SubElement(select, "option", {"value": option, **selected}).text = option
    elif one.type == "checkbox":
        checked = {"checked": "checked"} if one.default is True else {}
        kind = {"type": "checkbox", "data-field-type": "SELECTION_LIST"}
        ElementTree.SubElement(parent, "input", {**common, **kind, "value": one.label, **checked})
    elif one.type == "date":
        ElementTree.SubElement(
            parent, "input", {**common, "type": "date", "data-field-type": "DATE", "value": str(one.default)}
        )
    else:
        bounds = {
            name: f"{bound:g}" for name, bound in (("min", one.minimum), ("max", one.maximum)) if bound is not None
        }
        units = {"data-field-units": one.unit} if one.unit else {}
        kind = {"type": "number", "data-field-type": "NUMBER", "value": str(one.default)}
        ElementTree.SubElement(parent, "input", {**common, **kind, **units, **bounds})


def _minimal_attributes(template: ReportTemplate) -> str:
    root = ElementTree.Element("template_attributes")
    ElementTree.SubElement(root, "top-level-flag").text = "true"
    ElementTree.SubElement(root, "status").text = "ACTIVE"
    coded = ElementTree.SubElement(root, "coded_content")
    for code in template.procedure_codes:
        entry = ElementTree.SubElement(coded, "entry", {"ORIGTXT": "procedure"})
        term = ElementTree.SubElement(entry, "term", {"type": "procedure"})
        ElementTree.SubElement(term, "code", {name: code.get(name, "") for name in ("value", "scheme", "meaning")})
    return ElementTree.tostring(root, encoding="unicode")


def _studies(elements: list[ElementTree.Element]) -> dict[str, list[str]]:
    said = {e.get("name") or "": e.get("content") or "" for e in elements if e.tag == "meta"}
    found = {name: said.get(f"atrium.{name}", "")[:_LONGEST_WORDS].split(",") for name in _STUDIES}
    return {name: [word.strip() for word in words if word.strip()] for name, words in found.items()}


def _words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _coded_content(elements: list[ElementTree.Element]) -> str:
    """Give the coded content as XML written anew; empty where there's none that can be read."""
    for element in elements:
        if element.tag != "script" or (element.get("type") or "").lower() not in {"text/xml", "application/xml"}:
            continue
        text = (element.text or "").strip()
        # No entities: neither those that grow without bounds nor those that read files.
        if "<!" in text.replace("<!--", "").replace("<![CDATA[", ""):
            continue
        try:
            root = ElementTree.fromstring(text)  # noqa: S314  has no DTD
        except ElementTree.ParseError:
            continue
        written = ElementTree.tostring(root, encoding="unicode")
        if root.tag == "template_attributes" and "</script" not in written.lower():
            return written
    return ""


def _procedure_codes(coded: str) -> list[dict[str, str]]:
    if not coded:
        return []
    codes = []
    for term in ElementTree.fromstring(coded).iter("term"):  # noqa: S314  written by ourselves
        if (term.get("type") or "").lower() == "procedure":
            for code in term.iter("code"):
                codes.append({name: (code.get(name) or "")[:64] for name in ("value", "scheme", "meaning")})
    return codes[:50]


def _sections(root: ElementTree.Element, elements: list[ElementTree.Element]) -> list[dict[str, Any]]:
    parents = {child: parent for parent in root.iter() for child in parent}
    labels = {e.get("for") or "": _words(e) for e in elements if e.tag == "label"}
    names = _Names()
    sections: dict[ElementTree.Element, dict[str, Any]] = {}
    ids: dict[str, str] = {}
    radios: dict[tuple[ElementTree.Element, str], dict[str, Any]] = {}
    for element in elements:
        if element.tag not in {"input", "select", "textarea"} or (element.get("type") or "") in _NOT_FIELDS:
            continue
        box = _section_of(element, parents)
        if box is None:
            continue
        if box not in sections:
            title = _title(box, parents)
            sections[box] = {
                "id": names.new(box.get("id") or title, "section"),
                "title": title[:200],
                "role": _role(box, title),
                "fields": [],
            }
        if (element.get("type") or "").lower() == "radio":
            key = (box, element.get("name") or "")
            if key not in radios:
                radios[key] = {"id": names.new(key[1], "field"), "type": "choice", "label": key[1], "options": []}
                sections[box]["fields"].append(radios[key])
            option = (labels.get(element.get("id") or "") or element.get("value") or "")[:200].strip()
            if option and option not in radios[key]["options"]:
                radios[key]["options"].append(option)
                if element.get("checked") is not None:
                    radios[key]["default"] = option
            continue
        read = _read_field(element, labels, names)
        ids[element.get("id") or ""] = read["id"]
        if (needed := element.get(_CONDITION)) and needed in ids:
            values = [v for v in (element.get(_CONDITION_VALUES) or "").split("\n") if v]
            if values:
                read["show_if"] = {"field": ids[needed], "values": values}
        sections[box]["fields"].append(read)
    for section in sections.values():
        section["fields"] = [f for f in section["fields"] if f["type"] != "choice" or f["options"]]
    return [section for section in sections.values() if section["fields"]]


_NOT_FIELDS = {"hidden", "submit", "button", "image", "reset", "file", "password"}


class _Names:
    """Gives each section and field a name of its own, the file's where it can be one."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def new(self, wanted: str, kind: str) -> str:
        name = _NOT_ID.sub("_", wanted).strip("_.-")[:50]
        if not name or not name[0].isalpha() or f"{kind}:{name}" in self._used or name in _AVOIDED:
            name = f"{kind[0]}_{name}"[:50]
        base, number = name, 1
        while f"{kind}:{name}" in self._used:
            number += 1
            name = f"{base}_{number}"
        self._used.add(f"{kind}:{name}")
        return name


# Names of the desk's own form.
_AVOIDED = {"revision", "part", "password", "code", "passkey", "accepted", "reason_for", "csrfmiddlewaretoken", "key"}


def _section_of(
    element: ElementTree.Element, parents: dict[ElementTree.Element, ElementTree.Element]
) -> ElementTree.Element | None:
    while (parent := parents.get(element)) is not None:
        if parent.tag == "section":
            return parent
        element = parent
    return None


def _title(box: ElementTree.Element, parents: dict[ElementTree.Element, ElementTree.Element]) -> str:
    own = box.get("data-section-name") or next((_words(e) for e in box if e.tag in {"header", "h1", "h2", "h3"}), "")
    own = " ".join(own.split()) or "Section"
    outer = _section_of(box, parents)
    return f"{_title(outer, {})}, {own}" if outer is not None and outer.get("data-section-name") else own


def _role(box: ElementTree.Element, title: str) -> str:
    told = (box.get("data-atrium-role") or "").lower()
    if told in {"indication", "technique", "comparison", "findings", "impression", "reason", "other"}:
        return told
    words = f"{box.get('data-section-type') or ''} {title}".lower()
    return next((role for role, known in _ROLE_WORDS if any(word in words for word in known)), "other")


def _read_field(element: ElementTree.Element, labels: dict[str, str], names: _Names) -> dict[str, Any]:
    identity = element.get("id") or element.get("name") or ""
    read: dict[str, Any] = {
        "id": names.new(identity, "field"),
        "label": (labels.get(element.get("id") or "") or element.get("aria-label") or "")[:200],
        "help": (element.get("title") or "")[:500],
        "required": (element.get("data-field-completion-action") or "").upper() in {"PRECLUDE", "ALERT"},
    }
    kind = (element.get("data-field-type") or "").upper()
    html_type = (element.get("type") or "").lower()
    default = (element.get("value") or "")[:5000]
    if element.tag == "select":
        options, chosen = [], []
        for option in element.iter("option"):
            text = (_words(option) or option.get("value") or "")[:200]
            if text and text not in options:
                options.append(text)
                if option.get("selected") is not None:
                    chosen.append(text)
        is_multi = element.get("multiple") is not None
        read |= {"type": "multi" if is_multi else "choice", "options": options}
        if chosen:
            read["default"] = chosen if is_multi else chosen[0]
    elif element.tag == "textarea":
        read |= {"type": "text", "default": (element.text or "").strip("\n")[:5000]}
    elif html_type == "checkbox":
        label = read["label"] or default or element.get("name") or "Yes"
        read |= {"type": "checkbox", "label": label[:200], "default": element.get("checked") is not None}
    elif kind == "DATE" or html_type == "date":
        read |= {"type": "date", "default": default if parsed_date(default) else ""}
    elif kind in {"NUMBER", "NUMERIC"} or html_type in {"number", "range"}:
        bounds = {
            "minimum": parsed_number(element.get("min") or ""),
            "maximum": parsed_number(element.get("max") or ""),
        }
        unit = (element.get("data-field-units") or "")[:20]
        read |= {"type": "number", "unit": unit, "default": default if parsed_number(default) is not None else ""}
        read |= {name: bound for name, bound in bounds.items() if bound is not None}
    else:
        read |= {"type": "text", "default": default}
    return read
